/* See embedding.h. The engine sets memory aside for all hidden states of an input, so inputs go in one after the other
 * where they are long, and all requests together stay under EMBED_BYTES. */
#include "front/embedding.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define EMBED_BYTES ((uint64_t)1 << 30)
#define EMBED_OWN_BYTES ((uint64_t)64 << 20)

struct input {
    struct token_list tokens;
    struct engine_request *request; /* NULL: not begun, or done */
    uint64_t bytes;                 /* of hidden_bytes */
    double *sum;
    bool done;
};

struct embedding {
    struct job job;
    struct engine *engine;
    struct metrics *metrics;
    _Atomic uint64_t *hidden_bytes;
    const char *model;
    void (*ready)(void *arg);
    void *ready_arg;
    bool base64, failed;
    uint32_t n_embd;
    struct input *inputs;
    size_t n_inputs, n_begun, n_done;
    uint64_t own_bytes, n_tokens;
    struct err err;
};

/* --- starting ------------------------------------------------------------ */

static uint32_t embedding_length(const struct gguf *g)
{
    struct gguf_str arch;
    char key[128];
    uint32_t n = 0;

    if (gguf_get_str(g, "general.architecture", &arch, NULL) != 1 || arch.len > 64)
        return 0;
    snprintf(key, sizeof key, "%.*s.embedding_length", (int)arch.len, arch.s);
    return gguf_get_u32(g, key, &n, NULL) == 1 ? n : 0;
}

static int read_options(struct embedding *m, const json_t *body, struct api_error *e)
{
    const char *format = "float", *model = NULL;
    int64_t dimensions = m->n_embd;

    if (api_text(body, "model", &model, NULL, e) != 0 || api_text(body, "encoding_format", &format, NULL, e) != 0 ||
        api_int(body, "dimensions", 1, INT32_MAX, &dimensions, e) != 0)
        return -1;
    if (dimensions != m->n_embd)
        return api_refuse(e, "dimensions", "dimensions is %lld; this model's embeddings have %u, which cannot be changed",
                          (long long)dimensions, m->n_embd);
    m->base64 = strcmp(format, "base64") == 0;
    return m->base64 || strcmp(format, "float") == 0
               ? 0
               : api_refuse(e, "encoding_format", "encoding_format: \"float\" or \"base64\" is allowed");
}

static int read_inputs(struct embedding *m, const struct prompt *prompt, const json_t *body, struct api_error *e)
{
    struct api_prompts texts;
    struct err err;
    int rc = 0;

    if (api_prompts_read(&texts, json_object_get(body, "input"), "input", e) != 0)
        return -1;
    if (!(m->inputs = mem_new(texts.n, sizeof *m->inputs, &err)))
        rc = api_from_err(e, &err);
    else
        m->n_inputs = texts.n;
    for (size_t i = 0; i < m->n_inputs && rc == 0; i++) {
        struct input *in = &m->inputs[i];
        rc = prompt_tokens(prompt, &texts.items[i], "input", &in->tokens, e);
        if (rc == 0 && in->tokens.len > engine_ctx(m->engine))
            rc = api_refuse(e, "input", "input %zu has %zu tokens, the context %u positions; shorten it, or serve with a larger --ctx", i,
                            in->tokens.len, engine_ctx(m->engine));
        if (rc == 0 && !(in->sum = mem_new(m->n_embd, sizeof *in->sum, &err)))
            rc = api_from_err(e, &err);
        m->n_tokens += in->tokens.len;
    }
    api_prompts_fini(&texts);
    return rc;
}

/* Begins as many inputs as there is room for. -1: not even one, or the engine refused. */
static int begin_inputs(struct embedding *m, struct err *err)
{
    while (m->n_begun < m->n_inputs) {
        struct input *in = &m->inputs[m->n_begun];
        uint64_t bytes = in->tokens.len * m->n_embd * sizeof(float);
        struct engine_params p = {
            .tokens = in->tokens.ids,
            .n_tokens = (uint32_t)in->tokens.len,
            .sample = {.top_p = 1, .typical_p = 1, .repetition_penalty = 1},
            .hidden = true,
            .ready = m->ready,
            .ready_arg = m->ready_arg,
        };
        if (m->own_bytes > 0 && m->own_bytes + bytes > EMBED_OWN_BYTES)
            return 0;
        if (atomic_fetch_add(m->hidden_bytes, bytes) + bytes > EMBED_BYTES + EMBED_OWN_BYTES) {
            atomic_fetch_sub(m->hidden_bytes, bytes);
            return m->own_bytes > 0 ? 0 : err_set(err, ERR_BUSY, "too many texts are being embedded at once; try again in a while");
        }
        in->bytes = bytes;
        m->own_bytes += bytes;
        if (!(in->request = engine_submit(m->engine, &p, err)))
            return -1;
        m->n_begun++;
    }
    return 0;
}

/* --- running ------------------------------------------------------------- */

static void close_input(struct embedding *m, struct input *in)
{
    engine_release(in->request);
    in->request = NULL;
    atomic_fetch_sub(m->hidden_bytes, in->bytes);
    m->own_bytes -= in->bytes;
    in->bytes = 0;
}

static void destroy(struct job *job)
{
    struct embedding *m = (struct embedding *)job;

    for (size_t i = 0; i < m->n_inputs; i++) {
        close_input(m, &m->inputs[i]);
        token_list_fini(&m->inputs[i].tokens);
        free(m->inputs[i].sum);
    }
    free(m->inputs);
    free(m);
}

/* To length 1. */
static void normalise(double *v, uint32_t n)
{
    double square = 0;

    for (uint32_t i = 0; i < n; i++)
        square += v[i] * v[i];
    for (uint32_t i = 0; i < n && square > 0; i++)
        v[i] /= sqrt(square);
}

static int pump_input(struct embedding *m, struct input *in)
{
    struct engine_event event;

    while (in->request && engine_next(in->request, 0, &event) == 0)
        switch (event.kind) {
        case ENGINE_HIDDEN:
            for (uint32_t i = 0; i < m->n_embd && i < event.n_hidden; i++)
                in->sum[i] += (double)event.hidden[i];
            break;
        case ENGINE_DONE:
            normalise(in->sum, m->n_embd);
            close_input(m, in);
            in->done = true;
            m->n_done++;
            break;
        case ENGINE_FAILED:
            m->err = event.err;
            return -1;
        case ENGINE_TOKEN:
        case ENGINE_PROMPT:
        case ENGINE_PAUSE:
            break;
        }
    return 0;
}

static void put_vector(struct strbuf *out, const struct embedding *m, const double *v, float *floats, char *text, size_t text_size)
{
    for (uint32_t i = 0; i < m->n_embd; i++)
        floats[i] = (float)v[i];
    if (m->base64) {
        sodium_bin2base64(text, text_size, (const unsigned char *)floats, m->n_embd * sizeof *floats, sodium_base64_VARIANT_ORIGINAL);
        strbuf_printf(out, "\"%s\"", text);
        return;
    }
    for (uint32_t i = 0; i < m->n_embd; i++)
        strbuf_printf(out, i ? ",%.9g" : "[%.9g", (double)floats[i]);
    strbuf_putc(out, ']');
}

static int finish(struct embedding *m, struct strbuf *out, struct api_error *e)
{
    size_t text_size = sodium_base64_ENCODED_LEN(m->n_embd * sizeof(float), sodium_base64_VARIANT_ORIGINAL);
    float *floats = mem_new(m->n_embd, sizeof *floats, &m->err);
    char *text = mem_new(text_size, 1, &m->err);

    if (!floats || !text) {
        free(floats);
        free(text);
        return api_from_err(e, &m->err);
    }
    strbuf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < m->n_inputs; i++) {
        strbuf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "", i);
        put_vector(out, m, m->inputs[i].sum, floats, text, text_size);
        strbuf_putc(out, '}');
    }
    strbuf_puts(out, "],\"model\":");
    strbuf_json(out, m->model, strlen(m->model));
    strbuf_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", (unsigned long long)m->n_tokens,
                  (unsigned long long)m->n_tokens);
    free(floats);
    free(text);
    return strbuf_check(out, "the embeddings in JSON", &m->err) == 0 ? 1 : api_from_err(e, &m->err);
}

static int pump(struct job *job, struct strbuf *out, struct api_error *e)
{
    struct embedding *m = (struct embedding *)job;

    for (size_t i = 0; i < m->n_begun; i++)
        if (pump_input(m, &m->inputs[i]) != 0)
            return api_from_err(e, &m->err);
    if (begin_inputs(m, &m->err) != 0)
        return api_from_err(e, &m->err);
    return m->n_done == m->n_inputs ? finish(m, out, e) : 0;
}

struct job *embedding_start(struct engine *engine, const struct prompt *prompt, const char *model, struct metrics *metrics, struct api_key *key,
                            _Atomic uint64_t *hidden_bytes, const json_t *body, void (*ready)(void *arg), void *arg, struct api_error *e)
{
    static const struct job_ops ops = {pump, destroy};
    struct err err;
    struct embedding *m = mem_new(1, sizeof *m, &err);

    if (!m) {
        api_from_err(e, &err);
        return NULL;
    }
    *m = (struct embedding){.job = {&ops, false},
                            .engine = engine,
                            .metrics = metrics,
                            .hidden_bytes = hidden_bytes,
                            .model = model,
                            .ready = ready,
                            .ready_arg = arg,
                            .n_embd = embedding_length(engine_gguf(engine))};
    if (read_options(m, body, e) != 0 || read_inputs(m, prompt, body, e) != 0)
        goto error;
    if (begin_inputs(m, &err) != 0) {
        api_from_err(e, &err);
        goto error;
    }
    metrics_add(&metrics->prompt_tokens, m->n_tokens);
    api_key_spend(key, m->n_tokens);
    return &m->job;
error:
    destroy(&m->job);
    return NULL;
}
