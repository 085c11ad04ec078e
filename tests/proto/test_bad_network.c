/* Links over a bad network (tests/pipeline/relay): slow and jittered ones work; cut, half-open and corrupted ones go down on
 * both ends within the time that wire.h names, and never pass a broken frame on. */
#include "proto/wire.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    ok(seconds() - start < (WIRE_ALIVE_MS + WIRE_LOST_MS) / 1e3 + 2, "within the time allowed (%.1f s)", seconds() - start);
    r.link = side_dial(&r.a, &r.b, LINK_DATA);
    r.a.n_down = 0;
    start = seconds();
    ok(until2(&r.a, &r.b, r.a.n_down, 1), "dialing into the void ends: %s", r.a.down.text);
    ok(seconds() - start < WIRE_CONNECT_MS / 1e3 + 1, "within the time allowed (%.1f s)", seconds() - start);
    rig_close(&r);
}

static void test_corrupt(void)
{
    struct rig r;
    unsigned n, bad = 0, down = 0, rounds = getenv("SC_LONG") ? 40 : 4; /* where a length was hit it takes WIRE_LOST_MS */

    rig_open(&r);
    for (unsigned round = 0; round < rounds; round++) {
        char command[32];
        unsigned a_down = r.a.n_down, b_down = r.b.n_down;
        if (!rig_up(&r))
            break;
        snprintf(command, sizeof command, "corrupt %u", 1000 + round * 7777);
        relay_say(&r.relay, command);
        for (unsigned i = 0; i < 100 && send_one(&r, i); i++)
            sides_run((struct side *[]){&r.a, &r.b}, 2, 1);
        down += until2(&r.a, &r.b, r.a.n_down, a_down + 1) && until2(&r.a, &r.b, r.b.n_down, b_down + 1);
        bad += !came_well(&r.b, &n);
    }
    is_int(down, rounds, "a flipped bit ends the link, on both ends");
    is_int(bad, 0, "and no frame with it is passed on");
    rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_slow();
    test_cut();
    test_half_open();
    test_corrupt();
    return tap_done();
}
