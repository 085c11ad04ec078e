/* Messages to bytes and back; every limit; what is broken on the way. */
#include "proto/codec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/pipeline.pb-c.h"
#include "tests/proto/samples.h"
#include "tests/tap.h"

static uint8_t buf[1 << 20], buf2[1 << 20];

/* Encodes, decodes, encodes what came out: the same bytes, so nothing was lost; and whatever the first encoding lost would
 * be missing in the sample's fields, which test_fields looks at. */
static void test_round_trips(struct codec *c, struct codec *d)
{
    const struct msg *m;

    for (size_t i = 0; (m = sample_msg(i)) != NULL; i++) {
        struct msg back;
        struct err err = {0};
        size_t len, len2;
        const char *name = msg_type_name(m->type);
        if (!ok(codec_encode(c, m, buf, sizeof buf, &len, &err) == 0, "%s is encoded in %zu bytes %s", name, len, err.text))
            continue;
        ok(codec_decode(d, m->type, buf, len, codec_payload_bytes(m), &back, &err) == 0, "%s is decoded %s", name, err.text);
        ok(codec_encode(d, &back, buf2, sizeof buf2, &len2, &err) == 0 && len2 == len && memcmp(buf, buf2, len) == 0, "%s: the same bytes again %s",
           name, err.text);
        ok(codec_decode(d, m->type, buf, len, codec_payload_bytes(m) + 1, &back, &err) != 0 && strstr(err.text, "payload"), "%s: a byte of payload too much",
           name);
        ok(len == 0 || codec_encode(c, m, buf, len - 1, &len2, &err) != 0, "%s: no room", name);
    }
    is_int(msg_purpose((enum msg_type)999), 0, "an unknown type has no purpose");
    is_str(msg_type_name((enum msg_type)9), "unknown", "nor a name");
}

/* What a step and a configure say arrives. */
static void test_fields(struct codec *c)
{
    struct msg m;
    struct err err = {0};
    size_t len, i;

    for (i = 0; sample_msg(i)->type != MSG_STEP; i++)
        ;
    codec_encode(c, sample_msg(i), buf, sizeof buf, &len, &err);
    if (!ok(codec_decode(c, MSG_STEP, buf, len, codec_payload_bytes(sample_msg(i)), &m, &err) == 0, "a step"))
        return;
    const struct msg_step *s = &m.step, *want = &sample_msg(i)->step;
    ok(msg_epoch_same(s->epoch, want->epoch) && s->batch == want->batch && s->stop_stage == want->stop_stage, "epoch, batch, stop");
    ok(s->n_rows == 3 && memcmp(s->slot, want->slot, 12) == 0 && memcmp(s->pos, want->pos, 12) == 0 && memcmp(s->token, want->token, 12) == 0, "rows");
    ok(s->n_ops == 4 && s->ops[0].kind == OP_SEQ_OPEN && s->ops[0].seq == want->ops[0].seq && s->ops[0].choice == 2 && s->ops[0].n_tokens == 4 &&
           memcmp(s->ops[0].tokens, want->ops[0].tokens, 16) == 0,
       "seq_open");
    const struct msg_sample *p = &s->ops[0].sample, *q = &want->ops[0].sample;
    ok(p->temperature == q->temperature && p->top_k == 40 && p->top_p == q->top_p && p->min_p == q->min_p && p->typical_p == 1 &&
           p->repetition_penalty == q->repetition_penalty && p->presence_penalty == -1 && p->frequency_penalty == 0.5f && p->penalty_last == -1 &&
           p->seed == 42 && p->n_bias == 2 && p->bias[0].token == 17 && p->bias[1].bias == 2.5f,
       "its sampling parameters");
    ok(s->ops[1].kind == OP_SEQ_CUT && s->ops[1].keep == 12 && s->ops[2].kind == OP_BLOCK_COPY && s->ops[2].group == 1 && s->ops[2].from == 7 &&
           s->ops[2].to == 9 && s->ops[3].kind == OP_SEQ_CLOSE && s->ops[3].slot == 2,
       "the other ops in their order");
    ok(s->n_deltas == 2 && s->deltas[0].n_blocks == 3 && s->deltas[0].blocks[2] == 60000 && s->deltas[1].group == 1 && s->deltas[1].index == 8, "deltas");
    ok(s->n_wants == 3 && s->wants[0].top == 20 && s->wants[1].n_given == 4 && s->wants[1].given[3] == 29991 && s->wants[2].row == 2, "wants");
    is_int(codec_payload_bytes(&m), 3 * 64 * 2, "payload");
}

/* --- one bad field each ---------------------------------------------------------------------------------------------------- */
static uint32_t big_slot[1] = {MSG_MAX_SEQS}, big_pos[1] = {MSG_MAX_CTX}, zero[4];
static int32_t bad_token[1] = {-1}, big_token[1] = {MSG_MAX_VOCAB}, one_token[4] = {1, 2, 3, 4};
static uint32_t big_block[1] = {MSG_MAX_BLOCKS};
static float nans[1];

struct bad {
    enum msg_type type;
    size_t nth; /* sample of that type */
    const char *want;
    void (*spoil)(struct msg *m);
};
#define SPOIL(name, ...) \
    static void spoil_##name(struct msg *m) \
    { \
        __VA_ARGS__; \
    }
static struct msg_op op;
static struct msg_delta delta;
static struct msg_want want[2];
static struct msg_result_row row[2];
static struct msg_device device;
static struct msg_source source;
static void set_op(struct msg *m, struct msg_op o)
{
    op = o;
    m->step.ops = &op;
    m->step.n_ops = 1;
}
static struct msg_op opened(struct msg *m)
{
    return m->step.ops[0];
}

SPOIL(purpose, m->link_hello.purpose = LINK_PURPOSES)
SPOIL(purpose_zero, m->link_hello.purpose = 0)
SPOIL(protocol, m->link_hello.protocol_min = 5; m->link_hello.protocol_max = 4)
SPOIL(node, m->link_hello.node = "../etc")
SPOIL(node_empty, m->link_hello.node = "")
SPOIL(version, m->link_hello.version = "\x1b[2J")
SPOIL(relay, m->link_hello.relay_to = "a b")
SPOIL(stage, m->link_hello.stage = MSG_MAX_STAGES)
SPOIL(ok_protocol, m->link_ok.protocol = 0)
SPOIL(register_name, m->register_.name = ".x")
SPOIL(class, m->hello.numerics_class = "")
SPOIL(threads, m->hello.threads = MSG_MAX_THREADS + 1)
SPOIL(disk, m->hello.disk_bytes_per_s = NAN)
SPOIL(devices, m->hello.n_devices = MSG_MAX_DEVICES + 1)
SPOIL(device_rate, device = m->hello.devices[0]; device.read_bytes_per_s = -1; m->hello.devices = &device; m->hello.n_devices = 1)
SPOIL(device_rates, device = m->hello.devices[0]; device.n_rates = MSG_MAX_TYPES + 1; m->hello.devices = &device; m->hello.n_devices = 1)
SPOIL(device_bits, device = m->hello.devices[1]; device.n_bits = MSG_MAX_TYPES + 1; m->hello.devices = &device; m->hello.n_devices = 1)
SPOIL(device_peer, static struct msg_peer peer; device = m->hello.devices[1]; peer = (struct msg_peer){"", 1e9}; device.peers = &peer; device.n_peers = 1; m->hello.devices = &device; m->hello.n_devices = 1)
SPOIL(device_copy, device = m->hello.devices[1]; device.copy_bytes_per_s = -1; m->hello.devices = &device; m->hello.n_devices = 1)
SPOIL(release_device, m->release.device = "a\nb")
SPOIL(models, m->hello.n_models = MSG_MAX_MODELS + 1)
SPOIL(stages, m->configure.n_stages = 0)
SPOIL(which_stage, m->configure.stage = 3)
SPOIL(layers, m->configure.layer_first = 21)
SPOIL(layer_end, m->configure.layer_end = MSG_MAX_LAYERS + 1)
SPOIL(kv, m->configure.kv = MSG_KV_TYPES)
SPOIL(ctx, m->configure.ctx = 0)
SPOIL(blocks, m->configure.n_blocks[1] = MSG_MAX_BLOCKS + 1)
SPOIL(max_rows, m->configure.max_rows = MSG_MAX_ROWS + 1)
SPOIL(max_wanted, m->configure.max_wanted = 513)
SPOIL(max_seqs, m->configure.max_seqs = 0)
SPOIL(stride, m->configure.table_stride = MSG_MAX_TABLE + 1)
SPOIL(reach, m->configure.next.reach = REACH_WAYS)
SPOIL(address, m->configure.next.address = "")
SPOIL(act_next, m->configure.next.act = ACT_TYPES)
SPOIL(source_node, source = m->configure.sources[0]; source.node = ""; m->configure.sources = &source; m->configure.n_sources = 1)
SPOIL(sources, m->configure.n_sources = MSG_MAX_SOURCES + 1)
SPOIL(window, m->configure.window_frames = 0)
SPOIL(heartbeat_ms, m->configure.heartbeat_ms = 0)
SPOIL(done, m->load_progress.done_bytes = 11)
SPOIL(from, m->load_progress.from = LOAD_FROM)
SPOIL(times, m->heartbeat.n_stages = MSG_MAX_STAGE_TIMES + 1)
SPOIL(done_rows, m->stage_done.rows = MSG_MAX_ROWS + 1)
SPOIL(error_kind, m->error.kind = 0)
SPOIL(rows, m->step.n_rows = MSG_MAX_ROWS + 1)
SPOIL(slot, m->step.slot = big_slot; m->step.n_rows = 1; m->step.n_wants = 0)
SPOIL(pos, m->step.pos = big_pos; m->step.n_rows = 1; m->step.n_wants = 0)
SPOIL(token, m->step.token = bad_token; m->step.n_rows = 1; m->step.n_wants = 0)
SPOIL(token_big, m->step.token = big_token; m->step.n_rows = 1; m->step.n_wants = 0)
SPOIL(ops, m->step.n_ops = MSG_MAX_OPS + 1)
SPOIL(deltas, m->step.n_deltas = MSG_MAX_DELTAS + 1)
SPOIL(op_kind, set_op(m, (struct msg_op){.kind = OP_KINDS}))
SPOIL(op_slot, set_op(m, (struct msg_op){.kind = OP_SEQ_CLOSE, .slot = MSG_MAX_SEQS}))
SPOIL(op_keep, set_op(m, (struct msg_op){.kind = OP_SEQ_CUT, .keep = MSG_MAX_CTX + 1}))
SPOIL(op_group, set_op(m, (struct msg_op){.kind = OP_BLOCK_COPY, .group = 2}))
SPOIL(op_to, set_op(m, (struct msg_op){.kind = OP_BLOCK_COPY, .to = MSG_MAX_BLOCKS}))
SPOIL(op_tokens, struct msg_op o = opened(m); o.tokens = bad_token; o.n_tokens = 1; set_op(m, o))
SPOIL(op_many, struct msg_op o = opened(m); o.n_tokens = MSG_MAX_CTX + 1; set_op(m, o))
SPOIL(temperature, struct msg_op o = opened(m); o.sample.temperature = INFINITY; set_op(m, o))
SPOIL(penalty, struct msg_op o = opened(m); o.sample.presence_penalty = NAN; set_op(m, o))
SPOIL(penalty_last, struct msg_op o = opened(m); o.sample.penalty_last = -2; set_op(m, o))
SPOIL(bias, struct msg_op o = opened(m); o.sample.n_bias = MSG_MAX_BIAS + 1; set_op(m, o))
SPOIL(delta_group, delta = (struct msg_delta){.group = 2}; m->step.deltas = &delta; m->step.n_deltas = 1)
SPOIL(delta_index, delta = (struct msg_delta){.index = MSG_MAX_TABLE, .blocks = zero, .n_blocks = 1}; m->step.deltas = &delta; m->step.n_deltas = 1)
SPOIL(delta_block, delta = (struct msg_delta){.blocks = big_block, .n_blocks = 1}; m->step.deltas = &delta; m->step.n_deltas = 1)
static void set_want(struct msg *m, struct msg_want w)
{
    want[0] = w;
    m->step.wants = want;
    m->step.n_wants = 1;
}
SPOIL(want_row, set_want(m, (struct msg_want){.row = 3, .flags = WANT_SAMPLE}))
SPOIL(want_flags, set_want(m, (struct msg_want){.flags = 0}))
SPOIL(want_unknown, set_want(m, (struct msg_want){.flags = 32}))
SPOIL(want_top, set_want(m, (struct msg_want){.flags = WANT_TOP, .top = MSG_MAX_TOP + 1}))
SPOIL(want_top_none, set_want(m, (struct msg_want){.flags = WANT_TOP}))
SPOIL(want_top_unasked, set_want(m, (struct msg_want){.flags = WANT_SAMPLE, .top = 1}))
SPOIL(want_given, set_want(m, (struct msg_want){.flags = WANT_GIVEN, .given = one_token, .n_given = 0}))
SPOIL(want_given_many, set_want(m, (struct msg_want){.flags = WANT_GIVEN, .given = one_token, .n_given = MSG_MAX_GIVEN + 1}))
SPOIL(want_twice, want[0] = want[1] = (struct msg_want){.flags = WANT_SAMPLE}; m->step.wants = want; m->step.n_wants = 2)
SPOIL(stop, m->step.stop_stage = MSG_MAX_STAGES)
SPOIL(act, m->step.act = ACT_TYPES)
SPOIL(embd, m->step.embd = MSG_MAX_EMBD + 1)
static void set_row(struct msg *m, struct msg_result_row r)
{
    row[0] = r;
    m->result.rows = row;
    m->result.n_rows = 1;
}
SPOIL(result_row, set_row(m, (struct msg_result_row){.row = MSG_MAX_ROWS}))
SPOIL(result_token, set_row(m, (struct msg_result_row){.token = -5}))
SPOIL(result_logprob, set_row(m, (struct msg_result_row){.logprob = NAN}))
SPOIL(result_top, set_row(m, (struct msg_result_row){.top_tokens = one_token, .top_logprobs = nans, .n_top = 1}))
SPOIL(result_nan, nans[0] = NAN; set_row(m, (struct msg_result_row){.flags = WANT_GIVEN, .given = nans, .n_given = 1}))
SPOIL(result_order, row[0] = row[1] = (struct msg_result_row){.row = 4}; m->result.rows = row; m->result.n_rows = 2)
SPOIL(credit, m->credit.free_frames = MSG_MAX_WINDOW + 1)
SPOIL(mask_row, m->mask.row = MSG_MAX_ROWS)
SPOIL(mask_empty, m->mask.n_bytes = 0)
SPOIL(split, m->weights_get.split = MSG_MAX_SPLITS)
SPOIL(get_bytes, m->weights_get.bytes = 0)
SPOIL(get_offset, m->weights_get.offset = INT64_MAX)
SPOIL(piece, m->weights_put.bytes = MSG_MAX_PIECE + 1; m->weights_put.total_bytes = MSG_MAX_PIECE + 1)
SPOIL(total, m->weights_put.total_bytes = 999)
SPOIL(chunks, m->manifest_get.n_chunks = MSG_MAX_MANIFEST + 1)
SPOIL(first_chunk, m->manifest_get.first_chunk = MSG_MAX_CHUNKS)
SPOIL(hash_asked, m->manifest_get.hash = MSG_HASHES)
SPOIL(hash_given, m->manifest_put.hash = MSG_HASHES)
SPOIL(hashes, m->manifest_put.n_hashes = MSG_MAX_MANIFEST + 1)
SPOIL(chunk_bytes, m->manifest_put.chunk_bytes = 0)
SPOIL(answer, m->probe.answer_bytes = MSG_MAX_PROBE + 1)

static const struct bad bads[] = {
    {MSG_LINK_HELLO, 0, "purpose is 5", spoil_purpose},
    {MSG_LINK_HELLO, 0, "purpose is 0", spoil_purpose_zero},
    {MSG_LINK_HELLO, 0, "protocol_min is 5, allowed are 1 to 4", spoil_protocol},
    {MSG_LINK_HELLO, 0, "node is no name", spoil_node},
    {MSG_LINK_HELLO, 0, "node is no name", spoil_node_empty},
    {MSG_LINK_HELLO, 0, "version has the byte 0x1B at 0", spoil_version},
    {MSG_LINK_HELLO, 0, "relay_to is no name", spoil_relay},
    {MSG_LINK_HELLO, 0, "stage is 256", spoil_stage},
    {MSG_LINK_OK, 0, "protocol is 0", spoil_ok_protocol},
    {MSG_REGISTER, 0, "name is no name", spoil_register_name},
    {MSG_HELLO, 0, "numerics_class is empty", spoil_class},
    {MSG_HELLO, 0, "threads is 1025", spoil_threads},
    {MSG_HELLO, 0, "disk_bytes_per_s is nan", spoil_disk},
    {MSG_HELLO, 0, "devices has 33 entries", spoil_devices},
    {MSG_HELLO, 0, "device 0: read_bytes_per_s is -1", spoil_device_rate},
    {MSG_HELLO, 0, "rates has 65 entries", spoil_device_rates},
    {MSG_HELLO, 0, "bits has 65 entries", spoil_device_bits},
    {MSG_HELLO, 0, "copy_bytes_per_s is -1", spoil_device_copy},
    {MSG_HELLO, 0, "peer", spoil_device_peer},
    {MSG_RELEASE, 0, "device has the byte 0x0A", spoil_release_device},
    {MSG_HELLO, 0, "models has 257 entries", spoil_models},
    {MSG_CONFIGURE, 0, "n_stages is 0", spoil_stages},
    {MSG_CONFIGURE, 0, "stage is 3, allowed are 0 to 2", spoil_which_stage},
    {MSG_CONFIGURE, 0, "layer_first is 21, allowed are 0 to 20", spoil_layers},
    {MSG_CONFIGURE, 0, "layer_end is 4097", spoil_layer_end},
    {MSG_CONFIGURE, 0, "kv is 3", spoil_kv},
    {MSG_CONFIGURE, 0, "ctx is 0", spoil_ctx},
    {MSG_CONFIGURE, 0, "n_blocks is", spoil_blocks},
    {MSG_CONFIGURE, 0, "max_rows is 8193", spoil_max_rows},
    {MSG_CONFIGURE, 0, "max_wanted is 513, allowed are 1 to 512", spoil_max_wanted},
    {MSG_CONFIGURE, 0, "max_seqs is 0", spoil_max_seqs},
    {MSG_CONFIGURE, 0, "table_stride is", spoil_stride},
    {MSG_CONFIGURE, 0, "neighbour 1: reach is 5", spoil_reach},
    {MSG_CONFIGURE, 0, "neighbour 1: address is empty", spoil_address},
    {MSG_CONFIGURE, 0, "neighbour 1: act is 3", spoil_act_next},
    {MSG_CONFIGURE, 0, "source 0: node", spoil_source_node},
    {MSG_CONFIGURE, 0, "sources has 65 entries", spoil_sources},
    {MSG_CONFIGURE, 0, "window_frames is 0", spoil_window},
    {MSG_CONFIGURE, 0, "heartbeat_ms is 0", spoil_heartbeat_ms},
    {MSG_LOAD_PROGRESS, 0, "done_bytes is 11, allowed are 0 to 10", spoil_done},
    {MSG_LOAD_PROGRESS, 0, "from is 5", spoil_from},
    {MSG_HEARTBEAT, 0, "stages has 33 entries", spoil_times},
    {MSG_STAGE_DONE, 0, "rows is 8193", spoil_done_rows},
    {MSG_ERROR, 0, "kind is 0", spoil_error_kind},
    {MSG_STEP, 0, "rows is 8193", spoil_rows},
    {MSG_STEP, 0, "slot has 4096 at 0", spoil_slot},
    {MSG_STEP, 0, "pos has 4194304 at 0", spoil_pos},
    {MSG_STEP, 0, "token has -1 at 0", spoil_token},
    {MSG_STEP, 0, "token has 16777216 at 0", spoil_token_big},
    {MSG_STEP, 0, "ops has 8193 entries", spoil_ops},
    {MSG_STEP, 0, "deltas has 16385 entries", spoil_deltas},
    {MSG_STEP, 0, "op 0: kind is 5", spoil_op_kind},
    {MSG_STEP, 0, "op 0: slot is 4096", spoil_op_slot},
    {MSG_STEP, 0, "op 0: keep is", spoil_op_keep},
    {MSG_STEP, 0, "op 0: group is 2", spoil_op_group},
    {MSG_STEP, 0, "op 0: to is", spoil_op_to},
    {MSG_STEP, 0, "op 0: tokens has -1", spoil_op_tokens},
    {MSG_STEP, 0, "op 0: tokens has 4194305 entries", spoil_op_many},
    {MSG_STEP, 0, "op 0: temperature is inf", spoil_temperature},
    {MSG_STEP, 0, "op 0: presence_penalty is nan", spoil_penalty},
    {MSG_STEP, 0, "op 0: penalty_last is below -1", spoil_penalty_last},
    {MSG_STEP, 0, "bias has 1025 entries", spoil_bias},
    {MSG_STEP, 0, "delta 0: group is 2", spoil_delta_group},
    {MSG_STEP, 0, "delta 0: index is 131072", spoil_delta_index},
    {MSG_STEP, 0, "delta 0: blocks has 67108864 at 0", spoil_delta_block},
    {MSG_STEP, 0, "want 0: row is 3, allowed are 0 to 2", spoil_want_row},
    {MSG_STEP, 0, "want 0: flags is 0", spoil_want_flags},
    {MSG_STEP, 0, "want 0: flags is 32", spoil_want_unknown},
    {MSG_STEP, 0, "want 0: top is 1025", spoil_want_top},
    {MSG_STEP, 0, "want 0: top is 0, allowed are 1 to", spoil_want_top_none},
    {MSG_STEP, 0, "want 0: top is 1, allowed are 0 to 0", spoil_want_top_unasked},
    {MSG_STEP, 0, "want 0: given tokens is 0", spoil_want_given},
    {MSG_STEP, 0, "want 0: given tokens is 1025", spoil_want_given_many},
    {MSG_STEP, 0, "want 1: row does not ascend", spoil_want_twice},
    {MSG_STEP, 0, "stop_stage is 256", spoil_stop},
    {MSG_STEP, 0, "act is 3", spoil_act},
    {MSG_STEP, 0, "embd is", spoil_embd},
    {MSG_RESULT, 0, "row 0: row is 8192", spoil_result_row},
    {MSG_RESULT, 0, "row 0: token has -5", spoil_result_token},
    {MSG_RESULT, 0, "row 0: logprob has a value", spoil_result_logprob},
    {MSG_RESULT, 0, "row 0: top is 1, allowed are 0 to 0", spoil_result_top},
    {MSG_RESULT, 0, "row 0: given has a value", spoil_result_nan},
    {MSG_RESULT, 0, "row 1: row is 4, allowed are 5 to", spoil_result_order},
    {MSG_CREDIT, 0, "free_frames is 4097", spoil_credit},
    {MSG_MASK, 0, "row is 8192", spoil_mask_row},
    {MSG_MASK, 0, "bits is empty", spoil_mask_empty},
    {MSG_WEIGHTS_GET, 0, "split is 1024", spoil_split},
    {MSG_WEIGHTS_GET, 0, "bytes is 0", spoil_get_bytes},
    {MSG_WEIGHTS_GET, 0, "offset is", spoil_get_offset},
    {MSG_WEIGHTS_PUT, 0, "bytes is 262145", spoil_piece},
    {MSG_WEIGHTS_PUT, 0, "total_bytes is 999", spoil_total},
    {MSG_MANIFEST_GET, 0, "n_chunks is 4097", spoil_chunks},
    {MSG_MANIFEST_GET, 0, "first_chunk is", spoil_first_chunk},
    {MSG_MANIFEST_PUT, 0, "hashes has 4097 entries", spoil_hashes},
    {MSG_MANIFEST_GET, 0, "hash is 2", spoil_hash_asked},
    {MSG_MANIFEST_PUT, 0, "hash is 2", spoil_hash_given},
    {MSG_MANIFEST_PUT, 0, "chunk_bytes is 0", spoil_chunk_bytes},
    {MSG_PROBE, 0, "answer_bytes is", spoil_answer},
};

static struct msg sample_of(enum msg_type type)
{
    size_t i = 0;

    while (sample_msg(i)->type != type)
        i++;
    return *sample_msg(i);
}

static void test_bad_fields(struct codec *c)
{
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct msg m = sample_of(bads[i].type);
        struct err err = {0};
        size_t len;
        bads[i].spoil(&m);
        ok(codec_encode(c, &m, buf, sizeof buf, &len, &err) != 0 && err.kind == ERR_INTERNAL, "%s is not sent", bads[i].want);
        has_str(err.text, bads[i].want, "and that is said");
        ok(strncmp(err.text, msg_type_name(m.type), strlen(msg_type_name(m.type))) == 0, "with the message's name");
    }
}

/* What our own encoder would not make: bytes of another's. */
static void decode_fails(struct codec *c, enum msg_type type, const ProtobufCMessage *p, size_t payload_len, const char *say)
{
    struct msg m = {.type = MSG_NONE};
    struct err err = {0};
    size_t len = protobuf_c_message_pack(p, buf);

    ok(codec_decode(c, type, buf, len, payload_len, &m, &err) != 0 && err.kind == ERR_INPUT, "%s is not taken", say);
    has_str(err.text, say, "and that is said");
    is_int(m.type, MSG_NONE, "the result is untouched");
}

static void test_foreign(struct codec *c)
{
    uint32_t two[] = {0, 1}, nine[] = {9};
    uint8_t short_id[5] = {0};
    Sc__Step step = SC__STEP__INIT;
    Sc__Op an_op = SC__OP__INIT, *an_ops[] = {&an_op};
    Sc__Sample sample = SC__SAMPLE__INIT;
    Sc__WeightsGet get = SC__WEIGHTS_GET__INIT;
    Sc__Configure configure = SC__CONFIGURE__INIT;
    Sc__ResultRow result_row = SC__RESULT_ROW__INIT, *result_rows[] = {&result_row};
    Sc__Result result = SC__RESULT__INIT;
    float one_float[] = {0};

    step.n_slot = step.n_pos = 2;
    step.slot = step.pos = two;
    step.n_token = 1;
    step.token = one_token;
    decode_fails(c, MSG_STEP, &step.base, 0, "2 entries of slot, but 1 of token");
    sc__step__init(&step);
    step.n_want_row = step.n_want_flags = step.n_want_top = 1;
    step.want_row = step.want_flags = step.want_top = nine;
    decode_fails(c, MSG_STEP, &step.base, 0, "1 entries of want_row, but 0 of");
    step.n_want_given = 1;
    step.want_given = nine;
    decode_fails(c, MSG_STEP, &step.base, 0, "want 0: has 9 given tokens, 0 are left");
    step.n_want_row = step.n_want_flags = step.n_want_top = step.n_want_given = 0;
    step.n_given = 2;
    step.given = one_token;
    decode_fails(c, MSG_STEP, &step.base, 0, "2 entries of given, but 0 of what the wants add up to");
    sc__step__init(&step);
    step.n_ops = 1;
    step.ops = an_ops;
    an_op.kind = OP_SEQ_OPEN;
    decode_fails(c, MSG_STEP, &step.base, 0, "seq_open without sampling parameters");
    an_op.sample = &sample;
    sample.n_bias_token = 1;
    sample.bias_token = one_token;
    decode_fails(c, MSG_STEP, &step.base, 0, "1 entries of bias_token, but 0 of bias_value");
    get.model = (ProtobufCBinaryData){sizeof short_id, short_id};
    decode_fails(c, MSG_WEIGHTS_GET, &get.base, 0, "model has 5 bytes, 32 are needed");
    decode_fails(c, MSG_CONFIGURE, &configure.base, 0, "n_blocks has 0 entries, 2 are needed");
    result.n_rows = 1;
    result.rows = result_rows;
    result_row.n_top_logprobs = 1;
    result_row.top_logprobs = one_float;
    decode_fails(c, MSG_RESULT, &result.base, 0, "0 entries of top_tokens, but 1 of top_logprobs");
}

static void test_broken(struct codec *c)
{
    struct msg m = sample_of(MSG_STEP), out;
    struct codec *small = codec_create(1024, NULL);
    struct err err = {0};
    size_t len, len2;
    unsigned taken = 0;

    codec_encode(c, &m, buf, sizeof buf, &len, &err);
    for (size_t cut = 0; cut < len; cut++)
        taken += codec_decode(c, MSG_STEP, buf, cut, codec_payload_bytes(&m), &out, &err) == 0;
    ok(taken < 3, "a step that was cut is not taken (%u of %zu places make another whole one)", taken, len);
    ok(codec_decode(small, MSG_STEP, buf, len, codec_payload_bytes(&m), &out, &err) != 0 && err.kind == ERR_LIMIT, "a message too big for its memory: %s",
       err.text);
    ok(codec_encode(small, &m, buf, sizeof buf, &len2, &err) != 0 && err.kind == ERR_LIMIT, "encoding one, too");
    ok(codec_decode(c, (enum msg_type)99, buf, len, 0, &out, &err) != 0 && strstr(err.text, "unknown type 99"), "an unknown type: %s", err.text);
    ok(codec_decode(c, MSG_NONE, buf, 0, 0, &out, &err) != 0, "no type");
    codec_destroy(small);
}

/* What a stranger's hello holds moves no terminal's cursor: it is refused, in words that can be shown. */
static void test_escapes(struct codec *c)
{
    struct msg_device cpu = {.name = "cpu"};
    struct msg m = {.type = MSG_HELLO, .hello = {.version = "0.1.0", .node = "attic", .numerics_class = "cpu", .isa = "avx2", .address = "",
                                                 .devices = &cpu, .n_devices = 1}}, out;
    struct err err = {0};
    size_t len;

    ok(codec_encode(c, &m, buf, sizeof buf, &len, &err) == 0, "a hello %s", err.text);
    char *name = memmem(buf, len, "attic", 5);
    ok(name != NULL, "its name");
    if (!name)
        return;
    memcpy(name, "a\x1b[2J", 5);
    ok(codec_decode(c, MSG_HELLO, buf, len, 0, &out, &err) != 0 && !strchr(err.text, 0x1b), "an escape sequence in a node's name: %s", err.text);
    memcpy(name, "a\xC2\x9B!!", 5);
    ok(codec_decode(c, MSG_HELLO, buf, len, 0, &out, &err) != 0 && strstr(err.text, "0xC2 at 1"), "the same in one character: %s", err.text);
    memcpy(name, "a\xff\xfe!!", 5);
    ok(codec_decode(c, MSG_HELLO, buf, len, 0, &out, &err) != 0 && !strchr(err.text, 0xff), "no UTF-8: %s", err.text);
}

/* A sentence that quotes anything is made fit; a later version's fields are passed over. */
static void test_leniency(struct codec *c)
{
    char text[2000];
    struct msg m = {.type = MSG_BYE, .bye.text = text}, out;
    struct err err = {0};
    static const uint8_t unknown_field[] = {0xF8, 0x07, 0x05}; /* 127: 5 */
    size_t len;

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    text[3] = '\n';
    text[4] = (char)0xFF;
    ok(codec_encode(c, &m, buf, sizeof buf, &len, &err) == 0 && codec_decode(c, MSG_BYE, buf, len, 0, &out, &err) == 0, "any sentence can be sent %s", err.text);
    ok(strlen(out.bye.text) <= MSG_MAX_TEXT && strncmp(out.bye.text, "xxx??x", 6) == 0, "cut and made printable");
    memcpy(buf + len, unknown_field, sizeof unknown_field);
    ok(codec_decode(c, MSG_BYE, buf, len + sizeof unknown_field, 0, &out, &err) == 0, "a field of a later version is passed over %s", err.text);
}

int main(void)
{
    struct codec *c = codec_create(CODEC_DATA_BYTES, NULL), *d = codec_create(CODEC_SMALL_BYTES, NULL);

    test_round_trips(c, d);
    test_fields(c);
    test_bad_fields(c);
    test_foreign(c);
    test_broken(c);
    test_leniency(c);
    test_escapes(c);
    codec_destroy(c);
    codec_destroy(d);
    return tap_done();
}
