/* Writing a trace. Numbers that use all 64 bits (ids, salts, the seed) are strings, as JSON's readers keep 53 bits or 63. */
#include "sched/trace.h"

#include <inttypes.h>

#include "sched/state.h"

static void start(struct sched *s, uint64_t now, const char *kind, const char *name)
{
    strbuf_clear(&s->line);
    strbuf_printf(&s->line, "{\"t\":%" PRIu64 ",\"%s\":\"%s\"", now, kind, name);
}

static void finish(struct sched *s)
{
    strbuf_putc(&s->line, '}');
    if (!s->line.failed)
        s->trace(s->trace_arg, s->line.data, s->line.len);
}

static void put_costs(struct sched *s, uint32_t n_stages, const struct sched_costs *c)
{
    strbuf_puts(&s->line, ",\"stages\":[");
    for (uint32_t i = 0; i < n_stages; i++) {
        const struct sched_stage_cost *k = &c->stage[i];
        strbuf_printf(&s->line, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]",
                      i ? "," : "", k->fixed_ns, k->weight_ns, k->row_ns, k->kv_ps, k->attn_ps, k->seq_ps, k->start_ns, k->head_weight_ns,
                      k->head_start_ns, k->head_row_ns);
    }
    strbuf_puts(&s->line, "],\"hops\":[");
    for (uint32_t i = 0; i <= n_stages; i++)
        strbuf_printf(&s->line, "%s[%" PRIu64 ",%" PRIu64 "]", i ? "," : "", c->hop[i].latency_ns, c->hop[i].row_ns);
    strbuf_putc(&s->line, ']');
}

void trace_config(struct sched *s)
{
    const struct sched_config *c = &s->config;
    strbuf_clear(&s->line);
    strbuf_printf(&s->line,
                  "{\"trace\":%d,\"policy\":\"%s\",\"n_stages\":%u,\"max_seqs\":%u,\"max_waiting\":%u,\"max_rows\":%u,\"max_wanted\":%u,\"ctx\":%u,"
                  "\"block\":%u,\"n_blocks\":[%u,%u],\"window\":%u,\"max_in_flight\":%u,\"stretch_percent\":%u,\"prompt_rows\":%u,\"gather_ms\":%u,"
                  "\"growth\":%u,\"seed\":\"%" PRIu64 "\"",
                  TRACE_VERSION, c->policy, c->n_stages, c->max_seqs, c->max_waiting, c->max_rows, c->max_wanted, c->ctx, c->block, c->n_blocks[0],
                  c->n_blocks[1], c->window, c->max_in_flight, c->stretch_percent, c->prompt_rows, c->gather_ms, c->growth, c->seed);
    put_costs(s, c->n_stages, &c->costs);
    finish(s);
}

void trace_add(struct sched *s, uint64_t now, const struct sched_seq *q, int rc)
{
    start(s, now, "e", "add");
    strbuf_printf(&s->line, ",\"seq\":\"%" PRIu64 "\",\"max_new\":%u,\"flags\":%u,\"choice\":%u,\"priority\":%d,\"salt\":\"%" PRIu64 "\",\"tokens\":[",
                  q->id, q->max_new, q->flags, q->choice, q->priority, q->salt);
    for (uint32_t i = 0; i < q->n_prompt; i++)
        strbuf_printf(&s->line, "%s%d", i ? "," : "", q->tokens[i]);
    strbuf_printf(&s->line, "],\"rc\":%d", rc);
    finish(s);
}

void trace_seq(struct sched *s, uint64_t now, const char *event, uint64_t seq, int32_t token, int rc)
{
    start(s, now, "e", event);
    strbuf_printf(&s->line, ",\"seq\":\"%" PRIu64 "\",\"token\":%d,\"rc\":%d", seq, token, rc);
    finish(s);
}

void trace_done(struct sched *s, uint64_t now, uint64_t batch, int rc)
{
    start(s, now, "e", "done");
    strbuf_printf(&s->line, ",\"batch\":\"%" PRIu64 "\",\"rc\":%d", batch, rc);
    finish(s);
}

void trace_measured(struct sched *s, uint64_t now, uint64_t batch, uint32_t stage, uint64_t us)
{
    start(s, now, "e", "measured");
    strbuf_printf(&s->line, ",\"batch\":\"%" PRIu64 "\",\"stage\":%u,\"us\":\"%" PRIu64 "\"", batch, stage, us);
    finish(s);
}

void trace_costs(struct sched *s, uint64_t now, uint32_t n_stages, const struct sched_costs *costs, int rc)
{
    start(s, now, "e", "costs");
    put_costs(s, n_stages, costs);
    strbuf_printf(&s->line, ",\"rc\":%d", rc);
    finish(s);
}

void trace_reset(struct sched *s, uint64_t now, const struct sched_reset *r, int rc)
{
    start(s, now, "e", "reset");
    strbuf_printf(&s->line, ",\"n_stages\":%u,\"lost_through\":%d,\"n_blocks\":[%u,%u]", r->n_stages, r->lost_through, r->n_blocks[0], r->n_blocks[1]);
    if (r->costs && r->n_stages <= SCHED_MAX_STAGES)
        put_costs(s, r->n_stages, r->costs);
    strbuf_printf(&s->line, ",\"rc\":%d", rc);
    finish(s);
}

static void put_step(struct sched *s, const struct sched_step *p)
{
    strbuf_printf(&s->line, ",\"batch\":\"%" PRIu64 "\",\"stop\":%u,\"us\":%" PRIu64 ",\"ops\":[", p->batch, p->stop_stage, p->predicted_us);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sched_op *o = &p->ops[i];
        strbuf_puts(&s->line, i ? "," : "");
        if (o->kind == SCHED_COPY)
            strbuf_printf(&s->line, "[\"copy\",%u,%u,%u]", o->group, o->src, o->dst);
        else
            strbuf_printf(&s->line, "[\"%s\",%u,\"%" PRIu64 "\",%u]", o->kind == SCHED_OPEN ? "open" : "close", o->slot, o->seq, o->n);
    }
    strbuf_puts(&s->line, "],\"deltas\":[");
    for (uint32_t i = 0; i < p->n_deltas; i++) {
        const struct sched_delta *d = &p->deltas[i];
        strbuf_printf(&s->line, "%s[%u,%u,%u", i ? "," : "", d->slot, d->group, d->index);
        for (uint32_t k = 0; k < d->n_blocks; k++)
            strbuf_printf(&s->line, ",%u", d->blocks[k]);
        strbuf_putc(&s->line, ']');
    }
    strbuf_puts(&s->line, "],\"rows\":[");
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct sched_row *r = &p->rows[i];
        strbuf_printf(&s->line, "%s[%u,%u,%d,%u]", i ? "," : "", r->slot, r->pos, r->token, r->want);
    }
    strbuf_putc(&s->line, ']');
}

void trace_action(struct sched *s, uint64_t now, const struct sched_action *a)
{
    static const char *const names[] = {"step", "admitted", "preempted", "dropped"};
    start(s, now, "d", a ? names[a->kind] : "none");
    if (a && a->kind == SCHED_STEP)
        put_step(s, &a->step);
    else if (a)
        strbuf_printf(&s->line, ",\"seq\":\"%" PRIu64 "\",\"n\":%u", a->seq, a->n);
    finish(s);
}
