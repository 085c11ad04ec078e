/* Replaying a trace: see trace.h. Each line is read, what it says is done to a scheduler of our own, and the line that this one
 * writes must be the same, byte for byte. So the comparison covers events' outcomes as well as decisions. */
#include "sched/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "sched/sched.h"

enum { SHOWN = 200, LINE_MAX_BYTES = 64 << 20 };

struct replay {
    struct sched *sched;
    struct strbuf said;
    uint64_t n_lines;
    struct sched_costs costs;
    bool over;
};

struct replay *replay_create(struct err *err)
{
    struct replay *r = mem_new(1, sizeof *r, err);
    if (r)
        strbuf_init(&r->said, LINE_MAX_BYTES);
    return r;
}

void replay_destroy(struct replay *r)
{
    if (!r)
        return;
    sched_destroy(r->sched);
    strbuf_fini(&r->said);
    free(r);
}

static void listen(void *arg, const char *line, size_t len)
{
    struct replay *r = arg;
    strbuf_clear(&r->said);
    strbuf_add(&r->said, line, len);
}

/* --- fields -------------------------------------------------------------------------------------------------------------- */

static int get_u32(const json_t *o, const char *name, uint32_t *ret, struct err *err)
{
    int64_t v = 0;
    if (json_get_int(o, "trace", name, JSON_REQUIRED, 0, UINT32_MAX, &v, err) != 0)
        return -1;
    *ret = (uint32_t)v;
    return 0;
}

static int get_u64(const json_t *o, const char *name, uint64_t *ret, struct err *err)
{
    const char *text = NULL;
    char *end;
    if (json_get_text(o, "trace", name, JSON_REQUIRED, &text, err) != 0)
        return -1;
    errno = 0;
    *ret = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-')
        return err_set(err, ERR_INPUT, "trace.%s is \"%.40s\", it should be a number of 64 bits", name, text);
    return 0;
}

static int get_time(const json_t *o, uint64_t *ret, struct err *err)
{
    int64_t v = 0;
    if (json_get_int(o, "trace", "t", JSON_REQUIRED, 0, INT64_MAX, &v, err) != 0)
        return -1;
    *ret = (uint64_t)v;
    return 0;
}

/* n numbers ≥ 0 of an array that holds just them. */
static int numbers(const json_t *a, uint64_t *ret, size_t n, const char *what, struct err *err)
{
    if (!json_is_array(a) || json_array_size(a) != n)
        return err_set(err, ERR_INPUT, "trace.%s should be a list of %zu numbers", what, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(a, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return err_set(err, ERR_INPUT, "trace.%s[%zu] should be a number of at least 0", what, i);
        ret[i] = (uint64_t)json_integer_value(v);
    }
    return 0;
}

static int get_costs(const json_t *o, uint32_t n_stages, struct sched_costs *ret, struct err *err)
{
    const json_t *stages = json_object_get(o, "stages"), *hops = json_object_get(o, "hops");
    memset(ret, 0, sizeof *ret);
    if (n_stages > SCHED_MAX_STAGES || json_array_size(stages) != n_stages || json_array_size(hops) != (size_t)n_stages + 1)
        return err_set(err, ERR_INPUT, "trace.stages and trace.hops should be of %u stages, of which at most %d can be", n_stages, SCHED_MAX_STAGES);
    for (uint32_t i = 0; i < n_stages; i++) {
        uint64_t v[10];
        if (numbers(json_array_get(stages, i), v, 10, "stages", err) != 0)
            return -1;
        ret->stage[i] = (struct sched_stage_cost){.fixed_ns = v[0], .weight_ns = v[1], .row_ns = v[2], .kv_ps = v[3], .attn_ps = v[4],
                                                  .seq_ps = v[5], .start_ns = v[6], .head_weight_ns = v[7], .head_start_ns = v[8],
                                                  .head_row_ns = v[9]};
    }
    for (uint32_t i = 0; i <= n_stages; i++) {
        uint64_t v[2];
        if (numbers(json_array_get(hops, i), v, 2, "hops", err) != 0)
            return -1;
        ret->hop[i] = (struct sched_hop_cost){.latency_ns = v[0], .row_ns = v[1]};
    }
    return 0;
}

static int get_blocks(const json_t *o, uint32_t ret[SCHED_GROUPS], struct err *err)
{
    uint64_t v[SCHED_GROUPS];
    if (numbers(json_object_get(o, "n_blocks"), v, SCHED_GROUPS, "n_blocks", err) != 0)
        return -1;
    for (int g = 0; g < SCHED_GROUPS; g++)
        ret[g] = v[g] < UINT32_MAX ? (uint32_t)v[g] : UINT32_MAX;
    return 0;
}

/* --- lines --------------------------------------------------------------------------------------------------------------- */

static int begin(struct replay *r, const json_t *o, struct err *err)
{
    struct sched_config c = {0};
    int64_t version = 0;
    if (json_get_int(o, "trace", "trace", JSON_REQUIRED, 1, INT32_MAX, &version, err) != 0)
        return -1;
    if (version != TRACE_VERSION)
        return err_set(err, ERR_UNSUPPORTED, "a trace of version %" PRId64 ", this program reads version %d", version, TRACE_VERSION);
    if (json_get_text(o, "trace", "policy", JSON_REQUIRED, &c.policy, err) || get_u32(o, "n_stages", &c.n_stages, err) ||
        get_u32(o, "max_seqs", &c.max_seqs, err) || get_u32(o, "max_waiting", &c.max_waiting, err) || get_u32(o, "max_rows", &c.max_rows, err) ||
        get_u32(o, "max_wanted", &c.max_wanted, err) || get_u32(o, "ctx", &c.ctx, err) || get_u32(o, "block", &c.block, err) ||
        get_blocks(o, c.n_blocks, err) || get_u32(o, "window", &c.window, err) || get_u32(o, "max_in_flight", &c.max_in_flight, err) ||
        get_u32(o, "stretch_percent", &c.stretch_percent, err) || get_u32(o, "prompt_rows", &c.prompt_rows, err) ||
        get_u32(o, "gather_ms", &c.gather_ms, err) || get_u32(o, "growth", &c.growth, err) ||
        get_u64(o, "seed", &c.seed, err) || get_costs(o, c.n_stages, &c.costs, err))
        return -1;
    if (!(r->sched = sched_create(&c, err)))
        return -1;
    sched_set_trace(r->sched, listen, r);
    return 0;
}

static int replay_add(struct replay *r, uint64_t now, const json_t *o, struct err *err)
{
    struct sched_seq spec = {0};
    json_t *tokens = NULL;
    int64_t priority = 0;
    int32_t *list;
    struct err refused;
    if (get_u64(o, "seq", &spec.id, err) || get_u32(o, "max_new", &spec.max_new, err) || get_u32(o, "flags", &spec.flags, err) ||
        get_u32(o, "choice", &spec.choice, err) || json_get_int(o, "trace", "priority", JSON_REQUIRED, INT32_MIN, INT32_MAX, &priority, err) ||
        get_u64(o, "salt", &spec.salt, err) || json_get_array(o, "trace", "tokens", JSON_REQUIRED, &tokens, err))
        return -1;
    spec.priority = (int32_t)priority;
    if (!(list = mem_new(json_array_size(tokens) + 1, sizeof *list, err)))
        return -1;
    for (size_t i = 0; i < json_array_size(tokens); i++)
        list[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    spec.tokens = list;
    spec.n_prompt = (uint32_t)json_array_size(tokens);
    sched_add(r->sched, now, &spec, &refused); /* what it returned stands in the line */
    free(list);
    return 0;
}

static int replay_reset(struct replay *r, uint64_t now, const json_t *o, struct err *err)
{
    struct sched_reset reset = {0};
    int64_t lost = 0;
    struct err refused;
    if (get_u32(o, "n_stages", &reset.n_stages, err) ||
        json_get_int(o, "trace", "lost_through", JSON_REQUIRED, INT32_MIN, INT32_MAX, &lost, err) || get_blocks(o, reset.n_blocks, err))
        return -1;
    reset.lost_through = (int32_t)lost;
    if (json_object_get(o, "stages")) {
        if (get_costs(o, reset.n_stages, &r->costs, err) != 0)
            return -1;
        reset.costs = &r->costs;
    }
    sched_reset(r->sched, now, &reset, &refused);
    return 0;
}

static int replay_event(struct replay *r, uint64_t now, const char *name, const json_t *o, struct err *err)
{
    uint64_t id = 0, us = 0;
    int64_t token = 0;
    uint32_t stage = 0;
    struct err refused;
    if (strcmp(name, "add") == 0)
        return replay_add(r, now, o, err);
    if (strcmp(name, "reset") == 0)
        return replay_reset(r, now, o, err);
    if (strcmp(name, "costs") == 0) {
        if (get_costs(o, (uint32_t)json_array_size(json_object_get(o, "stages")), &r->costs, err) != 0)
            return -1;
        sched_set_costs(r->sched, now, &r->costs, &refused);
        return 0;
    }
    if (strcmp(name, "done") == 0 || strcmp(name, "measured") == 0) {
        if (get_u64(o, "batch", &id, err) != 0)
            return -1;
        if (name[0] == 'd')
            return sched_step_done(r->sched, now, id, &refused), 0;
        if (get_u32(o, "stage", &stage, err) || get_u64(o, "us", &us, err))
            return -1;
        sched_measured(r->sched, now, id, stage, us);
        return 0;
    }
    if (get_u64(o, "seq", &id, err) || json_get_int(o, "trace", "token", JSON_REQUIRED, INT32_MIN, INT32_MAX, &token, err))
        return -1;
    if (strcmp(name, "token") == 0)
        return sched_token(r->sched, now, id, (int32_t)token, &refused), 0;
    if (strcmp(name, "finish") == 0)
        return sched_finish(r->sched, now, id, &refused), 0;
    if (strcmp(name, "cancel") == 0)
        return sched_cancel(r->sched, now, id, &refused), 0;
    return err_set(err, ERR_INPUT, "an event \"%.40s\"; known are add, token, finish, cancel, done, measured, costs and reset", name);
}

static int one_line(struct replay *r, const json_t *o, struct err *err)
{
    const char *event = NULL;
    struct sched_action action;
    uint64_t now = 0;
    if (!r->sched)
        return begin(r, o, err);
    if (get_time(o, &now, err) != 0 || json_get_text(o, "trace", "e", JSON_OPTIONAL, &event, err) != 0)
        return -1;
    if (event)
        return replay_event(r, now, event, o, err);
    if (!json_object_get(o, "d"))
        return err_set(err, ERR_INPUT, "neither an event (\"e\") nor a decision (\"d\")");
    sched_poll(r->sched, now, &action);
    return 0;
}

int replay_line(struct replay *r, const char *line, size_t len, struct err *err)
{
    json_t *o;
    int rc;
    if (r->over)
        return err_set(err, ERR_USAGE, "the replay ended with an error before");
    r->over = true;
    r->n_lines++;
    o = json_read_text("trace", line, len, err);
    if (!o)
        return err_wrap(err, "line %" PRIu64, r->n_lines);
    strbuf_clear(&r->said);
    rc = one_line(r, o, err);
    json_decref(o);
    if (rc != 0)
        return err_wrap(err, "line %" PRIu64, r->n_lines);
    if (r->said.len != len || memcmp(strbuf_str(&r->said), line, len) != 0) {
        size_t same = 0, from;
        while (same < len && same < r->said.len && line[same] == r->said.data[same])
            same++;
        from = same > 40 ? same - 40 : 0;
        return err_set(err, ERR_INTERNAL, "line %" PRIu64 " differs from byte %zu on: recorded …%.*s…, now …%.*s…", r->n_lines, same,
                       (int)(len - from < SHOWN / 2 ? len - from : SHOWN / 2), line + from,
                       (int)(r->said.len - from < SHOWN / 2 ? r->said.len - from : SHOWN / 2), strbuf_str(&r->said) + from);
    }
    r->over = false;
    return 0;
}
