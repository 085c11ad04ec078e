/* What a hop costs: a frame of rows from one thread to another over loopback tcp with CURVE, by the wire (a step encoded,
 * sent, received, decoded) and by bare libzmq (one blocking DEALER each side, one part), in turn in one run. Half of a round
 * trip; best and median of the rounds.
 *
 *     tests/proto/bench_hop [ROUNDS [TRIPS]]          default 7 rounds of 2000 round trips
 *     tests/proto/bench_hop rate                      bytes a second one way by bare libzmq with CURVE, in parts of 1 MiB */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#include "proto/codec.h"
#include "tests/proto/sides.h"

enum { ROUNDS = 7, TRIPS = 2000, WARM_UP = 200, ROUNDS_MAX = 100, RATE_PARTS = 1024, RATE_BYTES = 1 << 20, RATE_ROUNDS = 3, RATE_HWM = 16, RAW_HWM = 1000 };

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "bench_hop: %s\n", what);
    exit(1);
}

/* --- bare libzmq ----------------------------------------------------------------------------------------------------------- */
struct raw {
    void *ctx_a, *ctx_b, *a, *b;
    size_t bytes;
};

static void raw_open(struct raw *r, size_t bytes, int hwm)
{
    char server_public[41], server_secret[41], client_public[41], client_secret[41], endpoint[64];
    size_t len = sizeof endpoint;
    int one = 1, zero = 0;

    r->bytes = bytes;
    r->ctx_a = zmq_ctx_new();
    r->ctx_b = zmq_ctx_new();
    r->a = zmq_socket(r->ctx_a, ZMQ_DEALER);
    r->b = zmq_socket(r->ctx_b, ZMQ_DEALER);
    zmq_curve_keypair(server_public, server_secret);
    zmq_curve_keypair(client_public, client_secret);
    zmq_setsockopt(r->b, ZMQ_CURVE_SERVER, &one, sizeof one);
    zmq_setsockopt(r->b, ZMQ_CURVE_SECRETKEY, server_secret, 40);
    zmq_setsockopt(r->a, ZMQ_CURVE_SERVERKEY, server_public, 40);
    zmq_setsockopt(r->a, ZMQ_CURVE_PUBLICKEY, client_public, 40);
    zmq_setsockopt(r->a, ZMQ_CURVE_SECRETKEY, client_secret, 40);
    zmq_setsockopt(r->a, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(r->b, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(r->a, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(r->b, ZMQ_LINGER, &zero, sizeof zero);
    if (zmq_bind(r->b, "tcp://127.0.0.1:*") != 0 || zmq_getsockopt(r->b, ZMQ_LAST_ENDPOINT, endpoint, &len) != 0 || zmq_connect(r->a, endpoint) != 0)
        fail(zmq_strerror(zmq_errno()));
}

static void raw_close(struct raw *r)
{
    zmq_close(r->a);
    zmq_close(r->b);
    zmq_ctx_term(r->ctx_a);
    zmq_ctx_term(r->ctx_b);
}

static void raw_pass(void *socket, const void *bytes, size_t len)
{
    zmq_msg_t m;

    if (bytes) {
        zmq_send(socket, bytes, len, 0);
        return;
    }
    zmq_msg_init(&m);
    zmq_msg_recv(&m, socket, 0);
    zmq_msg_close(&m);
}

struct raw_job {
    struct raw *r;
    unsigned trips;
};

static void *raw_echo(void *arg)
{
    struct raw_job *job = arg;
    void *bytes = calloc(1, job->r->bytes);

    for (unsigned i = 0; i < job->trips; i++) {
        raw_pass(job->r->b, NULL, 0);
        raw_pass(job->r->b, bytes, job->r->bytes);
    }
    free(bytes);
    return NULL;
}

static double raw_round(struct raw *r, unsigned trips)
{
    struct raw_job job = {r, trips + WARM_UP};
    void *bytes = calloc(1, r->bytes);
    double start = 0;
    pthread_t thread;

    pthread_create(&thread, NULL, raw_echo, &job);
    for (unsigned i = 0; i < trips + WARM_UP; i++) {
        if (i == WARM_UP)
            start = now_us();
        raw_pass(r->a, bytes, r->bytes);
        raw_pass(r->a, NULL, 0);
    }
    double us = (now_us() - start) / trips / 2;
    pthread_join(thread, NULL);
    free(bytes);
    return us;
}

static void *raw_drain(void *arg)
{
    struct raw_job *job = arg;
    for (unsigned i = 0; i < job->trips; i++)
        raw_pass(job->r->b, NULL, 0);
    return NULL;
}

/* One thread sends, another receives, each with a libzmq thread of its own beside it. */
static void rate(void)
{
    char *bytes = calloc(1, RATE_BYTES);
    double best = 0;

    for (int i = 0; bytes && i < RATE_ROUNDS; i++) {
        struct raw r;
        struct raw_job job = {&r, RATE_PARTS};
        pthread_t thread;
        raw_open(&r, RATE_BYTES, RATE_HWM);
        double start = now_us();
        pthread_create(&thread, NULL, raw_drain, &job);
        for (unsigned k = 0; k < RATE_PARTS; k++)
            raw_pass(r.a, bytes, RATE_BYTES);
        pthread_join(thread, NULL);
        double per_s = (double)RATE_PARTS * RATE_BYTES / (now_us() - start) * 1e6;
        best = per_s > best ? per_s : best;
        raw_close(&r);
    }
    printf("raw libzmq with CURVE over loopback, parts of 1 MiB: %.0f MB/s (best of %d)\n", best / 1e6, RATE_ROUNDS);
    free(bytes);
}

/* --- the wire -------------------------------------------------------------------------------------------------------------- */
static atomic_int given_back;

static void give_back(void *payload, void *hint)
{
    (void)payload;
    (void)hint;
    atomic_fetch_add(&given_back, 1);
}

struct end {
    struct side *side;
    struct wire_link *link;
    struct codec *codec;
    uint8_t *rows;
    size_t bytes;
    unsigned trips;
};

static void wire_pass(struct end *e, bool sending)
{
    static const uint32_t slot[1], pos[1];
    static const int32_t token[1];
    struct wire_event event;
    struct err err = {0};
    struct msg m = {.type = MSG_STEP,
                    .step = {.n_rows = 1, .slot = slot, .pos = pos, .token = token, .embd = (uint32_t)(e->bytes / 4), .stop_stage = MSG_STOP_NONE}};

    if (sending) {
        if (wire_send_msg(e->link, &m, e->rows, e->bytes, give_back, NULL, &err) != WIRE_SENT)
            fail(err.text);
        return;
    }
    do {
        if (wire_poll(e->side->wire, 5000, NULL, 0, &event, &err) < 0 || event.kind == WIRE_DOWN)
            fail("the link went down");
    } while (event.kind != WIRE_FRAME);
    if (codec_decode(e->codec, event.frame->type, event.frame->head, event.frame->head_len, event.frame->payload_len, &m, &err) != 0)
        fail(err.text);
    wire_frame_release(event.frame);
}

static void *wire_echo(void *arg)
{
    struct end *e = arg;

    for (unsigned i = 0; i < e->trips; i++) {
        wire_pass(e, false);
        wire_pass(e, true);
    }
    return NULL;
}

static double wire_round(struct end *a, struct end *b, unsigned trips)
{
    double start = 0;
    pthread_t thread;

    a->trips = b->trips = trips + WARM_UP;
    pthread_create(&thread, NULL, wire_echo, b);
    for (unsigned i = 0; i < a->trips; i++) {
        if (i == WARM_UP)
            start = now_us();
        wire_pass(a, true);
        wire_pass(a, false);
    }
    double us = (now_us() - start) / trips / 2;
    pthread_join(thread, NULL);
    return us;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void measure(struct side *a, struct side *b, struct wire_link *link, size_t bytes, unsigned rounds, unsigned trips)
{
    struct end ea = {.side = a, .link = link, .bytes = bytes}, eb = {.side = b, .link = b->up.link, .bytes = bytes};
    double raw_us[ROUNDS_MAX], wire_us[ROUNDS_MAX];
    struct raw r;

    ea.codec = codec_create(CODEC_SMALL_BYTES, NULL);
    eb.codec = codec_create(CODEC_SMALL_BYTES, NULL);
    ea.rows = calloc(1, bytes);
    eb.rows = calloc(1, bytes);
    raw_open(&r, bytes, RAW_HWM);
    for (unsigned i = 0; i < rounds; i++) {
        raw_us[i] = raw_round(&r, trips);
        wire_us[i] = wire_round(&ea, &eb, trips);
    }
    raw_close(&r);
    qsort(raw_us, rounds, sizeof *raw_us, by_value);
    qsort(wire_us, rounds, sizeof *wire_us, by_value);
    printf("hop %6zu bytes: raw best %.1f median %.1f us, wire best %.1f median %.1f us, over raw %.1f median %.1f us\n", bytes, raw_us[0],
           raw_us[rounds / 2], wire_us[0], wire_us[rounds / 2], wire_us[0] - raw_us[0], wire_us[rounds / 2] - raw_us[rounds / 2]);
    codec_destroy(ea.codec);
    codec_destroy(eb.codec);
    /* The rows may still be libzmq's for a moment; the process ends soon. */
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : ROUNDS, trips = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : TRIPS;
    struct side a, b;
    struct wire_link *link;

    if (argc == 2 && strcmp(argv[1], "rate") == 0) {
        rate();
        return 0;
    }
    if (rounds < 1 || rounds > ROUNDS_MAX || trips < 1)
        fail("usage: bench_hop [ROUNDS (1 to 100) [TRIPS]], or bench_hop rate");
    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    link = side_dial(&a, &b, LINK_DATA);
    if (!until2(&a, &b, a.n_up, 1) || !until2(&a, &b, b.n_up, 1))
        fail("no link");
    measure(&a, &b, link, 4096, rounds, trips);
    measure(&a, &b, link, 32768, rounds, trips);
    side_close(&a);
    side_close(&b);
    return 0;
}
