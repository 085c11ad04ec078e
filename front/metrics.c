/* See metrics.h. */
#include "front/metrics.h"

#include <string.h>

/* Seconds, three to a decade: from a token of a small model to a long answer of a large one. */
static const double bounds[METRICS_BUCKETS] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,  1,
                                               2,     5,     10,    20,   50,   100,  200, 500, 1000, 2000};

void metrics_observe(struct histogram *h, int64_t us)
{
    size_t i = 0;

    us = us < 0 ? 0 : us;
    while (i < METRICS_BUCKETS && (double)us > bounds[i] * 1e6)
        i++;
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, (uint64_t)us, memory_order_relaxed);
}

void metrics_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static unsigned long long get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void head(struct strbuf *out, const char *name, const char *type, const char *help)
{
    strbuf_printf(out, "# HELP stagecoach_%s %s\n# TYPE stagecoach_%s %s\n", name, help, name, type);
}

static void put_histogram(struct strbuf *out, const char *name, const char *help, const struct histogram *h)
{
    unsigned long long n = 0;

    head(out, name, "histogram", help);
    for (size_t i = 0; i < METRICS_BUCKETS; i++) {
        n += get(&h->buckets[i]);
        strbuf_printf(out, "stagecoach_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], n);
    }
    n += get(&h->buckets[METRICS_BUCKETS]);
    strbuf_printf(out, "stagecoach_%s_bucket{le=\"+Inf\"} %llu\n", name, n);
    strbuf_printf(out, "stagecoach_%s_sum %.6f\nstagecoach_%s_count %llu\n", name, (double)get(&h->sum_us) / 1e6, name, n);
}

static void put_value(struct strbuf *out, const char *name, const char *type, const char *help, double value)
{
    head(out, name, type, help);
    strbuf_printf(out, "stagecoach_%s %.17g\n", name, value);
}

static double number(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return json_is_array(v) ? json_number_value(json_array_get(v, 0)) : json_number_value(v);
}

/* --- what the engine knows ----------------------------------------------- */

static const struct {
    const char *object, *field, *name, *type, *help;
} engine_values[] = {
    {"requests", "open", "requests_open", "gauge", "Answers that wait or run."},
    {"requests", "served", "answers_total", "counter", "Answers that came to their end."},
    {"requests", "failed", "answers_failed_total", "counter", "Answers that failed or were cancelled."},
    {"schedule", "waiting", "sequences_waiting", "gauge", "Sequences in the queue."},
    {"schedule", "running", "sequences_running", "gauge", "Sequences that have begun."},
    {"schedule", "in_flight", "batches_in_flight", "gauge", "Batches under way through the pipeline."},
    {"schedule", "blocks_used", "kv_blocks_used", "gauge", "Blocks of KV cache in use."},
    {"schedule", "blocks_cached", "kv_blocks_cached", "gauge", "Blocks of KV cache kept for prompts that begin alike."},
    {"schedule", "blocks_free", "kv_blocks_free", "gauge", "Blocks of KV cache that hold nothing."},
    {"schedule", "steps", "steps_total", "counter", "Batches computed."},
    {"schedule", "rows", "rows_total", "counter", "Rows computed."},
    {"schedule", "rebuilt_rows", "rebuilt_rows_total", "counter", "Rows computed again after a fault or preemption."},
    {"schedule", "prefix_hits", "prefix_hit_tokens_total", "counter", "Prompt tokens found in the cache."},
    {"schedule", "preempted", "preemptions_total", "counter", "Sequences put back for want of blocks."},
    {NULL, "epoch", "epoch", "gauge", "Configurations of the pipeline so far."},
};

/* A label's value: names of nodes are ours or the topology's, but nothing is taken on trust. */
static void put_label(struct strbuf *out, const char *s)
{
    for (; s && *s; s++)
        if (*s == '"' || *s == '\\' || *s == '\n')
            strbuf_puts(out, "_");
        else
            strbuf_putc(out, *s);
}

static void put_stage_values(struct strbuf *out, const json_t *stages, const char *part, const char *field, double unit, const char *name,
                             const char *type, const char *help)
{
    size_t i;
    const json_t *stage;

    head(out, name, type, help);
    json_array_foreach(stages, i, stage)
    {
        strbuf_printf(out, "stagecoach_%s{stage=\"%zu\",node=\"", name, i);
        put_label(out, json_string_value(json_object_get(stage, "node")));
        strbuf_printf(out, "\"} %.17g\n", number(json_object_get(stage, part), field) * unit);
    }
}

static void put_engine(struct strbuf *out, const json_t *status)
{
    const json_t *stages = json_object_get(status, "stages"), *node;
    size_t k;

    for (size_t i = 0; i < sizeof engine_values / sizeof *engine_values; i++) {
        const json_t *o = engine_values[i].object ? json_object_get(status, engine_values[i].object) : status;
        if (json_is_object(o))
            put_value(out, engine_values[i].name, engine_values[i].type, engine_values[i].help, number(o, engine_values[i].field));
    }
    put_stage_values(out, stages, "measured", "compute_us", 1e-6, "stage_compute_seconds_total", "counter", "A stage's time computing.");
    put_stage_values(out, stages, "measured", "wait_us", 1e-6, "stage_wait_seconds_total", "counter", "Batches' time waiting for a stage.");
    put_stage_values(out, stages, "measured", "wire_us", 1e-6, "stage_wire_seconds_total", "counter", "Batches' time on the way to a stage.");
    put_stage_values(out, stages, "measured", "bubble_us", 1e-6, "stage_bubble_seconds_total", "counter", "A stage's time without work while batches were under way.");
    put_stage_values(out, stages, "measured", "sent_bytes", 1, "stage_sent_bytes_total", "counter", "Bytes that a stage sent on.");
    put_stage_values(out, stages, "measured", "batches", 1, "stage_batches_total", "counter", "Batches a stage computed.");
    put_stage_values(out, stages, "bytes", "weights", 1, "stage_weight_bytes", "gauge", "A stage's weights.");
    put_stage_values(out, stages, "bytes", "kv", 1, "stage_kv_bytes", "gauge", "A stage's KV cache.");
    head(out, "node_restarts_total", "counter", "How often a node's process was started again.");
    json_array_foreach(json_object_get(status, "nodes"), k, node)
    {
        strbuf_puts(out, "stagecoach_node_restarts_total{node=\"");
        put_label(out, json_string_value(json_object_get(node, "name")));
        strbuf_printf(out, "\"} %.17g\n", number(node, "restarts"));
    }
}

void metrics_write(const struct metrics *m, const json_t *status, struct strbuf *out)
{
    head(out, "http_requests_total", "counter", "HTTP requests by status.");
    for (int i = 100; i < METRICS_STATUSES; i++)
        if (get(&m->replies[i]))
            strbuf_printf(out, "stagecoach_http_requests_total{status=\"%d\"} %llu\n", i, get(&m->replies[i]));
    put_value(out, "http_clients_gone_total", "counter", "Requests whose client went away.", (double)get(&m->clients_gone));
    put_value(out, "prompt_tokens_total", "counter", "Tokens of prompts.", (double)get(&m->prompt_tokens));
    put_value(out, "answer_tokens_total", "counter", "Tokens of answers.", (double)get(&m->answer_tokens));
    put_histogram(out, "time_to_first_token_seconds", "From a request to its first token.", &m->first_token);
    put_histogram(out, "time_between_tokens_seconds", "From a token to the next.", &m->between_tokens);
    put_histogram(out, "request_seconds", "From a request to the end of its last answer.", &m->whole_request);
    if (status)
        put_engine(out, status);
}
