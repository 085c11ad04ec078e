/* Links over tcp with CURVE and over ipc: up and down, order, zero-copy, back-pressure, limits, goodbyes, versions. */
#include "proto/wire.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/codec.h"
#include "tests/proto/sides.h"
#include "tests/tap.h"

static atomic_int n_freed;

static void count_free(void *payload, void *hint)
{
    (void)hint;
    free(payload);
    atomic_fetch_add(&n_freed, 1);
}

static struct msg a_step(size_t n_rows, uint32_t embd)
{
    static uint32_t slot[64], pos[64];
    static int32_t token[64];

    return (struct msg){.type = MSG_STEP,
                        .step = {.batch = 7, .n_rows = n_rows, .slot = slot, .pos = pos, .token = token, .embd = embd, .stop_stage = MSG_STOP_NONE}};
}

/* Sends n steps of rows whose bytes are their number; polls when the queue is full. */
static unsigned send_steps(struct side *from, struct side *to, struct wire_link *link, unsigned n, size_t bytes)
{
    unsigned blocked = 0;

    for (unsigned i = 0; i < n;) {
        struct msg m = a_step(1, (uint32_t)bytes / 4);
        uint8_t *payload = malloc(bytes);
        struct err err = {0};
        memset(payload, (int)(i & 255), bytes);
        m.step.batch = i;
        switch (wire_send_msg(link, &m, payload, bytes, count_free, NULL, &err)) {
        case WIRE_SENT:
            i++;
            break;
        case WIRE_BLOCKED:
            free(payload);
            blocked++;
            from->n_writable = 0;
            if (!until2(from, to, from->n_writable, 1))
                return blocked;
            break;
        default:
            free(payload);
            tap_note("%s", err.text);
            return blocked;
        }
    }
    return blocked;
}

/* The frames that came are those steps, whole and in order. */
static bool steps_came(struct side *to, unsigned n, size_t bytes)
{
    struct codec *c = codec_create(CODEC_SMALL_BYTES, NULL);
    bool good = true;
    struct wire_frame *f;
    unsigned i = 0;

    for (; (f = side_frame(to)) != NULL; i++) {
        struct msg m;
        struct err err = {0};
        good &= codec_decode(c, f->type, f->head, f->head_len, f->payload_len, &m, &err) == 0 && m.type == MSG_STEP && m.step.batch == i;
        good &= f->payload_len == bytes && f->number == i + 1 && (uintptr_t)f->payload % 8 == 0;
        for (size_t k = 0; k < f->payload_len; k++)
            good &= f->payload[k] == (i & 255);
        wire_frame_release(f);
    }
    codec_destroy(c);
    return good && i == n;
}

static void test_frames(const char *endpoint, const char *what)
{
    struct side a, b;
    struct wire_link *link;
    unsigned n = 1000;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, endpoint);
    link = side_dial(&a, &b, LINK_DATA);
    ok(until2(&a, &b, a.n_up, 1) && until2(&a, &b, b.n_up, 1), "%s: both ends are up", what);
    is_str(wire_link_node(b.up.link), "alpha", "%s: who dialed", what);
    is_str(wire_link_node(link), "beta", "%s: who was dialed", what);
    ok(wire_link_instance(link) == wire_net_instance(b.net) && wire_link_instance(b.up.link) == wire_net_instance(a.net), "%s: instances", what);
    is_int(wire_link_protocol(link), PROTOCOL_MAX, "%s: protocol", what);
    n_freed = 0;
    send_steps(&a, &b, link, n, 4096);
    until2(&a, &b, b.n_frames, n);
    ok(steps_came(&b, n, 4096), "%s: %u frames whole and in order", what, n);
    is_int(n_freed, n, "%s: every payload was given back", what);
    b.n_frames = b.next_frame = 0;
    send_steps(&b, &a, b.up.link, n, 32768);
    until2(&a, &b, a.n_frames, n);
    ok(steps_came(&a, n, 32768), "%s: and the other way, from the side that was dialed", what);
    wire_link_close(link, "enough");
    ok(until2(&a, &b, b.n_down, 1), "%s: the other side sees it close", what);
    has_str(b.down.text, "enough", "%s: and why", what);
    ok(b.down.goodbye, "%s: that it was on purpose", what);
    link = side_dial(&a, &b, LINK_DATA);
    until2(&a, &b, b.n_up, 2);
    until2(&a, &b, a.n_up, 2);
    wire_link_reject(link, "nonsense");
    ok(until2(&a, &b, b.n_down, 2) && !b.down.goodbye, "%s: or for a fault", what);
    has_str(b.down.text, "nonsense", "%s: and which", what);
    sides_run((struct side *[]){&a, &b}, 2, 50);
    is_int(a.n_down, 0, "%s: who closes hears nothing", what);
    side_close(&a);
    side_close(&b);
}

static void test_big(void)
{
    struct side a, b;
    struct wire_link *link;
    size_t bytes = (size_t)64 * MSG_MAX_EMBD * 4;
    struct msg m = a_step(64, MSG_MAX_EMBD);
    struct err err = {0};
    void *payload = calloc(1, bytes);

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    link = side_dial(&a, &b, LINK_DATA);
    until2(&a, &b, a.n_up, 1);
    n_freed = 0;
    is_int(wire_send_msg(link, &m, payload, bytes, count_free, NULL, &err), WIRE_SENT, "a frame of %zu MiB is sent", bytes >> 20);
    ok(until2(&a, &b, b.n_frames, 1) && b.frames[0]->payload_len == bytes, "and comes");
    m = a_step(64, MSG_MAX_EMBD);
    payload = malloc(100);
    is_int(wire_send(link, MSG_STEP, NULL, 0, payload, WIRE_MAX_PAYLOAD + 1, count_free, NULL, &err), WIRE_FAILED, "a bigger one is not taken");
    has_str(err.text, "at most", "and why");
    free(payload);
    is_int(n_freed, 1, "one payload was given back, one was not taken");
    side_close(&a);
    side_close(&b);
}

/* The peer does not read: the queue fills, sending says so, and nothing is lost once it reads. */
static void test_back_pressure(bool by_acceptor)
{
    struct side a, b, *from = by_acceptor ? &b : &a, *to = by_acceptor ? &a : &b;
    struct wire_link *link;
    unsigned sent = 0;
    struct err err = {0};
    enum wire_sent last = WIRE_SENT;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    link = side_dial(&a, &b, LINK_DATA);
    until2(&a, &b, a.n_up, 1);
    until2(&a, &b, b.n_up, 1);
    link = by_acceptor ? b.up.link : link;
    n_freed = 0;
    for (; sent < 100000; sent++) {
        struct msg m = a_step(1, 4096);
        void *payload = calloc(1, 16384);
        m.step.batch = sent;
        last = wire_send_msg(link, &m, payload, 16384, count_free, NULL, &err);
        if (last != WIRE_SENT) {
            free(payload);
            break;
        }
        if (sent % 64 == 0) /* only our own side */
            sides_run(&from, 1, 1);
    }
    is_int(last, WIRE_BLOCKED, "%s, and the peer does not read: sending blocks after %u frames",
           by_acceptor ? "the acceptor sends" : "the dialer sends", sent);
    ok(sent + 1 >= WIRE_SEND_QUEUE && sent < 20000, "within its named limit and the kernel's buffers");
    is_int(a.n_frames + b.n_frames, 0, "nothing was received meanwhile");
    to->release = true;
    ok(until2(&a, &b, to->n_frames, sent), "once it reads, all of it comes");
    ok(from->n_writable > 0, "and the sender is told that it may go on");
    is_int(n_freed, (int)sent, "all payloads were given back");
    side_close(&a);
    side_close(&b);
}

/* A reader that takes frames and never releases them is our own fault; a peer that sends more than anybody could hold goes. */
static void test_held(void)
{
    struct side a, b;
    struct wire_link *link;
    struct wire_event e;
    struct wire_frame **held = calloc(WIRE_MAX_HELD_FRAMES + 1, sizeof *held);
    unsigned n = 0, sent = 0;
    bool down = false;
    struct msg credit = {.type = MSG_CREDIT};
    struct err err = {0};

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    link = side_dial(&a, &b, LINK_DATA);
    until2(&a, &b, a.n_up, 1);
    until2(&a, &b, b.n_up, 1);
    for (unsigned tries = 0; !down && tries < 2000000; tries++) {
        if (sent <= WIRE_MAX_HELD_FRAMES && wire_send_msg(link, &credit, NULL, 0, NULL, NULL, &err) == WIRE_SENT)
            sent++;
        if (wire_poll(a.wire, 0, NULL, 0, &e, &err) == 1 && e.kind == WIRE_DOWN)
            down = true;
        if (wire_poll(b.wire, 0, NULL, 0, &e, &err) != 1)
            continue;
        if (e.kind == WIRE_FRAME)
            held[n++] = e.frame;
        else if (e.kind == WIRE_DOWN)
            down = true;
    }
    ok(down && n == WIRE_MAX_HELD_FRAMES, "a peer that minds no credit is cut off after %u frames", n);
    for (unsigned i = 0; i < n; i++)
        wire_frame_release(held[i]);
    free(held);
    side_close(&a);
    side_close(&b);
}

static void test_versions(void)
{
    static const struct {
        uint32_t a_min, a_max, b_min, b_max, agreed;
        const char *what;
    } cases[] = {
        {2, 2, 1, 2, 2, "the older one is dialed"}, {1, 2, 2, 3, 2, "the newer one is dialed"}, {1, 1, 1, 2, 1, "one that speaks N-1 dials"},
        {1, 2, 1, 1, 1, "one that speaks N-1 is dialed"}, {1, 1, 2, 3, 0, "nothing in common, too old"}, {3, 4, 1, 2, 0, "nothing in common, too new"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side a, b;
        struct wire_link *link;
        struct wire_stats stats;
        side_open(&a, "alpha", &(struct wire_net_options){.protocol_min = cases[i].a_min, .protocol_max = cases[i].a_max});
        side_open(&b, "beta", &(struct wire_net_options){.protocol_min = cases[i].b_min, .protocol_max = cases[i].b_max});
        sides_trust(&a, &b);
        side_listen(&b, "tcp://127.0.0.1:*");
        link = side_dial(&a, &b, LINK_CONTROL);
        if (cases[i].agreed) {
            ok(until2(&a, &b, a.n_up, 1) && wire_link_protocol(link) == cases[i].agreed, "%s: protocol %u", cases[i].what, cases[i].agreed);
        } else {
            ok(until2(&a, &b, a.n_down, 1) && until2(&a, &b, b.n_refused, 1), "%s: refused, and both know", cases[i].what);
            has_str(a.down.text, "update the older one", "the dialer is told what to do");
            has_str(b.refused.text, "speaks protocols", "and the other side why");
            wire_net_stats(b.net, &stats);
            is_int(stats.refused_version, 1, "counted");
            is_int(b.n_up, 0, "no link there");
        }
        side_close(&a);
        side_close(&b);
    }
}

static void test_wrong_frames(void)
{
    static const struct {
        enum link_purpose purpose;
        enum msg_type type;
        const char *want;
    } cases[] = {
        {LINK_DATA, MSG_HEARTBEAT, "on a data link"},
        {LINK_CONTROL, MSG_STEP, "on a control link"},
        {LINK_CONTROL, (enum msg_type)200, "on a control link"},
        {LINK_DATA, MSG_LINK_OK, "link_ok"},
        {LINK_DATA, MSG_LINK_HELLO, "link_hello"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side a, b;
        struct wire_link *link, *other;
        struct err err = {0};
        side_open(&a, "alpha", NULL);
        side_open(&b, "beta", NULL);
        sides_trust(&a, &b);
        side_listen(&b, "tcp://127.0.0.1:*");
        other = side_dial(&a, &b, LINK_CONTROL);
        until2(&a, &b, b.n_up, 1);
        link = side_dial(&a, &b, cases[i].purpose);
        until2(&a, &b, a.n_up, 2);
        until2(&a, &b, b.n_up, 2);
        wire_send(link, cases[i].type, "x", 1, NULL, 0, NULL, NULL, &err);
        ok(until2(&a, &b, b.n_down, 1) && until2(&a, &b, a.n_down, 1), "%s %d: both ends go down", link_purpose_name(cases[i].purpose), cases[i].type);
        has_str(b.down.text, cases[i].want, "and why");
        struct msg m = {.type = MSG_HEARTBEAT};
        ok(wire_send_msg(other, &m, NULL, 0, NULL, NULL, &err) == WIRE_SENT && until2(&a, &b, b.n_frames, 1), "another link is not disturbed");
        side_close(&a);
        side_close(&b);
    }
}

static void test_addresses(void)
{
    static const struct {
        const char *address, *want;
    } bad[] = {
        {"tcp://exam ple.org:7100", "no host"},      {"tcp://1.2.3.4", "is needed"},           {"tcp://1.2.3.4:0", "port"},
        {"tcp://1.2.3.4:65536", "port"},             {"tcp://1.2.3.4:12x", "port"},            {"udp://1.2.3.4:1", "is needed"},
        {"ipc://relative/path", "absolute path"},    {"tcp://::1:7", "is needed"},             {"tcp://[::1:7", "is needed"},
        {"", "is needed"},                           {"tcp://1.2.3.4:7;1.1.1.1:5", "is needed"},
    };
    struct side a;
    struct err err;

    side_open(&a, "alpha", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct wire_dial d = {.endpoint = bad[i].address, .purpose = LINK_CONTROL, .key = keys_public(a.keys)};
        err_clear(&err);
        ok(!wire_dial(a.wire, &d, &err), "\"%s\" cannot be dialed", bad[i].address);
        has_str(err.text, bad[i].want, "and why");
    }
    struct wire_dial no_key = {.endpoint = "tcp://127.0.0.1:1", .purpose = LINK_CONTROL};
    ok(!wire_dial(a.wire, &no_key, &err), "tcp without the peer's key is not dialed");
    side_close(&a);
}

/* localhost may be ::1 first, where nobody listens: the next of its addresses is tried. */
static void test_names(void)
{
    struct side a, b;
    struct err err;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    char named[MSG_MAX_ADDRESS + 1];
    snprintf(named, sizeof named, "tcp://localhost%s", strrchr(b.endpoint, ':'));
    struct wire_dial d = {.endpoint = named, .purpose = LINK_CONTROL, .key = keys_public(b.keys)};
    struct wire_link *link = wire_dial(a.wire, &d, &err);
    ok(link, "%s is dialed", named);
    ok(until2(&a, &b, a.n_up, 1), "and found");
    ok(link && strncmp(wire_link_address(link), "127.0.0.1:", 10) == 0, "its address is %s", link ? wire_link_address(link) : "");
    static const struct {
        const char *said, *seen;
        bool anywhere;
    } cases[] = {{"tcp://0.0.0.0:7101", "tcp://127.0.0.1:7101", true}, {"tcp://[::]:7101", "tcp://127.0.0.1:7101", true},
                 {"tcp://10.0.0.7:7101", "tcp://10.0.0.7:7101", false}, {"ipc:///tmp/x", "ipc:///tmp/x", false}, {"", "", false}, {"rubbish", "rubbish", false}};
    for (size_t i = 0; link && i < sizeof cases / sizeof *cases; i++) {
        char seen[MSG_MAX_ADDRESS + 1];
        bool anywhere = wire_address_seen(cases[i].said, link, seen);
        ok(anywhere == cases[i].anywhere && strcmp(seen, cases[i].seen) == 0, "\"%s\" is dialed as \"%s\"", cases[i].said, seen);
    }
    ok(wire_address_check("tcp://0.0.0.0:7101", true, &err) == 0 && wire_address_check("tcp://0.0.0.0:7101", false, &err) != 0 &&
           strstr(err.text, "good only to listen at"),
       "everywhere can be listened at, not dialed: %s", err.text);
    ok(wire_address_loopback("tcp://127.0.0.1:7101") && wire_address_loopback("[::1]:41000") && wire_address_loopback("ipc") &&
           !wire_address_loopback("10.0.0.7:41000") && !wire_address_loopback("tcp://tower:7101"),
       "whose address only its own machine reaches");
    d.endpoint = "tcp://no-such-host.invalid:1";
    ok(wire_dial(a.wire, &d, &err), "an unknown host may be dialed");
    ok(until2(&a, &b, a.n_down, 1), "and is down");
    has_str(a.down.text, "host", "and why");
    link = wire_dial(a.wire, &d, &err);
    wire_link_close(link, NULL);
    ok(link, "a link is closed before its host is known");
    ok(wire_dial(a.wire, &d, &err), "or with its wire");
    side_close(&a);
    side_close(&b);
}

static void test_nobody(void)
{
    struct side a;

    side_open(&a, "alpha", NULL);
    snprintf(a.endpoint, sizeof a.endpoint, "tcp://127.0.0.1:1");
    side_dial(&a, &a, LINK_CONTROL);
    ok(sides_until((struct side *[]){&a}, 1, &a.n_down, 1, SIDES_WAIT_MS), "nobody listens there: down");
    has_str(a.down.text, "nobody answers", "and why");
    side_close(&a);
}

static void test_ipc_folder(void)
{
    char path[256];
    struct side a;
    struct err err;

    side_open(&a, "alpha", NULL);
    snprintf(path, sizeof path, "%s/open", sides_folder());
    mkdir(path, 0700);
    chmod(path, 0755);
    snprintf(path, sizeof path, "ipc://%s/open/s", sides_folder());
    ok(wire_listen(a.wire, path, NULL, &err) != 0, "a socket in a folder that others may enter is refused");
    has_str(err.text, "chmod 700", "with what to do");
    side_close(&a);
}

/* The other process dies: its connection closes, and both directions see it. */
static void test_gone(void)
{
    struct side a, b;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    side_dial(&a, &b, LINK_DATA);
    until2(&a, &b, a.n_up, 1);
    until2(&a, &b, b.n_up, 1);
    wire_destroy(b.wire);
    b.wire = wire_create(b.net, NULL);
    ok(until2(&a, &b, a.n_down, 1), "the acceptor ends: the dialer sees it: %s", a.down.text);
    side_close(&a);
    side_close(&b);
}

static void test_forward(void)
{
    struct side a, r, b;
    struct side *all[] = {&a, &r, &b};
    struct wire_link *in;
    struct wire_link *out;
    struct err err = {0};

    side_open(&a, "alpha", NULL);
    side_open(&r, "relay", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &r);
    sides_trust(&b, &r);
    side_listen(&r, "tcp://127.0.0.1:*");
    in = side_dial(&a, &r, LINK_DATA);
    sides_until(all, 3, &r.n_up, 1, SIDES_WAIT_MS);
    side_dial(&b, &r, LINK_DATA);
    sides_until(all, 3, &r.n_up, 2, SIDES_WAIT_MS);
    sides_until(all, 3, &a.n_up, 1, SIDES_WAIT_MS);
    out = r.up.link;
    for (unsigned i = 0; i < 100; i++) {
        struct msg m = a_step(1, 1024);
        m.step.batch = i;
        void *payload = malloc(4096);
        memset(payload, (int)i, 4096);
        wire_send_msg(in, &m, payload, 4096, count_free, NULL, &err);
        if (!sides_until(all, 3, &r.n_frames, i + 1, SIDES_WAIT_MS) || wire_forward(out, side_frame(&r), &err) != WIRE_SENT)
            break;
    }
    sides_until(all, 3, &b.n_frames, 100, SIDES_WAIT_MS);
    ok(steps_came(&b, 100, 4096), "frames pass a relay untouched, numbered anew");
    side_close(&a);
    side_close(&r);
    side_close(&b);
}

int main(void)
{
    char ipc[256];

    test_frames("tcp://127.0.0.1:*", "tcp");
    snprintf(ipc, sizeof ipc, "ipc://%s/socket", sides_folder());
    test_frames(ipc, "ipc");
    test_big();
    test_back_pressure(false);
    test_back_pressure(true);
    test_held();
    test_versions();
    test_wrong_frames();
    test_addresses();
    test_names();
    test_nobody();
    test_ipc_folder();
    test_gone();
    test_forward();
    return tap_done();
}
