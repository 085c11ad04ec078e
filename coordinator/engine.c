/* See engine.h. The thread's loop: one event of the wire, all mail, what is due by the clock, then whatever the schedule wants
 * sent. Mail is how other threads speak to it: a bounded queue of small objects, each freed by the loop or, where the sender
 * waits for an answer, by the sender. */
#include "coordinator/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/cluster.h"

enum {
    MAIL_MAX = 2 * ENGINE_MAX_REQUESTS,
    TICK_MS = 50,
    EVENTS_MAX = 64,                              /* of the wire that are taken together */
    STALL_US = (LOST_MS - 2 * HEARTBEAT_MS) * 500 /* we were kept from running: half of what a silence may last beyond two beats */
};

enum mail_kind { MAIL_SUBMIT, MAIL_CANCEL, MAIL_COMMAND, MAIL_STATUS, MAIL_PREDICT };

struct mail {
    enum mail_kind kind;
    struct engine_request *request;
    /* Of those that are waited for: */
    bool done;
    enum engine_command command;
    const char *node;
    unsigned seconds;
    json_t *status;
    uint32_t n, context; /* of a prediction: sequences, what each holds; then batches, tokens a second */
    double tokens_per_s;
    int rc;
    struct err err;
};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- what others are told ------------------------------------------------------------------------------------------------ */

void engine_event_text(struct engine *e, enum engine_note_kind kind, const char *node, const char *fmt, ...)
{
    va_list args;
    size_t at = e->n_events++ % CLUSTER_MAX_EVENTS;

    va_start(args, fmt);
    vsnprintf(e->events[at].text, sizeof e->events[at].text, fmt, args);
    va_end(args);
    err_clean(e->events[at].text, false); /* it may quote a node */
    e->events[at].at_us = e->now_us;
    e->events[at].kind = kind;
    if (e->options.note)
        e->options.note(e->options.note_arg, &(struct engine_note){.kind = kind, .node = node, .text = e->events[at].text});
}

void engine_set_ready(struct engine *e, bool ready)
{
    pthread_mutex_lock(&e->lock);
    e->is_ready = ready;
    if (ready)
        e->is_failed = false;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void engine_set_failed(struct engine *e, const struct err *err)
{
    for (size_t i = 0; i < ENGINE_MAX_REQUESTS; i++)
        if (e->requests[i])
            engine_fail(e, e->requests[i], err);
    pthread_mutex_lock(&e->lock);
    e->is_failed = true;
    e->failed = *err;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void engine_pause_all(struct engine *e, const char *text)
{
    for (size_t i = 0; i < ENGINE_MAX_REQUESTS; i++)
        if (e->requests[i])
            request_add_pause(e->requests[i], text);
}

/* --- requests ------------------------------------------------------------------------------------------------------------ */

struct engine_request *engine_find(struct engine *e, uint64_t id)
{
    struct engine_request *r = e->requests[id % ENGINE_MAX_REQUESTS];
    return r && r->id == id ? r : NULL;
}

static void forget(struct engine *e, struct engine_request *r)
{
    e->requests[r->id % ENGINE_MAX_REQUESTS] = NULL;
    pthread_mutex_lock(&e->lock);
    e->n_requests--;
    pthread_mutex_unlock(&e->lock);
    masks_drop(e, r);
}

void engine_finish(struct engine *e, struct engine_request *r, enum engine_reason reason)
{
    if (e->sched)
        sched_finish(e->sched, (uint64_t)e->now_us, r->id, NULL);
    e->n_served++;
    request_end(r, reason);
    forget(e, r);
}

void engine_fail(struct engine *e, struct engine_request *r, const struct err *err)
{
    if (e->sched)
        sched_cancel(e->sched, (uint64_t)e->now_us, r->id, NULL);
    e->n_failed++;
    request_fail(r, err);
    forget(e, r);
}

/* Hands a request to the schedule. Before the first epoch there is none: it waits in the table. */
static int schedule(struct engine *e, struct engine_request *r, struct err *err)
{
    bool every_row = request_wants_prompt(r) || r->params.hidden || r->params.n_new == 0;
    struct sched_seq seq = {
        .id = r->id,
        .tokens = r->tokens,
        .n_prompt = r->params.n_tokens,
        .max_new = r->params.n_new,
        .flags = every_row ? SCHED_WANT_PROMPT : 0,
        .choice = r->params.choice,
    };
    return sched_add(e->sched, (uint64_t)e->now_us, &seq, err);
}

static void take_request(struct engine *e, struct engine_request *r)
{
    struct err err;

    while (e->requests[e->next_id % ENGINE_MAX_REQUESTS]) /* there is a free one: the submitter counted */
        e->next_id++;
    r->id = e->next_id++;
    r->added_us = e->now_us;
    e->requests[r->id % ENGINE_MAX_REQUESTS] = r;
    masks_ask(e, r, -1);
    if (e->pipe.phase == PIPE_FAILED)
        engine_fail(e, r, &e->pipe.err);
    else if (e->sched && schedule(e, r, &err) != 0)
        engine_fail(e, r, &err);
}

static void take_cancel(struct engine *e, struct engine_request *r)
{
    if (!r->finished && engine_find(e, r->id) == r) {
        if (e->sched)
            sched_cancel(e->sched, (uint64_t)e->now_us, r->id, NULL);
        request_end(r, ENGINE_CANCELLED);
        forget(e, r);
    }
    masks_drop(e, r); /* the mail's hold */
}

/* Requests that came before the schedule did. */
void engine_schedule_all(struct engine *e)
{
    struct err err;
    for (size_t i = 0; i < ENGINE_MAX_REQUESTS; i++)
        if (e->requests[i] && schedule(e, e->requests[i], &err) != 0)
            engine_fail(e, e->requests[i], &err);
}

/* --- mail ---------------------------------------------------------------------------------------------------------------- */

static void answer(struct engine *e, struct mail *m)
{
    pthread_mutex_lock(&e->lock);
    m->done = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void take_command(struct engine *e, struct mail *m)
{
    if (m->command == ENGINE_DRAIN)
        m->rc = nodes_drain(e, m->node, m->seconds, &m->err);
    else
        pipeline_replan(e, "it was asked for");
}

static void predict(const struct engine *e, struct mail *m)
{
    double n = m->n, round_us;
    if (e->pipe.plan.n_stages == 0 || m->n == 0)
        return;
    m->n = cost_best_m(&e->pipe.plan.costs, n, m->context, &round_us);
    m->tokens_per_s = n / round_us * 1e6;
}

static void take_mail(struct engine *e)
{
    void *item;
    while (queue_pop(e->mail, &item, 0) == 0) {
        struct mail *m = item;
        switch (m->kind) {
        case MAIL_SUBMIT:
            take_request(e, m->request);
            free(m);
            break;
        case MAIL_CANCEL:
            take_cancel(e, m->request);
            free(m);
            break;
        case MAIL_COMMAND:
            take_command(e, m);
            answer(e, m);
            break;
        case MAIL_STATUS:
            m->status = status_json(e);
            answer(e, m);
            break;
        case MAIL_PREDICT:
            predict(e, m);
            answer(e, m);
            break;
        }
    }
}

/* Sends mail that is waited for, and waits. */
static int ask(struct engine *e, struct mail *m, struct err *err)
{
    if (queue_push(e->mail, m, 0) != 0)
        return err_set(err, ERR_BUSY, "the engine has more to do than it can note down; try again");
    wire_wake(e->wire);
    pthread_mutex_lock(&e->lock);
    while (!m->done)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    if (m->rc != 0 && err)
        *err = m->err;
    return m->rc;
}

/* --- the loop ------------------------------------------------------------------------------------------------------------ */

static void take_event(struct engine *e, struct wire_event *event)
{
    switch (event->kind) {
    case WIRE_REFUSED:
        engine_event_text(e, ENGINE_NOTE_TROUBLE, NULL, "refused %s: %s", event->address, event->text);
        return;
    case WIRE_REGISTERED:
        engine_event_text(e, ENGINE_NOTE_INFO, event->name, "node %s joined by invitation from %s", event->name, event->address);
        return;
    case WIRE_NONE:
        return;
    default:
        break;
    }
    if (wire_link_purpose(event->link) == LINK_DATA)
        pipeline_link_event(e, event);
    else if (wire_link_purpose(event->link) == LINK_CONTROL)
        nodes_event(e, event);
    else
        weights_event(e, event);
}

static void *loop(void *arg)
{
    struct engine *e = arg;
    struct wire_event event;
    struct err err;
    int64_t tick_us = 0;

    for (;;) {
        pthread_mutex_lock(&e->lock);
        bool stop = e->stopping;
        pthread_mutex_unlock(&e->lock);
        if (stop)
            return NULL;
        int rc = wire_poll(e->wire, TICK_MS, NULL, 0, &event, &err);
        int64_t before_us = e->now_us;
        e->now_us = now();
        if (e->now_us - before_us > STALL_US)
            nodes_forgive(e, e->now_us - before_us);
        /* Events that are there already are taken together: the schedule then sees all of them. */
        bool more = rc > 0;
        for (int n = 0; rc > 0; n++) {
            take_event(e, &event);
            rc = n < EVENTS_MAX ? wire_poll(e->wire, 0, NULL, 0, &event, &err) : 0;
            more = n >= EVENTS_MAX;
        }
        if (rc < 0) {
            engine_set_failed(e, &err);
            return NULL;
        }
        take_mail(e);
        if (e->bulk)
            bulk_pump(e->bulk);
        if (e->now_us >= tick_us && !(more && e->now_us < tick_us + STALL_US)) { /* heartbeats may be among what waits */
            nodes_tick(e);
            pipeline_tick(e);
            if (activity_is_watched(&e->activity, e->now_us))
                status_show(e);
            tick_us = e->now_us + TICK_MS * 1000;
        }
        if (e->pipe.phase == PIPE_RUNNING)
            steps_pump(e);
        if (e->pipe.phase == PIPE_RUNNING)
            masks_pump(e);
    }
}

/* --- from outside -------------------------------------------------------------------------------------------------------- */

static int check_options(struct engine *e, struct err *err)
{
    struct engine_options *o = &e->options;
    if (!o->topology && o->workers == 0)
        o->workers = 1;
    if (o->workers > ENGINE_MAX_WORKERS)
        return err_set(err, ERR_USAGE, "%u workers asked for, at most %d allowed", o->workers, ENGINE_MAX_WORKERS);
    if (!o->topology && o->workers > e->params.n_layers)
        return err_set(err, ERR_USAGE, "%u workers asked for, but the model has only %u layers", o->workers, e->params.n_layers);
    return 0;
}

static int open_model(struct engine *e, struct err *err)
{
    if (!(e->gguf = gguf_open(e->options.model, true, err)))
        return -1;
    if (model_params_read(e->gguf, &e->params, err) != 0)
        return err_wrap(err, "%s", e->options.model);
    gguf_model_id(e->gguf, e->model_id);
    return 0;
}

static int open_wire(struct engine *e, struct err *err)
{
    struct wire_net_options net = {.node = "coordinator", .registrations = true};
    if (e->options.topology || e->options.join_listen) {
        if (!(e->keys = keys_open(e->options.keys_dir, NULL, err)))
            return -1;
        net.keys = e->keys;
        net.node = NULL;
    }
    return (e->net = wire_net_create(&net, err)) && (e->wire = wire_create(e->net, err)) ? 0 : -1;
}

struct engine *engine_create(const struct engine_options *options, struct err *err)
{
    struct engine *e = mem_new(1, sizeof *e, err);
    pthread_condattr_t attr;
    int rc;

    if (!e)
        return NULL;
    e->options = *options;
    e->now_us = e->started_us = e->pipe.since_us = now();
    e->next_id = 1;
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (activity_init(&e->activity, err) != 0 || open_model(e, err) != 0 || check_options(e, err) != 0 || planning_sizes(e, err) != 0 || !(e->mail = queue_create(MAIL_MAX, err)) ||
        !(e->codec = codec_create(CODEC_SMALL_BYTES, err)) || !(e->data_codec = codec_create(CODEC_DATA_BYTES, err)) ||
        open_wire(e, err) != 0 || weights_init(e, err) != 0 || steps_init(e, err) != 0 || masks_init(e, err) != 0 ||
        nodes_init(e, err) != 0)
        goto error;
    if ((rc = pthread_create(&e->thread, NULL, loop, e)) != 0) {
        err_errno(err, rc, "starting the engine's thread");
        goto error;
    }
    e->thread_started = true;
    return e;
error:
    engine_destroy(e);
    return NULL;
}

void engine_destroy(struct engine *e)
{
    void *item;
    struct err gone;

    if (!e)
        return;
    if (e->thread_started) {
        pthread_mutex_lock(&e->lock);
        e->stopping = true;
        pthread_mutex_unlock(&e->lock);
        wire_wake(e->wire);
        pthread_join(e->thread, NULL);
        take_mail(e);
    }
    err_set(&gone, ERR_CANCELLED, "the engine was stopped");
    for (size_t i = 0; i < ENGINE_MAX_REQUESTS; i++)
        if (e->requests[i])
            engine_fail(e, e->requests[i], &gone);
    masks_fini(e);
    relay_close(e, "the coordinator was stopped");
    nodes_fini(e);
    children_destroy(e->children);
    steps_fini(e);
    bulk_destroy(e->bulk); /* before the wire that it wakes */
    wire_destroy(e->wire);
    wire_net_destroy(e->net);
    keys_close(e->keys);
    codec_destroy(e->codec);
    codec_destroy(e->data_codec);
    while (e->mail && queue_pop(e->mail, &item, 0) == 0)
        free(item);
    queue_destroy(e->mail);
    gguf_close(e->gguf);
    activity_fini(&e->activity);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

int engine_wait_ready(struct engine *e, int timeout_ms, struct err *err)
{
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&e->lock);
    while (!e->is_ready && !e->is_failed && rc != ETIMEDOUT)
        rc = timeout_ms < 0 ? pthread_cond_wait(&e->changed, &e->lock) : pthread_cond_timedwait(&e->changed, &e->lock, &until);
    rc = e->is_ready ? 0 : e->is_failed ? -1 : 1;
    if (rc < 0 && err)
        *err = e->failed;
    pthread_mutex_unlock(&e->lock);
    return rc;
}

const struct gguf *engine_gguf(const struct engine *e)
{
    return e->gguf;
}

uint32_t engine_ctx(const struct engine *e)
{
    return e->ctx;
}

uint32_t engine_parallel(const struct engine *e)
{
    return e->parallel;
}

uint32_t engine_n_vocab(const struct engine *e)
{
    return e->params.n_vocab;
}

json_t *engine_status(struct engine *e)
{
    struct mail m = {.kind = MAIL_STATUS};
    return ask(e, &m, NULL) == 0 ? m.status : NULL;
}

double engine_predict(struct engine *e, uint32_t n, uint32_t context, uint32_t *ret_m)
{
    struct mail m = {.kind = MAIL_PREDICT, .n = n, .context = context};
    bool asked = ask(e, &m, NULL) == 0;
    if (ret_m)
        *ret_m = m.n;
    return asked ? m.tokens_per_s : 0;
}

int engine_activity(struct engine *e, uint64_t since, struct strbuf *out, struct err *err)
{
    return activity_write(&e->activity, since, now(), e->started_us, out, err);
}

int engine_command(struct engine *e, enum engine_command command, const char *node, unsigned seconds, struct err *err)
{
    struct mail m = {.kind = MAIL_COMMAND, .command = command, .node = node, .seconds = seconds};
    return ask(e, &m, err);
}

struct engine_request *engine_submit(struct engine *e, const struct engine_params *params, struct err *err)
{
    struct engine_request *r;
    struct mail *m;
    bool room;

    /* The last token is chosen, but not computed: it may stand one beyond the context. */
    if ((uint64_t)params->n_tokens + params->n_new - (params->n_new > 0) > e->ctx) {
        err_set(err, ERR_INPUT,
                "%u prompt tokens and %u new ones do not fit the context of %u; shorten the prompt, ask for fewer, or raise --ctx",
                params->n_tokens, params->n_new, e->ctx);
        return NULL;
    }
    pthread_mutex_lock(&e->lock);
    if ((room = e->n_requests < ENGINE_MAX_REQUESTS))
        e->n_requests++;
    pthread_mutex_unlock(&e->lock);
    if (!room) {
        err_set(err, ERR_BUSY, "%d requests wait already; try again in a while", ENGINE_MAX_REQUESTS);
        return NULL;
    }
    if ((r = request_create(e, params, e->params.n_vocab, e->params.embd, err)) && (m = mem_new(1, sizeof *m, err))) {
        m->kind = MAIL_SUBMIT;
        m->request = r;
        r->holders++;
        if (queue_push(e->mail, m, 0) == 0) {
            wire_wake(e->wire);
            return r;
        }
        err_set(err, ERR_BUSY, "the engine has more to do than it can note down; try again");
        r->holders--;
        free(m);
    }
    pthread_mutex_lock(&e->lock);
    e->n_requests--;
    pthread_mutex_unlock(&e->lock);
    request_drop(r);
    return NULL;
}

void engine_cancel(struct engine_request *r)
{
    struct engine *e = r->engine;
    struct mail *m;
    bool first;

    pthread_mutex_lock(&r->lock);
    first = !r->cancel_wanted && !r->ended;
    r->cancel_wanted = true;
    if (first)
        r->holders++;
    pthread_mutex_unlock(&r->lock);
    if (!first)
        return;
    if ((m = mem_new(1, sizeof *m, NULL))) {
        m->kind = MAIL_CANCEL;
        m->request = r;
        if (queue_push(e->mail, m, -1) == 0) {
            wire_wake(e->wire);
            return;
        }
        free(m);
    }
    request_drop(r);
}

void engine_release(struct engine_request *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->params.ready = NULL;
    pthread_mutex_unlock(&r->lock);
    engine_cancel(r);
    request_drop(r);
}
