/* See activity.h. */
#include "coordinator/activity.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define HOP_WEIGHT 0.1 /* of a new way in the moving average */

int activity_init(struct activity *a, struct err *err)
{
    *a = (struct activity){0};
    a->now.state = "gathering";
    pthread_mutex_init(&a->lock, NULL);
    a->flights = mem_new(ACTIVITY_FLIGHTS, sizeof *a->flights, err);
    return a->flights ? 0 : -1;
}

void activity_fini(struct activity *a)
{
    free(a->flights);
    free(a->ring);
    pthread_mutex_destroy(&a->lock);
    a->flights = NULL;
    a->ring = NULL;
}

/* --- the ring ------------------------------------------------------------------------------------------------------------ */

bool activity_is_watched(const struct activity *a, int64_t now_us)
{
    int64_t looked_us = atomic_load_explicit(&a->looked_us, memory_order_relaxed);
    return looked_us && now_us - looked_us < (int64_t)ACTIVITY_LOOK_MS * 1000;
}

static void record(struct activity *a, const struct activity_record *r, int64_t now_us)
{
    if (!activity_is_watched(a, now_us))
        return;
    pthread_mutex_lock(&a->lock);
    if (a->ring)
        a->ring[a->n_records++ % ACTIVITY_RECORDS] = *r;
    pthread_mutex_unlock(&a->lock);
}

void activity_set_now(struct activity *a, const struct activity_now *now)
{
    pthread_mutex_lock(&a->lock);
    a->now = *now;
    pthread_mutex_unlock(&a->lock);
}

/* --- sums ---------------------------------------------------------------------------------------------------------------- */

static void forget_flights(struct activity *a, int64_t now_us)
{
    if (a->in_flight)
        a->busy_us += now_us - a->busy_since_us;
    a->in_flight = 0;
    memset(a->flights, 0, ACTIVITY_FLIGHTS * sizeof *a->flights);
}

void activity_begun(struct activity *a, uint64_t epoch, uint32_t n_stages, int64_t now_us)
{
    forget_flights(a, now_us);
    memset(a->stages, 0, sizeof a->stages);
    a->n_stages = n_stages;
    a->busy_us = 0;
    record(a, &(struct activity_record){.kind = ACTIVITY_BEGUN, .batch = epoch, .rows = n_stages, .at_us = now_us}, now_us);
}

void activity_broken(struct activity *a, int64_t now_us)
{
    forget_flights(a, now_us);
    record(a, &(struct activity_record){.kind = ACTIVITY_BROKEN, .at_us = now_us}, now_us);
}

int64_t activity_busy_us(const struct activity *a, int64_t now_us)
{
    return a->busy_us + (a->in_flight ? now_us - a->busy_since_us : 0);
}

static struct activity_flight *find(struct activity *a, uint64_t batch)
{
    struct activity_flight *f = &a->flights[batch % ACTIVITY_FLIGHTS];
    return batch && f->batch == batch ? f : NULL;
}

/* The way to place i (a stage, or n_stages: us), once both of its ends are known, in whichever order they were told. Clocks
 * agree to a fraction of a way; none is negative. */
static void add_way(struct activity *a, struct activity_flight *f, uint32_t i)
{
    int64_t us = f->came_us[i] - f->went_us[i];

    if (!f->came_us[i] || !f->went_us[i])
        return;
    us = us > 0 ? us : 0;
    a->stages[i].wire_us += us;
    a->stages[i].hop_us += (a->stages[i].hop_us > 0 ? HOP_WEIGHT : 1) * ((double)us - a->stages[i].hop_us);
}

void activity_sent(struct activity *a, uint64_t batch, uint32_t rows, uint32_t wanted, int64_t now_us)
{
    struct activity_flight *f = &a->flights[batch % ACTIVITY_FLIGHTS];

    memset(f, 0, sizeof *f);
    f->batch = batch;
    f->went_us[0] = now_us;
    if (a->in_flight++ == 0)
        a->busy_since_us = now_us;
    record(a, &(struct activity_record){.kind = ACTIVITY_SENT, .batch = batch, .rows = rows, .wanted = wanted, .at_us = now_us}, now_us);
}

void activity_stage_done(struct activity *a, const struct activity_record *r, int64_t now_us)
{
    struct activity_stage *s = &a->stages[r->stage];
    struct activity_flight *f = find(a, r->batch);

    s->batches++;
    s->rows += r->rows;
    s->bytes += r->bytes;
    s->compute_us += r->ended_us > r->started_us ? r->ended_us - r->started_us : 0;
    s->queued_us += r->started_us > r->at_us ? r->started_us - r->at_us : 0;
    if (f) {
        f->came_us[r->stage] = r->at_us;
        f->went_us[r->stage + 1] = r->ended_us;
        add_way(a, f, r->stage);
        add_way(a, f, r->stage + 1);
    }
    record(a, r, now_us);
}

void activity_landed(struct activity *a, uint64_t batch, int64_t now_us)
{
    struct activity_flight *f = find(a, batch);

    if (f) {
        f->came_us[a->n_stages] = now_us;
        add_way(a, f, a->n_stages);
    }
    if (a->in_flight && --a->in_flight == 0)
        a->busy_us += now_us - a->busy_since_us;
    record(a, &(struct activity_record){.kind = ACTIVITY_LANDED, .batch = batch, .at_us = now_us}, now_us);
}

/* --- telling ------------------------------------------------------------------------------------------------------------- */

/* Copies what there is behind *since, which becomes the next cursor. The lock is held for no more than that. NULL: no memory, or
 * nothing (*ret_n is 0). */
static struct activity_record *take(struct activity *a, uint64_t *since, size_t *ret_n, uint64_t *ret_missed, struct activity_now *ret_now)
{
    struct activity_record *copy = NULL;
    uint64_t from = *since;
    size_t n;

    pthread_mutex_lock(&a->lock);
    *ret_now = a->now;
    *ret_missed = 0;
    if (!a->ring)
        a->ring = mem_new(ACTIVITY_RECORDS, sizeof *a->ring, NULL);
    if (from > a->n_records) /* of another run, or none */
        from = a->n_records;
    if (a->n_records - from > ACTIVITY_RECORDS) {
        *ret_missed = a->n_records - ACTIVITY_RECORDS - from;
        from = a->n_records - ACTIVITY_RECORDS;
    }
    n = (size_t)(a->n_records - from);
    if (a->ring && n && (copy = mem_new(n, sizeof *copy, NULL)))
        for (size_t i = 0; i < n; i++)
            copy[i] = a->ring[(from + i) % ACTIVITY_RECORDS];
    *since = copy || !n ? a->n_records : from;
    pthread_mutex_unlock(&a->lock);
    *ret_n = copy ? n : 0;
    return copy;
}

static void put_record(struct strbuf *out, const struct activity_record *r, int64_t base_us)
{
    long long at = (long long)(r->at_us - base_us);

    strbuf_printf(out, "[%d,%" PRIu64, (int)r->kind, r->batch);
    if (r->kind == ACTIVITY_STAGE)
        strbuf_printf(out, ",%u,%lld,%lld,%lld,%u,%" PRIu64 "]", r->stage, at, (long long)(r->started_us - base_us),
                      (long long)(r->ended_us - base_us), r->rows, r->bytes);
    else
        strbuf_printf(out, ",%lld,%u,%u]", at, r->rows, r->wanted);
}

int activity_write(struct activity *a, uint64_t since, int64_t now_us, int64_t base_us, struct strbuf *out, struct err *err)
{
    struct activity_record *records;
    struct activity_now now;
    uint64_t missed;
    size_t n;

    /* From now on there are records. */
    bool was_watched = activity_is_watched(a, now_us);
    atomic_store_explicit(&a->looked_us, now_us, memory_order_relaxed);
    records = take(a, &since, &n, &missed, &now);
    strbuf_printf(out,
                  "{\"now_us\":%lld,\"fresh\":%s,\"state\":\"%s\",\"epoch\":%" PRIu64 ",\"events\":%" PRIu64 ",\"tokens\":%" PRIu64
                  ",\"open\":%u,\"running\":%u,\"waiting\":%u,\"in_flight\":%u,\"in_flight_wanted\":%u,\"blocks\":[%u,%u,%u],\"cursor\":%" PRIu64
                  ",\"missed\":%" PRIu64 ",\"records\":[",
                  (long long)(now_us - base_us), was_watched ? "true" : "false", now.state, now.epoch, now.events, now.tokens, now.open, now.running,
                  now.waiting, now.in_flight, now.in_flight_wanted, now.blocks_used, now.blocks_cached, now.blocks_free, since, missed);
    for (size_t i = 0; i < n; i++) {
        if (i)
            strbuf_putc(out, ',');
        put_record(out, &records[i], base_us);
    }
    strbuf_puts(out, "]}\n");
    free(records);
    return strbuf_check(out, "the pipeline's activity", err);
}
