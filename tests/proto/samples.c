/* See samples.h: every field holds something, and every kind of op and want is there. */
#include "tests/proto/samples.h"

static const uint8_t id[2][MSG_ID_BYTES] = {{1, 2, 3, 0xFF}, {9}};
#define EPOCH {0xFEDCBA9876543210u, 77}
static const struct msg_rate rates[] = {{"Q4_K", 9e11, 7e11, 7e10}, {"Q8_0", 1.5e12, 0, 0}};
static const struct msg_bits bits[] = {{"Q4_K", 4.5}, {"F16", 16}};
static const struct msg_peer peers[] = {{"cuda:1", 5e10}, {"cuda:2", 1e10}};
static const struct msg_device devices[] = {
    {"cpu", 16ull << 30, 4e10, rates, 2, "", 0, 0, 0, NULL, 0, "", 5e10, 0, 0, 0, NULL, 0},
    {"cuda:0", 22ull << 30, 8.5e11, NULL, 0, "cuda", 2, 1, 2.5e10, bits, 2, "a device of NVIDIA's", 1e12, 2e12, 5e12, 2.4e10, peers, 2}};
static const struct msg_resident resident[] = {
    {.present = true, .model = {5}, .layer_first = 3, .layer_end = 9, .embed = false, .head = true, .device = "cpu", .kv_epoch = {4, 5}}};
static const struct msg_source sources[] = {{"boss", "tcp://10.0.0.1:7100", id[0]}, {"attic", "ipc:///run/x/s", NULL}};
static const struct msg_stage_times times[] = {{0, 1000, 200, 30, 8, 1, 2}, {3, 1, 2, 3, 4, 5, 6}};
static const struct msg_bias bias[] = {{17, -100.0f}, {5, 2.5f}};
static const int32_t tokens[] = {1, 15043, 3186, 29991};
static const struct msg_op ops[] = {
    {.kind = OP_SEQ_OPEN,
     .slot = 3,
     .seq = 1ull << 40,
     .choice = 2,
     .sample = {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .typical_p = 1, .repetition_penalty = 1.1f, .presence_penalty = -1,
                .frequency_penalty = 0.5f, .penalty_last = -1, .seed = 42, .bias = bias, .n_bias = 2},
     .tokens = tokens,
     .n_tokens = 4},
    {.kind = OP_SEQ_CUT, .slot = 1, .keep = 12},
    {.kind = OP_BLOCK_COPY, .group = 1, .from = 7, .to = 9},
    {.kind = OP_SEQ_CLOSE, .slot = 2},
};
static const uint32_t blocks[] = {4, 5, 60000};
static const struct msg_delta deltas[] = {{0, 0, 0, blocks, 3}, {3, 1, 8, blocks, 1}};
static const uint32_t slot[] = {0, 3, 3}, pos[] = {12, 0, 1};
static const int32_t token[] = {5, 6, 128000};
static const struct msg_want wants[] = {
    {0, WANT_SAMPLE | WANT_TOP, 20, NULL, 0}, {1, WANT_GIVEN, 0, tokens, 4}, {2, WANT_SAMPLE | WANT_HIDDEN | WANT_MASK, 0, NULL, 0}};
static const float logprobs[] = {-0.5f, -1.25f, -9.0f, -0x1p-20f};
static const struct msg_result_row rows[] = {
    {.row = 0, .flags = WANT_SAMPLE | WANT_TOP, .token = 11, .logprob = -0.25f, .top_tokens = tokens, .top_logprobs = logprobs, .n_top = 4},
    {.row = 2, .flags = WANT_GIVEN | WANT_HIDDEN, .given = logprobs, .n_given = 2},
};
static const uint8_t mask[] = {0xFF, 0x01, 0x80};

static const struct msg samples[] = {
    {MSG_LINK_HELLO, .link_hello = {LINK_DATA, 1, 3, "0.1.0", "attic", 99, {7, 8}, 2, true, "cellar"}},
    {MSG_LINK_OK, .link_ok = {2, "0.1.0", "boss", 12345}},
    {MSG_BYE, .bye = {"enough: für heute", true}},
    {MSG_REGISTER, .register_ = {{3, 4}, "attic"}},
    {MSG_REGISTERED, .registered = {"attic", "boss"}},
    {MSG_HELLO,
     .hello = {"0.1.0", "attic", 99, "cpu", 3, "avx2", 8, "tcp://10.0.0.7:7101", id[0], 3e9, devices, 2, bits, 2, resident, 1, id, 2}},
    {MSG_WELCOME, .welcome = {12345, "boss", "0.1.0"}},
    {MSG_CONFIGURE,
     .configure = {.epoch = EPOCH,
                   .stage = 1,
                   .n_stages = 3,
                   .device = "cpu",
                   .model = {6},
                   .layer_first = 10,
                   .layer_end = 20,
                   .embed = true,
                   .head = true,
                   .kv = MSG_KV_Q8_0,
                   .ctx = 8192,
                   .n_blocks = {1024, 64},
                   .max_rows = 512,
                   .max_wanted = 64,
                   .max_seqs = 16,
                   .table_stride = 256,
                   .threads = 4,
                   .isa = "avx2",
                   .keep_kv = true,
                   .previous = {REACH_AWAIT, "boss", "", id[0], MSG_STAGE_COORDINATOR, ACT_F32},
                   .next = {REACH_DIAL, "cellar", "tcp://10.0.0.8:7101", id[1], 2, ACT_Q8_0},
                   .sources = sources,
                   .n_sources = 2,
                   .memory_bytes = 8ull << 30,
                   .window_frames = 8,
                   .window_bytes = 1 << 26,
                   .heartbeat_ms = 250,
                   .lost_ms = 1000,
                   .orphan_ms = 600000}},
    {MSG_LOAD_PROGRESS, .load_progress = {EPOCH, 1, 5, 10, LOAD_PEER, "from cellar"}},
    {MSG_READY, .ready = {EPOCH, 1, 2, 3, 4, 5, 6, 7}},
    {MSG_HEARTBEAT, .heartbeat = {1, 2, 3, times, 2}},
    {MSG_STAGE_DONE, .stage_done = {EPOCH, 1, 2, 3, 4, 5, 6, 7}},
    {MSG_DRAIN, .drain = {10800, "I want to play"}},
    {MSG_RELEASE, .release = {EPOCH, true, "cpu:1"}},
    {MSG_ERROR, .error = {EPOCH, 1, 6, "out of memory", 5ull << 30}},
    {MSG_STEP,
     .step = {EPOCH, 1ull << 33, ops, 4, deltas, 2, 3, slot, pos, token, wants, 3, MSG_STOP_NONE, ACT_F16, 64}},
    {MSG_STEP, .step = {.epoch = EPOCH, .batch = 1, .stop_stage = 2}},
    {MSG_RESULT, .result = {EPOCH, 1ull << 33, rows, 2, 64, ""}},
    {MSG_RESULT, .result = {.epoch = EPOCH, .batch = 5, .error = "the model is broken"}},
    {MSG_CREDIT, .credit = {EPOCH, 100, 1 << 20, 8}},
    {MSG_MASK, .mask = {EPOCH, 6, 2, mask, 3}},
    {MSG_WEIGHTS_GET, .weights_get = {1, {7}, 2, false, 1ull << 35, 1 << 22}},
    {MSG_WEIGHTS_GET, .weights_get = {2, {7}, 0, true, 0, 0}},
    {MSG_WEIGHTS_PUT, .weights_put = {1, 4096, 1000, true, 5096, ""}},
    {MSG_MANIFEST_GET, .manifest_get = {1, {7}, 2, 100, 50, MSG_HASH_BLAKE3}},
    {MSG_MANIFEST_PUT, .manifest_put = {1, 2, 100, 4 << 20, 1ull << 33, id, 2, "", MSG_HASH_BLAKE3}},
    {MSG_PROBE, .probe = {1, 2, 3, 4096}},
    {MSG_PROBE_ECHO, .probe_echo = {1, 2, 4096}},
};

const struct msg *sample_msg(size_t index)
{
    return index < sizeof samples / sizeof *samples ? &samples[index] : NULL;
}
