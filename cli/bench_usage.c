/* See bench_usage.h. */
#include "cli/bench_usage.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/strbuf.h"
#include "cli/ui.h"

enum { SETTLE_TRIES = 50 }; /* a millisecond each */

static double member(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* Whether every stage has told of every step that was sent. */
static bool read_once(struct engine *e, struct bench_usage *ret)
{
    json_t *status = e ? engine_status(e) : NULL, *stages = json_object_get(status, "stages");
    double sent = member(json_object_get(status, "schedule"), "steps");
    bool whole = true;
    *ret = (struct bench_usage){.n = 0};
    for (size_t i = 0; i < json_array_size(stages) && ret->n < BENCH_STAGES; i++) {
        struct bench_stage *s = &ret->stages[ret->n++];
        const json_t *o = json_array_get(stages, i), *measured = json_object_get(o, "measured"), *layers = json_object_get(o, "layers");
        const char *node = json_string_value(json_object_get(o, "node"));
        snprintf(s->node, sizeof s->node, "%s", node ? node : "");
        s->first = (int)json_integer_value(json_array_get(layers, 0));
        s->last = (int)json_integer_value(json_array_get(layers, 1));
        s->busy_us = member(measured, "compute_us");
        s->steps = member(measured, "batches");
        s->rows = member(measured, "rows");
        whole = whole && s->steps == sent;
    }
    json_decref(status);
    return whole;
}

/* A stage's word about a step may come a moment after its result. After a recovery stages count anew: then this waits in vain. */
void bench_usage_read(struct engine *e, struct bench_usage *ret)
{
    for (int i = 0; i < SETTLE_TRIES && !read_once(e, ret); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void bench_usage_since(struct engine *e, const struct bench_usage *before, struct bench_usage *ret)
{
    bool same;
    bench_usage_read(e, ret);
    same = ret->n == before->n;
    for (uint32_t i = 0; i < ret->n && same; i++) {
        const struct bench_stage *b = &before->stages[i];
        struct bench_stage *s = &ret->stages[i];
        same = strcmp(s->node, b->node) == 0 && s->first == b->first && s->steps >= b->steps;
        s->busy_us -= b->busy_us;
        s->steps -= b->steps;
        s->rows -= b->rows;
    }
    if (!same)
        ret->n = 0;
}

double bench_usage_saturation(const struct bench_usage *u, double seconds)
{
    double most = 0;
    for (uint32_t i = 0; i < u->n; i++)
        most = u->stages[i].busy_us > most ? u->stages[i].busy_us : most;
    return seconds > 0 ? most / 1e6 / seconds : 0;
}

void bench_usage_json(const struct bench_usage *u, double seconds)
{
    struct strbuf name;
    if (u->n == 0)
        return;
    strbuf_init(&name, 4096);
    ui_outf(", \"saturation\": %.3f, \"stages\": [", bench_usage_saturation(u, seconds));
    for (uint32_t i = 0; i < u->n; i++) {
        const struct bench_stage *s = &u->stages[i];
        strbuf_clear(&name);
        strbuf_json(&name, s->node, strlen(s->node));
        ui_outf("%s{\"node\": %s, \"layers\": [%d, %d], \"busy\": %.3f, \"steps\": %.0f, \"rows\": %.0f, \"step_ms\": %.3f}", i ? ", " : "",
                strbuf_str(&name), s->first, s->last, seconds > 0 ? s->busy_us / 1e6 / seconds : 0, s->steps, s->rows,
                s->steps > 0 ? s->busy_us / 1e3 / s->steps : 0);
    }
    ui_outf("]");
    strbuf_fini(&name);
}

void bench_usage_say(const struct bench_usage *u, double seconds)
{
    for (uint32_t i = 0; i < u->n; i++) {
        const struct bench_stage *s = &u->stages[i];
        ui_say("  stage %u (%s, layers %d-%d): computing %.1f%% of the time, %.0f steps of %.1f rows, %.1f ms each", i, s->node, s->first, s->last,
               seconds > 0 ? s->busy_us / 1e4 / seconds : 0, s->steps, s->steps > 0 ? s->rows / s->steps : 0,
               s->steps > 0 ? s->busy_us / 1e3 / s->steps : 0);
    }
}
