/* A whole model from any bytes: opened as a file, a few steps, tokens drawn. What a file claims may be wrong anywhere: in its
 * metadata, its shapes, its scales. Tensor data that an input lacks is filled in, so that inputs can be headers, which are
 * small and where most can go wrong. A model that would take much memory is refused by the session for want of it; here, where
 * there is always enough, by the same figure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "model/sampler.h"
#include "model/session.h"
#include "model/stage.h"
#include "tests/fuzz/fuzz.h"
#include "tests/model/model_build.h"

enum { CTX = 48, ROWS = 8, STEPS = 4, MOST_BYTES = 24 << 20, MOST_FILLED = 1 << 20 };

/* Beyond what a file that passed all checks may hold: so many blocks, experts or dimensions as make a step slow or large. */
static bool small_enough(const uint8_t *data, size_t size)
{
    struct model_params p;
    struct stage_bytes bytes;
    struct stage_config c = {.embed = true,
                             .head = true,
                             .kv = KV_F16,
                             .ctx = CTX,
                             .n_blocks = {4, 4},
                             .max_rows = ROWS,
                             .max_wanted = ROWS,
                             .max_seqs = 2,
                             .table_stride = 2};
    struct gguf *g = gguf_open_memory(data, size, false, NULL);
    struct backend *be = backend_cpu_create(1, NULL, NULL);
    bool good = g && be && model_params_read(g, &p, NULL) == 0;
    c.last = good ? p.n_layers : 0;
    good = good && stage_bytes(g, &p, &c, be, &bytes, NULL) == 0 && bytes.kv + bytes.scratch < MOST_BYTES &&
           bytes.weights < MOST_BYTES + 2 * size;
    backend_destroy(be);
    gguf_close(g);
    return good;
}

static void use(struct session *s)
{
    static const struct session_row bad[] = {{.seq = 9}, {.pos = 7}, {.token = -1}, {.token = 1 << 30}};
    struct sample_params params = SAMPLE_PARAMS_DEFAULT;
    struct sampler *sampler = sampler_create(session_n_vocab(s), NULL, NULL);
    int32_t token = (int32_t)(session_n_vocab(s) - 1), history[STEPS] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        session_step(s, &bad[i], 1, NULL);
    for (uint32_t step = 0; sampler && step < STEPS; step++) {
        struct session_row rows[3] = {
            {.seq = 1, .pos = 2 * step}, {.pos = step, .token = token, .want = true}, {.seq = 1, .pos = 2 * step + 1}};
        if (session_step(s, rows, 3, NULL) != 0 ||
            sampler_sample(sampler, &params, session_logits(s, 0), history, step, 0, step, &token, NULL, NULL) != 0)
            break;
        history[step] = token;
    }
    session_cut(s, 1, 3);
    session_step(s, &(struct session_row){.seq = 1, .pos = session_length(s, 1)}, 1, NULL);
    sampler_destroy(sampler);
}

/* Where the last tensor ends; 0 for what is no model's header. */
static uint64_t end_of_tensors(const uint8_t *data, size_t size)
{
    struct gguf *g = gguf_open_memory(data, size, true, NULL);
    uint64_t end = 0;
    for (size_t i = 0; g && i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        if (t->offset + t->bytes > end)
            end = t->offset + t->bytes;
    }
    gguf_close(g);
    return end;
}

static void run_file(const uint8_t *data, size_t size, const struct session_options *options)
{
    char path[64];
    int fd = memfd_create("model", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct session *s = session_open(path, options, NULL);
    if (s)
        use(s);
    session_close(s);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum kv_type kvs[] = {KV_F16, KV_F32, KV_Q8_0};
    struct session_options o = {
        .threads = 1, .ctx = CTX, .parallel = 2, .batch_rows = ROWS, .kv = kvs[size % 3], .isa = size % 2 ? "scalar" : NULL};
    uint64_t end = end_of_tensors(data, size);
    if (end == 0 || end > size + MOST_FILLED)
        return 0;
    size_t whole = end > size ? end : size;
    uint8_t *file = malloc(whole);
    if (!file)
        return 0;
    memcpy(file, data, size);
    for (size_t i = size; i < whole; i++)
        file[i] = (uint8_t)(i * 37 & 0x3F); /* as halves and floats: small numbers */
    if (small_enough(file, whole))
        run_file(file, whole, &o);
    free(file);
    return 0;
}

/* The header of every family in one quantization, and the whole of the plainest in some. */
size_t fuzz_corpus(size_t index, uint8_t *buf, size_t cap)
{
    static const enum quant_type quants[] = {QUANT_Q8_0, QUANT_F16, QUANT_Q4_0, QUANT_Q5_1, QUANT_IQ4_NL, QUANT_MXFP4};
    enum { QUANTS = sizeof quants / sizeof *quants };
    struct gguf_build b;
    size_t len;
    if (index >= MODEL_SPECS + QUANTS)
        return 0;
    if (index < MODEL_SPECS)
        model_build(&b, &model_specs[index], quants[index % QUANTS], NULL);
    else
        model_build(&b, &model_specs[0], quants[index - MODEL_SPECS], NULL);
    unsigned char *bytes = gguf_build_finish(&b, index >= MODEL_SPECS, &len);
    gguf_build_fini(&b);
    if (len > cap)
        len = 0;
    memcpy(buf, bytes, len);
    free(bytes);
    return len;
}
