/* Links over a bad network (tests/pipeline/relay): slow and jittered ones work; cut, half-open and corrupted ones go down on
 * both ends within the time that wire.h names, and never pass a broken frame on. */
#include "proto/wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/codec.h"
#include "tests/proto/sides.h"
#include "tests/tap.h"

struct relay {
    FILE *in, *out; /* its standard input and output */
    pid_t pid;
    char address[128];
};

static bool relay_start(struct relay *r, const char *to)
{
    char program[4096], line[128] = "";
    const char *build = getenv("SC_BUILD");
    int in[2], out[2];

    if (!build || pipe(in) != 0 || pipe(out) != 0)
        return false;
    snprintf(program, sizeof program, "%s/tests/pipeline/relay", build);
    if (access(program, X_OK) != 0)
        return false;
    r->pid = fork();
    if (r->pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[1]);
        close(out[0]);
        execl(program, program, "--to", to + strlen("tcp://"), (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    r->in = fdopen(in[1], "w");
    r->out = fdopen(out[0], "r");
    if (!fgets(line, sizeof line, r->out) || strncmp(line, "listening ", 10) != 0)
        return false;
    line[strcspn(line, "\n")] = '\0';
    snprintf(r->address, sizeof r->address, "tcp://%.100s", line + 10);
    return true;
}

static void relay_say(struct relay *r, const char *command)
{
    char line[128];

    fprintf(r->in, "%s\n", command);
    fflush(r->in);
    if (!fgets(line, sizeof line, r->out) || strncmp(line, "error", 5) == 0)
        tap_note("relay: %s: %s", command, line);
}

static void relay_stop(struct relay *r)
{
    fclose(r->in);
    fclose(r->out);
    waitpid(r->pid, NULL, 0);
}

struct rig {
    struct side a, b;
    struct relay relay;
    struct wire_link *link;
};

static void rig_open(struct rig *r)
{
    side_open(&r->a, "alpha", NULL);
    side_open(&r->b, "beta", NULL);
    sides_trust(&r->a, &r->b);
    side_listen(&r->b, "tcp://127.0.0.1:*");
    if (!relay_start(&r->relay, r->b.endpoint))
        tap_skip_all("tests/pipeline/relay is not there (SC_BUILD)");
    snprintf(r->b.endpoint, sizeof r->b.endpoint, "%s", r->relay.address);
}

static bool rig_up(struct rig *r)
{
    unsigned n = r->a.n_up, m = r->b.n_up;

    r->link = side_dial(&r->a, &r->b, LINK_DATA);
    return until2(&r->a, &r->b, r->a.n_up, n + 1) && until2(&r->a, &r->b, r->b.n_up, m + 1);
}

static void rig_close(struct rig *r)
{
    side_close(&r->a);
    side_close(&r->b);
    relay_stop(&r->relay);
}

static bool send_one(struct rig *r, unsigned number)
{
    static uint8_t rows[8192];
    static const uint32_t slot[1], pos[1];
    static const int32_t token[1];
    struct msg m = {.type = MSG_STEP,
                    .step = {.batch = number, .n_rows = 1, .slot = slot, .pos = pos, .token = token, .embd = sizeof rows / 4, .stop_stage = MSG_STOP_NONE}};

    memset(rows, (int)(number & 255), sizeof rows);
    return wire_send_msg(r->link, &m, rows, sizeof rows, NULL, NULL, NULL) == WIRE_SENT;
}

/* All that came is whole and in order, whatever happened. */
static bool came_well(struct side *s, unsigned *ret_n)
{
    bool good = true;
    unsigned n = 0;
    struct wire_frame *f;

    for (; (f = side_frame(s)) != NULL; n++) {
        for (size_t i = 0; i < f->payload_len; i++)
            good &= f->payload[i] == (n & 255);
        wire_frame_release(f);
    }
    *ret_n = n;
    return good;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_slow(void)
{
    struct rig r;
    unsigned n;
    bool good;

    rig_open(&r);
    relay_say(&r.relay, "delay 10");
    relay_say(&r.relay, "jitter 10");
    relay_say(&r.relay, "rate 100");
    ok(rig_up(&r), "a slow link comes up");
    for (unsigned i = 0; i < 200; i++)
        send_one(&r, i);
    until2(&r.a, &r.b, r.b.n_frames, 200);
    good = came_well(&r.b, &n);
    ok(good && n == 200, "%u frames over it, whole and in order", n);
    rig_close(&r);
}

static void test_cut(void)
{
    struct rig r;
    unsigned n;
    bool good;

    rig_open(&r);
    rig_up(&r);
    for (unsigned i = 0; i < 50; i++)
        send_one(&r, i);
    until2(&r.a, &r.b, r.b.n_frames, 20);
    relay_say(&r.relay, "cut");
    ok(until2(&r.a, &r.b, r.a.n_down, 1) && until2(&r.a, &r.b, r.b.n_down, 1), "a cut is seen on both ends");
    good = came_well(&r.b, &n);
    ok(good && n >= 20, "what came before was delivered (%u)", n);
    ok(rig_up(&r), "and it can be dialed again");
    rig_close(&r);
}

static void test_half_open(void)
{
    struct rig r;
    double start;

    rig_open(&r);
    rig_up(&r);
    relay_say(&r.relay, "halt on");
    start = seconds();
    ok(until2(&r.a, &r.b, r.a.n_down, 1) && until2(&r.a, &r.b, r.b.n_down, 1), "a half-open link is noticed on both ends");
    tap_note("after %.1f s", seconds() - start);
    r.link = side_dial(&r.a, &r.b, LINK_DATA);
    r.a.n_down = 0;
    start = seconds();
    ok(until2(&r.a, &r.b, r.a.n_down, 1), "dialing into the void ends: %s", r.a.down.text);
    tap_note("after %.1f s", seconds() - start);
    rig_close(&r);
}

static void test_corrupt(void)
{
    struct rig r;
    unsigned n, bad = 0, down = 0, rounds = getenv("SC_LONG") ? 200 : 12;

    rig_open(&r);
    for (unsigned round = 0; round < rounds; round++) {
        char command[32];
        unsigned a_down = r.a.n_down, b_down = r.b.n_down;
        if (!rig_up(&r))
            break;
        snprintf(command, sizeof command, "corrupt %u", 1000 + round * 7777);
        relay_say(&r.relay, command);
        for (unsigned i = 0; i < 100 && r.a.n_down == a_down && send_one(&r, i); i++) /* a link that is down is not to be used */
            sides_run((struct side *[]){&r.a, &r.b}, 2, 1);
        down += until2(&r.a, &r.b, r.a.n_down, a_down + 1) && until2(&r.a, &r.b, r.b.n_down, b_down + 1);
        bad += !came_well(&r.b, &n);
    }
    is_int(down, rounds, "a flipped bit ends the link, on both ends");
    is_int(bad, 0, "and no frame with it is passed on");
    rig_close(&r);
}

/* --- signs of life -------------------------------------------------------------------------------------------------------- */
static void test_idle(void)
{
    struct rig r;
    struct wire_stats stats;
    unsigned n;

    rig_open(&r);
    rig_up(&r);
    sides_run((struct side *[]){&r.a, &r.b}, 2, 2 * WIRE_LOST_MS);
    wire_net_stats(r.a.net, &stats);
    ok(r.a.n_down == 0 && r.b.n_down == 0, "a link on which nobody says anything stays");
    is_int((long long)stats.frames_received, 0, "signs of life are no frames");
    usleep(2 * WIRE_LOST_MS * 1000);
    sides_run((struct side *[]){&r.a, &r.b}, 2, WIRE_LOST_MS / 2);
    ok(r.a.n_down == 0 && r.b.n_down == 0 && send_one(&r, 0) && until2(&r.a, &r.b, r.b.n_frames, 1) && came_well(&r.b, &n),
       "time that both were not running is nobody's silence");
    for (int i = 0; i < 3 * WIRE_LOST_MS && r.a.n_down == 0; i += 10)
        sides_run((struct side *[]){&r.a}, 1, 10);
    has_str(r.a.down.text, "no sign of life", "one that stands still is given up");
    rig_close(&r);
}

/* A frame that takes longer than the silence allowed is on its way. */
static void test_long_frame(void)
{
    struct rig r;
    size_t bytes = 1 << 20;
    struct msg m = {.type = MSG_STEP};
    static uint32_t slot[4], pos[4];
    static int32_t token[4];
    void *rows = calloc(1, bytes);

    rig_open(&r);
    rig_up(&r);
    m.step.batch = 1;
    m.step.n_rows = 4;
    m.step.slot = slot;
    m.step.pos = pos;
    m.step.token = token;
    m.step.embd = (uint32_t)(bytes / 16);
    m.step.stop_stage = MSG_STOP_NONE;
    relay_say(&r.relay, "rate 3"); /* 2.8 s */
    is_int(wire_send_msg(r.link, &m, rows, bytes, NULL, NULL, NULL), WIRE_SENT, "a big frame on a slow link");
    ok(until2(&r.a, &r.b, r.b.n_frames, 1) && r.a.n_down == 0 && r.b.n_down == 0, "comes, and nobody took it for silence");
    free(rows);
    rig_close(&r);
}

/* A peer without CURVE that announces more than it sends: what a flipped bit in a frame's length looks like. */
static void put(int fd, const void *bytes, size_t n)
{
    ssize_t ignored = send(fd, bytes, n, MSG_NOSIGNAL);
    (void)ignored;
}

static void test_stuck_frame(void)
{
    static const uint8_t greeting[64] = {0xFF, [9] = 0x7F, 3, 0, 'N', 'U', 'L', 'L'};
    static const uint8_t ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06" "DEALER";
    struct wire_net_options plain = {.plaintext_tcp_for_tests = true};
    struct msg hello = {.type = MSG_LINK_HELLO,
                        .link_hello = {.purpose = LINK_DATA, .protocol_min = PROTOCOL_MIN, .protocol_max = PROTOCOL_MAX, .version = "1",
                                       .node = "raw", .instance = 7, .relay_to = ""}};
    uint8_t frame[256] = {0, 0, 'S', 'C', MSG_LINK_HELLO}, announced[9] = {2, [6] = 0x10}, alive[18] = {0, 16, 'S', 'C', MSG_ALIVE};
    struct codec *c = codec_create(CODEC_SMALL_BYTES, NULL);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct side b;
    size_t len = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    side_open(&b, "plain", &plain);
    side_listen(&b, "tcp://127.0.0.1:*");
    at.sin_port = htons((uint16_t)strtoul(strrchr(b.endpoint, ':') + 1, NULL, 10));
    if (!ok(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0, "a peer made by hand"))
        return;
    codec_encode(c, &hello, frame + 18, sizeof frame - 18, &len, NULL);
    frame[1] = (uint8_t)(16 + len);
    put(fd, greeting, sizeof greeting);
    put(fd, ready, sizeof ready - 1);
    for (size_t got = 0; got < sizeof greeting + 2;) { /* messages may follow once the other side is ready, too */
        uint8_t ignored[256];
        ssize_t n = recv(fd, ignored, sizeof ignored, 0);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    put(fd, frame, 18 + len);
    ok(sides_until((struct side *[]){&b}, 1, &b.n_up, 1, SIDES_WAIT_MS), "is a link %s", b.refused.text);
    for (int i = 0; i < 8; i++) {
        put(fd, alive, sizeof alive);
        sides_run((struct side *[]){&b}, 1, WIRE_ALIVE_MS);
    }
    is_int(b.n_down, 0, "as long as it gives signs of life");
    put(fd, announced, sizeof announced);
    double start = seconds();
    for (int i = 0; i < 40 && b.n_down == 0; i++) {
        put(fd, alive, sizeof alive);
        sides_run((struct side *[]){&b}, 1, WIRE_ALIVE_MS);
    }
    has_str(b.down.text, "no sign of life", "a frame of 1 MiB that never comes, with signs of life inside");
    tap_note("after %.1f s", seconds() - start);
    close(fd);
    codec_destroy(c);
    side_close(&b);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_slow();
    test_cut();
    test_half_open();
    test_corrupt();
    test_idle();
    test_long_frame();
    test_stuck_frame();
    return tap_done();
}
