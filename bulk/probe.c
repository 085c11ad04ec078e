/* See probe.h. The round trip is that of a frame without payload on an idle link. A rate is what comes through while a few pieces are
 * under way; their size is chosen by the first ones, so that slow links do not wait for minutes and fast ones are filled. */
#include "bulk/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/codec.h"
#include "proto/wire.h"

enum { FIRST_BYTES = 64 << 10, WINDOW = 4, PIECE_MS = 50, RATE_MS = 1000 };

struct prober {
    struct wire *wire;
    struct wire_link *link;
    struct codec *codec;
    uint64_t next_id, until_us;
};

/* Nobody reads what is in a probe. */
static uint8_t zeros[MSG_MAX_PROBE];

static void keep_zeros(void *payload, void *hint)
{
    (void)payload;
    (void)hint;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int ask(struct prober *p, uint32_t bytes, uint32_t answer_bytes, struct err *err)
{
    struct msg m = {.type = MSG_PROBE, .probe = {.id = ++p->next_id, .now_us = now_us(), .bytes = bytes, .answer_bytes = answer_bytes}};
    enum wire_sent sent = wire_send_msg(p->link, &m, bytes ? zeros : NULL, bytes, bytes ? keep_zeros : NULL, NULL, err);
    return sent == WIRE_SENT ? 0 : sent == WIRE_BLOCKED ? err_set(err, ERR_IO, "the link takes no more") : -1;
}

/* Until the next answer, or the link is up; *ret_asked_us: when that was asked. */
static int await(struct prober *p, enum wire_event_kind kind, uint64_t *ret_asked_us, struct err *err)
{
    struct wire_event e;
    struct msg m;
    for (;;) {
        uint64_t now = now_us();
        if (now >= p->until_us)
            return err_set(err, ERR_LIMIT, "it took more than %d s", PROBE_LIMIT_MS / 1000);
        int rc = wire_poll(p->wire, (int)((p->until_us - now) / 1000) + 1, NULL, 0, &e, err);
        if (rc < 0)
            return -1;
        if (rc > 0 && e.kind == WIRE_DOWN) {
            p->link = NULL;
            return err_set(err, ERR_IO, "%s", e.text);
        }
        if (rc > 0 && e.kind == WIRE_FRAME) {
            rc = codec_decode(p->codec, e.frame->type, e.frame->head, e.frame->head_len, e.frame->payload_len, &m, err);
            wire_frame_release(e.frame);
            if (rc != 0)
                return -1;
            if (m.type != MSG_PROBE_ECHO)
                return err_set(err, ERR_INPUT, "it answers a probe with a %s message", msg_type_name(m.type));
            *ret_asked_us = m.probe_echo.now_us;
        }
        if (e.kind == kind)
            return 0;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure_rtt(struct prober *p, double *ret_us, struct err *err)
{
    double us[PROBE_ROUNDS];
    uint64_t asked;
    for (int i = 0; i < PROBE_ROUNDS; i++) {
        if (ask(p, 0, 0, err) != 0 || await(p, WIRE_FRAME, &asked, err) != 0)
            return -1;
        us[i] = (double)(now_us() - asked);
    }
    qsort(us, PROBE_ROUNDS, sizeof *us, by_value);
    *ret_us = us[PROBE_ROUNDS / 2];
    return 0;
}

static int measure_rate(struct prober *p, bool up, unsigned ms, double rtt_us, double *ret_bps, struct err *err)
{
    uint32_t bytes = FIRST_BYTES;
    uint64_t asked, from, done = 0;
    double us;

    for (int i = 0; i < 2; i++) { /* the first one wakes the link up */
        if (ask(p, up ? bytes : 0, up ? 0 : bytes, err) != 0 || await(p, WIRE_FRAME, &asked, err) != 0)
            return -1;
        us = (double)(now_us() - asked) - rtt_us;
        double fits = us > 0 ? bytes / us * PIECE_MS * 1000 : MSG_MAX_PROBE;
        bytes = fits > MSG_MAX_PROBE ? MSG_MAX_PROBE : fits < FIRST_BYTES ? FIRST_BYTES : (uint32_t)fits;
    }
    for (int i = 0; i < WINDOW; i++)
        if (ask(p, up ? bytes : 0, up ? 0 : bytes, err) != 0)
            return -1;
    /* Counted from the first answer to the last, while all the window is under way. */
    if (await(p, WIRE_FRAME, &asked, err) != 0)
        return -1;
    from = now_us();
    do {
        if (ask(p, up ? bytes : 0, up ? 0 : bytes, err) != 0 || await(p, WIRE_FRAME, &asked, err) != 0)
            return -1;
        done += bytes;
        us = (double)(now_us() - from);
    } while (us < ms * 1e3);
    *ret_bps = (double)done / us * 1e6;
    for (int i = 0; i < WINDOW - 1; i++)
        if (await(p, WIRE_FRAME, &asked, err) != 0)
            return -1;
    return 0;
}

static int measure(struct prober *p, const struct probe_options *o, struct probe_result *ret, struct err *err)
{
    struct wire_dial dial = {.endpoint = o->endpoint, .purpose = LINK_BULK, .key = o->key};
    unsigned ms = o->rate_ms ? o->rate_ms : RATE_MS;
    uint64_t ignored;

    if (!(p->link = wire_dial(p->wire, &dial, err)) || await(p, WIRE_UP, &ignored, err) != 0)
        return -1;
    snprintf(ret->peer, sizeof ret->peer, "%s", wire_link_node(p->link));
    if (measure_rtt(p, &ret->rtt_us, err) != 0 || measure_rate(p, true, ms, ret->rtt_us, &ret->up_bps, err) != 0)
        return -1;
    return measure_rate(p, false, ms, ret->rtt_us, &ret->down_bps, err);
}

int probe_link(const struct probe_options *o, struct probe_result *ret, struct err *err)
{
    struct prober p = {.until_us = now_us() + (uint64_t)PROBE_LIMIT_MS * 1000};
    struct probe_result result = {{0}, {0}, 0, 0, 0};
    struct wire_net *net = wire_net_create(&(struct wire_net_options){.keys = o->keys}, err);
    int rc = -1;

    if (net && (p.codec = codec_create(CODEC_SMALL_BYTES, err)) && (p.wire = wire_create(net, err))) {
        snprintf(result.self, sizeof result.self, "%s", wire_net_node(net));
        rc = measure(&p, o, &result, err);
        if (rc != 0)
            err_wrap(err, "%s", o->endpoint);
        else
            *ret = result;
        wire_link_close(p.link, "the link is measured");
    }
    wire_destroy(p.wire);
    wire_net_destroy(net);
    codec_destroy(p.codec);
    return rc;
}
