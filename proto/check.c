/* What every field of every message may hold. One function a message; the first violation is told and ends the check. What
 * needs more than the message itself (is the layer in the model, the slot open?) is its receiver's to check. */
#include "proto/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* The message and the element in it ("delta 3 of step") that a sentence is about. */
struct at {
    const char *message, *part; /* part NULL: the message itself */
    size_t index;
    enum err_kind kind;
    struct err *err;
};

static int wrong(const struct at *at, const char *field, const char *what)
{
    if (at->part)
        return err_set(at->err, at->kind, "%s: %s %zu: %s %s", at->message, at->part, at->index, field, what);
    return err_set(at->err, at->kind, "%s: %s %s", at->message, field, what);
}

static int range(const struct at *at, const char *field, uint64_t value, uint64_t min, uint64_t max)
{
    char what[96];

    if (value >= min && value <= max)
        return 0;
    snprintf(what, sizeof what, "is %" PRIu64 ", allowed are %" PRIu64 " to %" PRIu64, value, min, max);
    return wrong(at, field, what);
}

static int many(const struct at *at, const char *field, size_t n, const void *items, size_t max)
{
    char what[96];

    if (n > max) {
        snprintf(what, sizeof what, "has %zu entries, at most %zu are allowed", n, max);
        return wrong(at, field, what);
    }
    return n > 0 && !items ? wrong(at, field, "is missing") : 0;
}

static int number(const struct at *at, const char *field, double value, double min)
{
    char what[96];

    if (isfinite(value) && value >= min)
        return 0;
    snprintf(what, sizeof what, "is %g, allowed are finite numbers from %g", value, min);
    return wrong(at, field, what);
}

/* On the way out NULL is as good as "". */
static bool is_empty(const char *s)
{
    return !s || !*s;
}

/* Text for people: UTF-8, no control characters, so that it can go to a terminal or a log as it is. */
static int text(const struct at *at, const char *field, const char *s, size_t max)
{
    char what[96];
    size_t len = s ? strnlen(s, max + 1) : 0, width;

    if (len > max) {
        snprintf(what, sizeof what, "is longer than the %zu bytes allowed", max);
        return wrong(at, field, what);
    }
    for (size_t i = 0; i < len; i += width) {
        width = utf8_len(s + i, len - i);
        bool c1 = width == 2 && (unsigned char)s[i] == 0xC2 && (unsigned char)s[i + 1] < 0xA0;
        if (width == 0 || c1 || (unsigned char)s[i] < 0x20 || s[i] == 0x7F) {
            snprintf(what, sizeof what, "has the byte 0x%02X at %zu, which is no text", (unsigned char)s[i], i);
            return wrong(at, field, what);
        }
    }
    return 0;
}

static int name(const struct at *at, const char *field, const char *s, bool may_be_empty)
{
    if (text(at, field, s, MSG_MAX_NAME) != 0)
        return -1;
    return (may_be_empty && is_empty(s)) || (s && msg_name_valid(s)) ? 0 : wrong(at, field, "is no name: 1 to 64 letters, digits, dots, dashes");
}

/* A device's or type's name: "cuda:0", "Q4_K". */
static int label(const struct at *at, const char *field, const char *s)
{
    if (text(at, field, s, MSG_MAX_NAME) != 0)
        return -1;
    return is_empty(s) ? wrong(at, field, "is empty") : 0;
}

static int tokens_known(const struct at *at, const char *field, const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= MSG_MAX_VOCAB) {
            char what[96];
            snprintf(what, sizeof what, "has %d at %zu, allowed are 0 to %d", (int)tokens[i], i, MSG_MAX_VOCAB - 1);
            return wrong(at, field, what);
        }
    return 0;
}

static int values_below(const struct at *at, const char *field, const uint32_t *values, size_t n, uint32_t end)
{
    for (size_t i = 0; i < n; i++)
        if (values[i] >= end) {
            char what[96];
            snprintf(what, sizeof what, "has %" PRIu32 " at %zu, allowed are 0 to %" PRIu32, values[i], i, end - 1);
            return wrong(at, field, what);
        }
    return 0;
}

/* Log-probabilities: −∞ is one. */
static int no_nan(const struct at *at, const char *field, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(values[i]) || values[i] > 1e30f)
            return wrong(at, field, "has a value that is no log-probability");
    return 0;
}

static int layers(const struct at *at, uint32_t first, uint32_t end)
{
    return range(at, "layer_end", end, 0, MSG_MAX_LAYERS) != 0 || range(at, "layer_first", first, 0, end) != 0 ? -1 : 0;
}

static int stage_number(const struct at *at, uint32_t stage)
{
    return stage == MSG_STAGE_COORDINATOR ? 0 : range(at, "stage", stage, 0, MSG_MAX_STAGES - 1);
}

#define TRY(check) \
    do { \
        if ((check) != 0) \
            return -1; \
    } while (0)

/* --- links ------------------------------------------------------------------------------------------------------------- */
static int check_link_hello(const struct at *at, const struct msg_link_hello *m)
{
    TRY(range(at, "purpose", m->purpose, LINK_CONTROL, LINK_PURPOSES - 1));
    TRY(range(at, "protocol_min", m->protocol_min, 1, m->protocol_max));
    TRY(text(at, "version", m->version, MSG_MAX_VERSION));
    TRY(name(at, "node", m->node, false));
    TRY(stage_number(at, m->stage));
    return name(at, "relay_to", m->relay_to, true);
}

static int check_link_ok(const struct at *at, const struct msg_link_ok *m)
{
    TRY(range(at, "protocol", m->protocol, 1, UINT32_MAX));
    TRY(text(at, "version", m->version, MSG_MAX_VERSION));
    return name(at, "node", m->node, false);
}

/* --- control ----------------------------------------------------------------------------------------------------------- */
static int check_bits(const struct at *at, const struct msg_bits *bits, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        TRY(label(at, "type", bits[i].type));
        TRY(number(at, "per weight", bits[i].bits, 0));
    }
    return 0;
}

static int check_devices(struct at at, const struct msg_hello *m)
{
    at.part = "device";
    for (size_t i = 0; i < m->n_devices; i++) {
        const struct msg_device *d = &m->devices[i];
        at.index = i;
        TRY(label(&at, "name", d->name));
        TRY(number(&at, "read_bytes_per_s", d->read_bytes_per_s, 0));
        TRY(many(&at, "rates", d->n_rates, d->rates, MSG_MAX_TYPES));
        for (size_t j = 0; j < d->n_rates; j++) {
            TRY(label(&at, "rate's type", d->rates[j].type));
            TRY(number(&at, "rate", d->rates[j].per_s, 0));
            TRY(number(&at, "rate with few rows", d->rates[j].few_per_s, 0));
            TRY(number(&at, "rate with one row", d->rates[j].one_per_s, 0));
        }
        TRY(text(&at, "numerics_class", d->numerics_class, MSG_MAX_NAME));
        TRY(text(&at, "text", d->text, MSG_MAX_TEXT));
        TRY(range(&at, "threads", d->threads, 0, MSG_MAX_THREADS));
        TRY(number(&at, "copy_bytes_per_s", d->copy_bytes_per_s, 0));
        TRY(number(&at, "back_bytes_per_s", d->back_bytes_per_s, 0));
        TRY(number(&at, "attention_per_s", d->attention_per_s, 0));
        TRY(number(&at, "attention_few_per_s", d->attention_few_per_s, 0));
        TRY(number(&at, "attention_many_per_s", d->attention_many_per_s, 0));
        TRY(many(&at, "peers", d->n_peers, d->peers, MSG_MAX_DEVICES));
        for (size_t j = 0; j < d->n_peers; j++) {
            TRY(label(&at, "peer", d->peers[j].device));
            TRY(number(&at, "peer's rate", d->peers[j].bytes_per_s, 0));
        }
        TRY(many(&at, "bits", d->n_bits, d->bits, MSG_MAX_TYPES));
        TRY(check_bits(&at, d->bits, d->n_bits));
    }
    at.part = "bits";
    for (size_t i = 0; i < m->n_bits; i++) {
        at.index = i;
        TRY(check_bits(&at, &m->bits[i], 1));
    }
    at.part = "resident";
    for (size_t i = 0; i < m->n_resident; i++) {
        at.index = i;
        TRY(layers(&at, m->resident[i].layer_first, m->resident[i].layer_end));
        TRY(label(&at, "device", m->resident[i].device));
    }
    return 0;
}

static int check_hello(const struct at *at, const struct msg_hello *m)
{
    TRY(text(at, "version", m->version, MSG_MAX_VERSION));
    TRY(name(at, "node", m->node, false));
    TRY(label(at, "numerics_class", m->numerics_class));
    TRY(text(at, "isa", m->isa, MSG_MAX_NAME));
    TRY(range(at, "threads", m->threads, 0, MSG_MAX_THREADS));
    TRY(text(at, "address", m->address, MSG_MAX_ADDRESS));
    TRY(number(at, "disk_bytes_per_s", m->disk_bytes_per_s, 0));
    TRY(many(at, "devices", m->n_devices, m->devices, MSG_MAX_DEVICES));
    TRY(many(at, "bits", m->n_bits, m->bits, MSG_MAX_TYPES * MSG_MAX_DEVICES));
    TRY(many(at, "resident", m->n_resident, m->resident, MSG_MAX_DEVICES));
    TRY(many(at, "models", m->n_models, m->models, MSG_MAX_MODELS));
    return check_devices(*at, m);
}

static int check_welcome(const struct at *at, const struct msg_welcome *m)
{
    TRY(name(at, "node", m->node, false));
    return text(at, "version", m->version, MSG_MAX_VERSION);
}

static int check_neighbour(struct at at, const char *part, size_t index, const struct msg_neighbour *n)
{
    at.part = part;
    at.index = index;
    TRY(range(&at, "reach", n->reach, 0, REACH_WAYS - 1));
    TRY(name(&at, "node", n->node, n->reach == REACH_NONE));
    TRY(text(&at, "address", n->address, MSG_MAX_ADDRESS));
    if ((n->reach == REACH_DIAL || n->reach == REACH_RELAY) && is_empty(n->address))
        return wrong(&at, "address", "is empty, but it is to be dialed");
    TRY(stage_number(&at, n->stage));
    return range(&at, "act", n->act, 0, ACT_TYPES - 1);
}

static int check_shape(const struct at *at, const struct msg_configure *m)
{
    TRY(range(at, "kv", m->kv, 0, MSG_KV_TYPES - 1));
    TRY(range(at, "ctx", m->ctx, 1, MSG_MAX_CTX));
    for (size_t g = 0; g < MSG_KV_GROUPS; g++)
        TRY(range(at, "n_blocks", m->n_blocks[g], 0, MSG_MAX_BLOCKS));
    TRY(range(at, "max_rows", m->max_rows, 1, MSG_MAX_ROWS));
    TRY(range(at, "max_wanted", m->max_wanted, 1, m->max_rows));
    TRY(range(at, "max_seqs", m->max_seqs, 1, MSG_MAX_SEQS));
    TRY(range(at, "table_stride", m->table_stride, 1, MSG_MAX_TABLE));
    return range(at, "threads", m->threads, 0, MSG_MAX_THREADS);
}

static int check_configure(const struct at *at, const struct msg_configure *m)
{
    TRY(range(at, "n_stages", m->n_stages, 1, MSG_MAX_STAGES));
    TRY(range(at, "stage", m->stage, 0, m->n_stages - 1));
    TRY(label(at, "device", m->device));
    TRY(layers(at, m->layer_first, m->layer_end));
    TRY(check_shape(at, m));
    TRY(text(at, "isa", m->isa, MSG_MAX_NAME));
    TRY(check_neighbour(*at, "neighbour", 0, &m->previous));
    TRY(check_neighbour(*at, "neighbour", 1, &m->next));
    TRY(many(at, "sources", m->n_sources, m->sources, MSG_MAX_SOURCES));
    struct at part = *at;
    part.part = "source";
    for (size_t i = 0; i < m->n_sources; i++) {
        part.index = i;
        TRY(name(&part, "node", m->sources[i].node, false));
        TRY(text(&part, "address", m->sources[i].address, MSG_MAX_ADDRESS));
    }
    TRY(range(at, "window_frames", m->window_frames, 1, MSG_MAX_WINDOW));
    TRY(range(at, "heartbeat_ms", m->heartbeat_ms, 1, 3600000));
    TRY(range(at, "lost_ms", m->lost_ms, 1, 3600000));
    return 0;
}

static int check_load_progress(const struct at *at, const struct msg_load_progress *m)
{
    TRY(stage_number(at, m->stage));
    TRY(range(at, "done_bytes", m->done_bytes, 0, m->total_bytes));
    TRY(range(at, "from", m->from, 0, LOAD_FROM - 1));
    return text(at, "text", m->text, MSG_MAX_TEXT);
}

static int check_heartbeat(const struct at *at, const struct msg_heartbeat *m)
{
    struct at part = *at;

    TRY(many(at, "stages", m->n_stages, m->stages, MSG_MAX_STAGE_TIMES));
    part.part = "stages";
    for (size_t i = 0; i < m->n_stages; i++) {
        part.index = i;
        TRY(stage_number(&part, m->stages[i].stage));
    }
    return 0;
}

static int check_error(const struct at *at, const struct msg_error *m)
{
    TRY(stage_number(at, m->stage));
    TRY(range(at, "kind", m->kind, 1, ERR_KINDS - 1));
    return text(at, "text", m->text, MSG_MAX_TEXT);
}

/* --- data -------------------------------------------------------------------------------------------------------------- */
static int check_sample(const struct at *at, const struct msg_sample *s)
{
    const float numbers[] = {s->top_p, s->min_p, s->typical_p, s->repetition_penalty};

    TRY(number(at, "temperature", s->temperature, 0));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        TRY(number(at, "sampling parameter", numbers[i], 0));
    TRY(number(at, "presence_penalty", s->presence_penalty, -1e6));
    TRY(number(at, "frequency_penalty", s->frequency_penalty, -1e6));
    TRY(s->penalty_last < -1 ? wrong(at, "penalty_last", "is below -1") : 0);
    TRY(many(at, "bias", s->n_bias, s->bias, MSG_MAX_BIAS));
    for (size_t i = 0; i < s->n_bias; i++) {
        TRY(tokens_known(at, "bias' token", &s->bias[i].token, 1));
        if (isnan(s->bias[i].bias))
            return wrong(at, "bias", "is not a number");
    }
    return 0;
}

static int check_op(const struct at *at, const struct msg_op *op)
{
    TRY(range(at, "kind", op->kind, OP_SEQ_OPEN, OP_KINDS - 1));
    TRY(range(at, "slot", op->slot, 0, MSG_MAX_SEQS - 1));
    switch (op->kind) {
    case OP_SEQ_OPEN:
        TRY(many(at, "tokens", op->n_tokens, op->tokens, MSG_MAX_CTX));
        TRY(tokens_known(at, "tokens", op->tokens, op->n_tokens));
        return check_sample(at, &op->sample);
    case OP_SEQ_CUT:
        return range(at, "keep", op->keep, 0, MSG_MAX_CTX);
    case OP_BLOCK_COPY:
        TRY(range(at, "group", op->group, 0, MSG_KV_GROUPS - 1));
        TRY(range(at, "from", op->from, 0, MSG_MAX_BLOCKS - 1));
        return range(at, "to", op->to, 0, MSG_MAX_BLOCKS - 1);
    default:
        return 0;
    }
}

static int check_delta(const struct at *at, const struct msg_delta *d)
{
    TRY(range(at, "slot", d->slot, 0, MSG_MAX_SEQS - 1));
    TRY(range(at, "group", d->group, 0, MSG_KV_GROUPS - 1));
    TRY(many(at, "blocks", d->n_blocks, d->blocks, MSG_MAX_TABLE));
    TRY(range(at, "index", d->index, 0, MSG_MAX_TABLE - d->n_blocks));
    return values_below(at, "blocks", d->blocks, d->n_blocks, MSG_MAX_BLOCKS);
}

static int check_wants(struct at at, const struct msg_step *m)
{
    size_t given = 0;

    at.part = "want";
    for (size_t i = 0; i < m->n_wants; i++) {
        const struct msg_want *w = &m->wants[i];
        bool top = w->flags & WANT_TOP, some = w->flags & WANT_GIVEN;
        at.index = i;
        TRY(m->n_rows == 0 ? wrong(&at, "row", "is of a step without rows") : range(&at, "row", w->row, 0, m->n_rows - 1));
        TRY(i > 0 && w->row <= m->wants[i - 1].row ? wrong(&at, "row", "does not ascend") : 0);
        TRY(range(&at, "flags", w->flags, 1, WANT_ALL));
        TRY(range(&at, "top", w->top, top, top ? MSG_MAX_TOP : 0));
        TRY(range(&at, "given tokens", w->n_given, some, some ? MSG_MAX_GIVEN : 0));
        TRY(tokens_known(&at, "given", w->given, w->n_given));
        given += w->n_given;
    }
    at.part = NULL;
    return range(&at, "given tokens of all rows", given, 0, MSG_MAX_GIVEN_ALL);
}

static int check_step(const struct at *at, const struct msg_step *m)
{
    struct at part = *at;

    TRY(range(at, "rows", m->n_rows, 0, MSG_MAX_ROWS));
    TRY(many(at, "slot", m->n_rows, m->slot, MSG_MAX_ROWS));
    TRY(many(at, "pos", m->n_rows, m->pos, MSG_MAX_ROWS));
    TRY(many(at, "token", m->n_rows, m->token, MSG_MAX_ROWS));
    TRY(values_below(at, "slot", m->slot, m->n_rows, MSG_MAX_SEQS));
    TRY(values_below(at, "pos", m->pos, m->n_rows, MSG_MAX_CTX));
    TRY(tokens_known(at, "token", m->token, m->n_rows));
    TRY(many(at, "ops", m->n_ops, m->ops, MSG_MAX_OPS));
    TRY(many(at, "deltas", m->n_deltas, m->deltas, MSG_MAX_DELTAS));
    TRY(many(at, "wants", m->n_wants, m->wants, MSG_MAX_ROWS));
    for (part.part = "op", part.index = 0; part.index < m->n_ops; part.index++)
        TRY(check_op(&part, &m->ops[part.index]));
    for (part.part = "delta", part.index = 0; part.index < m->n_deltas; part.index++)
        TRY(check_delta(&part, &m->deltas[part.index]));
    TRY(check_wants(*at, m));
    TRY(m->stop_stage == MSG_STOP_NONE ? 0 : range(at, "stop_stage", m->stop_stage, 0, MSG_MAX_STAGES - 1));
    TRY(range(at, "act", m->act, 0, ACT_TYPES - 1));
    return range(at, "embd", m->embd, 0, MSG_MAX_EMBD);
}

static int check_result(const struct at *at, const struct msg_result *m)
{
    struct at part = *at;

    TRY(many(at, "rows", m->n_rows, m->rows, MSG_MAX_ROWS));
    part.part = "row";
    for (size_t i = 0; i < m->n_rows; i++) {
        const struct msg_result_row *r = &m->rows[i];
        bool top = r->flags & WANT_TOP, some = r->flags & WANT_GIVEN;
        part.index = i;
        TRY(range(&part, "row", r->row, i ? m->rows[i - 1].row + 1 : 0, MSG_MAX_ROWS - 1));
        TRY(range(&part, "flags", r->flags, 0, WANT_ALL));
        TRY(tokens_known(&part, "token", &r->token, 1));
        TRY(no_nan(&part, "logprob", &r->logprob, 1));
        TRY(range(&part, "top", r->n_top, 0, top ? MSG_MAX_TOP : 0));
        TRY(tokens_known(&part, "top_tokens", r->top_tokens, r->n_top));
        TRY(no_nan(&part, "top_logprobs", r->top_logprobs, r->n_top));
        TRY(range(&part, "given", r->n_given, 0, some ? MSG_MAX_GIVEN : 0));
        TRY(no_nan(&part, "given", r->given, r->n_given));
    }
    TRY(range(at, "embd", m->embd, 0, MSG_MAX_EMBD));
    return text(at, "error", m->error, MSG_MAX_TEXT);
}

static int check_credit(const struct at *at, const struct msg_credit *m)
{
    return range(at, "free_frames", m->free_frames, 0, MSG_MAX_WINDOW);
}

static int check_mask(const struct at *at, const struct msg_mask *m)
{
    TRY(range(at, "row", m->row, 0, MSG_MAX_ROWS - 1));
    TRY(many(at, "bits", m->n_bytes, m->bits, MSG_MAX_VOCAB / 8));
    return m->n_bytes == 0 ? wrong(at, "bits", "is empty") : 0;
}

/* --- bulk -------------------------------------------------------------------------------------------------------------- */
static int check_weights_get(const struct at *at, const struct msg_weights_get *m)
{
    TRY(range(at, "split", m->split, 0, MSG_MAX_SPLITS - 1));
    TRY(m->header ? 0 : range(at, "bytes", m->bytes, 1, INT64_MAX));
    return range(at, "offset", m->offset, 0, INT64_MAX - (m->header ? 0 : m->bytes));
}

static int check_weights_put(const struct at *at, const struct msg_weights_put *m)
{
    TRY(range(at, "bytes", m->bytes, 0, MSG_MAX_PIECE));
    TRY(range(at, "total_bytes", m->total_bytes, m->bytes, INT64_MAX));
    TRY(range(at, "offset", m->offset, 0, INT64_MAX - m->bytes));
    return text(at, "error", m->error, MSG_MAX_TEXT);
}

static int check_manifest_get(const struct at *at, const struct msg_manifest_get *m)
{
    TRY(range(at, "split", m->split, 0, MSG_MAX_SPLITS - 1));
    TRY(range(at, "n_chunks", m->n_chunks, 1, MSG_MAX_MANIFEST));
    TRY(range(at, "hash", m->hash, 0, MSG_HASHES - 1));
    return range(at, "first_chunk", m->first_chunk, 0, MSG_MAX_CHUNKS - m->n_chunks);
}

static int check_manifest_put(const struct at *at, const struct msg_manifest_put *m)
{
    TRY(range(at, "split", m->split, 0, MSG_MAX_SPLITS - 1));
    TRY(many(at, "hashes", m->n_hashes, m->hashes, MSG_MAX_MANIFEST));
    TRY(range(at, "hash", m->hash, 0, MSG_HASHES - 1));
    TRY(range(at, "first_chunk", m->first_chunk, 0, MSG_MAX_CHUNKS - m->n_hashes));
    TRY(text(at, "error", m->error, MSG_MAX_TEXT));
    return !is_empty(m->error) ? 0 : range(at, "chunk_bytes", m->chunk_bytes, 1, 1u << 30);
}

int msg_check(const struct msg *m, enum err_kind kind, struct err *err)
{
    struct at at = {.message = msg_type_name(m->type), .kind = kind, .err = err};

    switch (m->type) {
    case MSG_LINK_HELLO:
        return check_link_hello(&at, &m->link_hello);
    case MSG_LINK_OK:
        return check_link_ok(&at, &m->link_ok);
    case MSG_BYE:
        return text(&at, "text", m->bye.text, MSG_MAX_TEXT);
    case MSG_REGISTER:
        return name(&at, "name", m->register_.name, false);
    case MSG_REGISTERED:
        TRY(name(&at, "name", m->registered.name, false));
        return name(&at, "coordinator", m->registered.coordinator, false);
    case MSG_HELLO:
        return check_hello(&at, &m->hello);
    case MSG_WELCOME:
        return check_welcome(&at, &m->welcome);
    case MSG_CONFIGURE:
        return check_configure(&at, &m->configure);
    case MSG_LOAD_PROGRESS:
        return check_load_progress(&at, &m->load_progress);
    case MSG_READY:
        return stage_number(&at, m->ready.stage);
    case MSG_HEARTBEAT:
        return check_heartbeat(&at, &m->heartbeat);
    case MSG_STAGE_DONE:
        TRY(range(&at, "rows", m->stage_done.rows, 0, MSG_MAX_ROWS));
        return stage_number(&at, m->stage_done.stage);
    case MSG_DRAIN:
        return text(&at, "text", m->drain.text, MSG_MAX_TEXT);
    case MSG_RELEASE:
        return text(&at, "device", m->release.device, MSG_MAX_NAME);
    case MSG_ERROR:
        return check_error(&at, &m->error);
    case MSG_STEP:
        return check_step(&at, &m->step);
    case MSG_RESULT:
        return check_result(&at, &m->result);
    case MSG_CREDIT:
        return check_credit(&at, &m->credit);
    case MSG_MASK:
        return check_mask(&at, &m->mask);
    case MSG_WEIGHTS_GET:
        return check_weights_get(&at, &m->weights_get);
    case MSG_WEIGHTS_PUT:
        return check_weights_put(&at, &m->weights_put);
    case MSG_MANIFEST_GET:
        return check_manifest_get(&at, &m->manifest_get);
    case MSG_MANIFEST_PUT:
        return check_manifest_put(&at, &m->manifest_put);
    case MSG_PROBE:
        TRY(range(&at, "bytes", m->probe.bytes, 0, MSG_MAX_PROBE));
        return range(&at, "answer_bytes", m->probe.answer_bytes, 0, MSG_MAX_PROBE);
    case MSG_PROBE_ECHO:
        return range(&at, "bytes", m->probe_echo.bytes, 0, MSG_MAX_PROBE);
    default:
        return err_set(err, kind, "message of the unknown type %d", (int)m->type);
    }
}
