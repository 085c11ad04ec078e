/* A small TCP relay that behaves like a bad network, for tests where the kernel has no netem: delay, jitter, rate, cuts,
 * half-open links, corruption. One relay is one link: its rate is shared by all connections of a direction. What it draws by
 * lot comes from --seed, so that a run can be repeated (the kernel's timing aside).
 *
 * Bytes wait in order in a queue of each connection and direction until they are due. A queue that is full is not read into,
 * so that the sender feels the rate. One thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: relay --to IP:PORT [--listen IP:PORT] [--control PATH] [--seed N] [COMMAND]...\n"
    "\n"
    "Passes every connection made to --listen (default 127.0.0.1:0, any port) on to --to, and prints \"listening IP:PORT\".\n"
    "Takes commands, one a line, as arguments, from standard input and from the unix socket --control; answers each with\n"
    "\"ok\", a line of figures, or \"error: ...\". Ends with \"quit\" or the end of standard input.\n"
    "\n"
    "  delay MS        every byte comes this much later, each way\n"
    "  jitter MS       and up to this much more, drawn for each piece of data (order stays)\n"
    "  rate MBIT       at most so many Mbit/s each way, all connections together; 0: no limit\n"
    "  cut             reset all connections that are open\n"
    "  refuse on|off   reset new connections at once\n"
    "  halt on|off     half-open: nothing is passed on or read, nothing is closed; off: what waited goes on\n"
    "  corrupt [N]     flip one bit, drawn by lot, of the first piece of data after N more bytes (both ways counted; default 0)\n"
    "  stats           \"open N accepted N bytes N corrupted N\"\n"
    "  quit\n";

enum {
    CONNS_MAX = 256,
    CONTROLS_MAX = 8,
    PIECE_BYTES = 16 << 10,
    QUEUE_BYTES = 1 << 20, /* of one direction of one connection, when nothing is delayed; see queue_max */
    LINE_MAX_BYTES = 256,
    FDS_MAX = 2 * CONNS_MAX + CONTROLS_MAX + 3,
};

struct piece {
    struct piece *next;
    uint64_t due_us;
    size_t len, done;
    uint8_t bytes[];
};

/* From one socket to the other. */
struct way {
    struct piece *first, **last;
    size_t queued;
    uint64_t last_due_us;
    bool ended, passed_on; /* the reader has seen the end; the writer has been told */
};

struct conn {
    int fd[2];          /* who connected, whom we connected to */
    struct way way[2];  /* way[i]: read from fd[i], written to fd[1 - i] */
    bool connecting;
};

struct control {
    int in, out;
    char line[LINE_MAX_BYTES];
    size_t len;
};

static struct {
    int listener, control_listener;
    struct sockaddr_in to;
    struct conn conns[CONNS_MAX];
    size_t n_conns;
    struct control controls[CONTROLS_MAX];
    size_t n_controls;
    double delay_ms, jitter_ms, rate_mbit;
    uint64_t sent_until_us[2]; /* the shared link of each direction is busy until then */
    bool refuse, halt, corrupt, quit;
    uint64_t corrupt_at; /* of bytes */
    uint64_t accepted, bytes, corrupted, lot;
} relay = {.listener = -1, .control_listener = -1};

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* splitmix64 */
static uint64_t draw(void)
{
    uint64_t z = (relay.lot += 0x9E3779B97F4A7C15u);

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- connections ------------------------------------------------------------------------------------------------------------ */
static void conn_close(size_t index, bool reset)
{
    struct conn *c = &relay.conns[index];
    struct linger hard = {1, 0};

    for (int i = 0; i < 2; i++) {
        if (reset)
            setsockopt(c->fd[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(c->fd[i]);
        while (c->way[i].first) {
            struct piece *next = c->way[i].first->next;
            free(c->way[i].first);
            c->way[i].first = next;
        }
    }
    /* The last one moves here; its queues' ends must not point into the old place. */
    *c = relay.conns[--relay.n_conns];
    for (int i = 0; i < 2; i++)
        if (!c->way[i].first)
            c->way[i].last = &c->way[i].first;
}

static void reset_fd(int fd)
{
    struct linger hard = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

static void accept_one(void)
{
    int fd = accept4(relay.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1, out;

    if (fd < 0)
        return;
    relay.accepted++;
    if (relay.refuse || relay.n_conns == CONNS_MAX) {
        reset_fd(fd);
        return;
    }
    out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (out < 0 || (connect(out, (struct sockaddr *)&relay.to, sizeof relay.to) != 0 && errno != EINPROGRESS)) {
        reset_fd(fd);
        if (out >= 0)
            close(out);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct conn *c = &relay.conns[relay.n_conns++];
    *c = (struct conn){.fd = {fd, out}, .connecting = true};
    for (int i = 0; i < 2; i++)
        c->way[i].last = &c->way[i].first;
}

/* What may wait: as much as is under way at this rate and delay, and some. */
static size_t queue_max(void)
{
    double ms = relay.delay_ms + relay.jitter_ms, rate = relay.rate_mbit > 0 ? relay.rate_mbit : 10000;
    double bytes = rate * 125 * ms;

    if (relay.rate_mbit > 0 && ms < 1)
        return 64 << 10;
    return bytes < QUEUE_BYTES ? QUEUE_BYTES : bytes > 64 << 20 ? 64 << 20 : (size_t)bytes;
}

static uint64_t due(struct way *way, int direction, size_t len)
{
    uint64_t now = now_us(), at = now;

    if (relay.rate_mbit > 0) {
        uint64_t *busy = &relay.sent_until_us[direction];
        *busy = (*busy > now ? *busy : now) + (uint64_t)((double)len * 8 / relay.rate_mbit);
        at = *busy;
    }
    at += (uint64_t)(relay.delay_ms * 1000);
    if (relay.jitter_ms > 0)
        at += draw() % ((uint64_t)(relay.jitter_ms * 1000) + 1);
    way->last_due_us = at > way->last_due_us ? at : way->last_due_us;
    return way->last_due_us;
}

static void spoil(struct piece *p)
{
    uint64_t before = relay.bytes;

    relay.bytes += p->len;
    if (!relay.corrupt || before < relay.corrupt_at)
        return;
    p->bytes[draw() % p->len] ^= (uint8_t)(1u << draw() % 8);
    relay.corrupt = false;
    relay.corrupted++;
}

/* false: the connection broke. */
static bool take_in(struct conn *c, int i)
{
    struct way *way = &c->way[i];
    struct piece *p = malloc(sizeof *p + PIECE_BYTES);
    ssize_t n = p ? recv(c->fd[i], p->bytes, PIECE_BYTES, 0) : 0;

    if (n <= 0) {
        free(p);
        way->ended |= n == 0;
        return n == 0 || errno == EAGAIN || errno == EINTR;
    }
    *p = (struct piece){.due_us = due(way, i, (size_t)n), .len = (size_t)n};
    spoil(p);
    way->queued += p->len;
    *way->last = p;
    way->last = &p->next;
    return true;
}

static bool pass_on(struct conn *c, int i, uint64_t now)
{
    struct way *way = &c->way[i];

    while (way->first && way->first->due_us <= now) {
        struct piece *p = way->first;
        ssize_t n = send(c->fd[1 - i], p->bytes + p->done, p->len - p->done, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->done += (size_t)n;
        way->queued -= (size_t)n;
        if (p->done < p->len)
            return true;
        way->first = p->next;
        if (!way->first)
            way->last = &way->first;
        free(p);
    }
    if (way->ended && !way->first && !way->passed_on) {
        shutdown(c->fd[1 - i], SHUT_WR);
        way->passed_on = true;
    }
    return true;
}

/* --- commands ---------------------------------------------------------------------------------------------------------------- */
static bool number(const char *text, double max, double *ret)
{
    char *end;
    double value = text ? strtod(text, &end) : -1;

    if (!text || end == text || *end || !isfinite(value) || value < 0 || value > max)
        return false;
    *ret = value;
    return true;
}

static bool on_off(const char *text, bool *ret)
{
    if (!text || (strcmp(text, "on") != 0 && strcmp(text, "off") != 0))
        return false;
    *ret = strcmp(text, "on") == 0;
    return true;
}

static const char *obey(char *line, char *buf, size_t cap)
{
    char *rest = line, *word = strsep(&rest, " "), *arg = rest && *rest ? rest : NULL;
    double value = 0;
    bool good = true;

    snprintf(buf, cap, "ok");
    if (strcmp(word, "delay") == 0) {
        good = number(arg, 60000, &relay.delay_ms);
    } else if (strcmp(word, "jitter") == 0) {
        good = number(arg, 60000, &relay.jitter_ms);
    } else if (strcmp(word, "rate") == 0) {
        good = number(arg, 1e6, &relay.rate_mbit);
        memset(relay.sent_until_us, 0, sizeof relay.sent_until_us);
    } else if (strcmp(word, "cut") == 0 && !arg) {
        while (relay.n_conns > 0)
            conn_close(relay.n_conns - 1, true);
    } else if (strcmp(word, "refuse") == 0) {
        good = on_off(arg, &relay.refuse);
    } else if (strcmp(word, "halt") == 0) {
        good = on_off(arg, &relay.halt);
    } else if (strcmp(word, "corrupt") == 0) {
        good = !arg || number(arg, 1e15, &value);
        relay.corrupt = good;
        relay.corrupt_at = relay.bytes + (uint64_t)value;
    } else if (strcmp(word, "stats") == 0 && !arg) {
        snprintf(buf, cap, "open %zu accepted %" PRIu64 " bytes %" PRIu64 " corrupted %" PRIu64, relay.n_conns, relay.accepted, relay.bytes,
                 relay.corrupted);
    } else if (strcmp(word, "quit") == 0 && !arg) {
        relay.quit = true;
    } else {
        snprintf(buf, cap, "error: unknown command \"%s\"", word);
    }
    if (!good)
        snprintf(buf, cap, "error: \"%s\" does not take \"%s\"", word, arg ? arg : "");
    return buf;
}

static void answer(int fd, char *line)
{
    char buf[LINE_MAX_BYTES + 64];
    size_t len;
    ssize_t ignored;

    obey(line, buf, sizeof buf - 1);
    len = strlen(buf);
    buf[len] = '\n';
    ignored = write(fd, buf, len + 1);
    (void)ignored;
}

/* false: its other end has gone. */
static bool read_control(struct control *c)
{
    ssize_t n = read(c->in, c->line + c->len, sizeof c->line - 1 - c->len);
    char *end;

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    c->len += (size_t)n;
    while ((end = memchr(c->line, '\n', c->len)) != NULL) {
        size_t used = (size_t)(end - c->line) + 1;
        *end = '\0';
        if (c->line[0])
            answer(c->out, c->line);
        memmove(c->line, end + 1, c->len - used);
        c->len -= used;
    }
    return c->len < sizeof c->line - 1;
}

static void controls_check(const struct pollfd *fds, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        if (!fds[i].revents || read_control(&relay.controls[i]))
            continue;
        if (relay.controls[i].in == STDIN_FILENO) {
            relay.quit = true;
            continue;
        }
        close(relay.controls[i].in);
        relay.controls[i] = relay.controls[--relay.n_controls];
    }
}

/* --- the loop ------------------------------------------------------------------------------------------------------------------ */
static int gather(struct pollfd *fds, uint64_t now, int *ret_timeout_ms)
{
    size_t n = 0, max = queue_max();
    uint64_t next = UINT64_MAX;

    for (size_t i = 0; i < relay.n_controls; i++)
        fds[n++] = (struct pollfd){.fd = relay.controls[i].in, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = relay.listener, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = relay.control_listener, .events = POLLIN};
    for (size_t i = 0; i < relay.n_conns; i++) {
        struct conn *c = &relay.conns[i];
        for (int k = 0; k < 2; k++) {
            struct way *in = &c->way[k], *out = &c->way[1 - k];
            short events = 0;
            if (!in->ended && in->queued < max && !c->connecting)
                events |= POLLIN;
            if ((out->first && out->first->due_us <= now) || (c->connecting && k == 1))
                events |= POLLOUT;
            else if (out->first && out->first->due_us < next && !relay.halt)
                next = out->first->due_us;
            /* Without events poll would still tell of errors, again and again: halted descriptors are left out. */
            fds[n++] = (struct pollfd){.fd = relay.halt || (!events && in->ended) ? -1 : c->fd[k], .events = events};
        }
    }
    *ret_timeout_ms = next == UINT64_MAX ? -1 : next <= now ? 0 : (int)((next - now + 999) / 1000);
    return (int)n;
}

static bool conn_check(struct conn *c, const struct pollfd *fds, uint64_t now)
{
    if (c->connecting) {
        int error = 0;
        socklen_t len = sizeof error;
        if (!fds[1].revents)
            return true;
        getsockopt(c->fd[1], SOL_SOCKET, SO_ERROR, &error, &len);
        c->connecting = false;
        return error == 0;
    }
    for (int i = 0; i < 2; i++) {
        if ((fds[i].revents & (POLLERR | POLLNVAL)) || ((fds[i].revents & (POLLIN | POLLHUP)) && !c->way[i].ended && !take_in(c, i)))
            return false;
        if (!pass_on(c, i, now))
            return false;
    }
    return !(c->way[0].passed_on && c->way[1].passed_on);
}

static void control_accept(void)
{
    int fd = accept4(relay.control_listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0 && relay.n_controls == CONTROLS_MAX)
        close(fd);
    else if (fd >= 0)
        relay.controls[relay.n_controls++] = (struct control){.in = fd, .out = fd};
}

static void run(void)
{
    static struct pollfd fds[FDS_MAX];

    while (!relay.quit) {
        int timeout_ms;
        size_t n_controls = relay.n_controls, n_conns = relay.n_conns;
        int n = gather(fds, now_us(), &timeout_ms);
        if (poll(fds, (nfds_t)n, timeout_ms) < 0 && errno != EINTR)
            die("poll");
        uint64_t now = now_us();
        if (!relay.halt)
            for (size_t i = n_conns; i-- > 0;)
                if (!conn_check(&relay.conns[i], &fds[n_controls + 2 + 2 * i], now))
                    conn_close(i, !(relay.conns[i].way[0].passed_on && relay.conns[i].way[1].passed_on));
        if (fds[n_controls].revents)
            accept_one();
        if (fds[n_controls + 1].revents)
            control_accept();
        controls_check(fds, n_controls);
    }
}

static bool parse_address(const char *text, struct sockaddr_in *ret)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    char *end;
    unsigned long port;

    if (!colon || (size_t)(colon - text) >= sizeof host)
        return false;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    port = strtoul(colon + 1, &end, 10);
    *ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return end != colon + 1 && !*end && port <= 65535 && inet_pton(AF_INET, host, &ret->sin_addr) == 1;
}

static void listen_on(struct sockaddr_in at)
{
    socklen_t len = sizeof at;
    int on = 1;
    char host[INET_ADDRSTRLEN];

    relay.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(relay.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (relay.listener < 0 || bind(relay.listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(relay.listener, 64) != 0 ||
        getsockname(relay.listener, (struct sockaddr *)&at, &len) != 0)
        die("listening");
    printf("listening %s:%u\n", inet_ntop(AF_INET, &at.sin_addr, host, sizeof host), ntohs(at.sin_port));
}

static void control_on(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof at.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    unlink(path);
    relay.control_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (relay.control_listener < 0 || bind(relay.control_listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(relay.control_listener, 8) != 0)
        die(path);
}

static int wrong_usage(const char *what)
{
    fprintf(stderr, "relay: %s\n%s", what, usage);
    return 2;
}

int main(int argc, char **argv)
{
    struct sockaddr_in listen_at;
    const char *control = NULL;
    char line[LINE_MAX_BYTES], said[LINE_MAX_BYTES + 64];
    bool have_to = false;
    int i = 1;

    parse_address("127.0.0.1:0", &listen_at);
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--to") == 0 && parse_address(argv[i + 1], &relay.to))
            have_to = true;
        else if (strcmp(argv[i], "--control") == 0)
            control = argv[i + 1];
        else if (strcmp(argv[i], "--seed") == 0)
            relay.lot = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--listen") != 0 || !parse_address(argv[i + 1], &listen_at))
            return wrong_usage(argv[i]);
    }
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!have_to)
        return wrong_usage("--to is needed");
    for (; i < argc; i++) {
        snprintf(line, sizeof line, "%s", argv[i]);
        if (strncmp(obey(line, said, sizeof said), "error", 5) == 0)
            return wrong_usage(said);
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (control)
        control_on(control);
    listen_on(listen_at);
    relay.controls[relay.n_controls++] = (struct control){.in = STDIN_FILENO, .out = STDOUT_FILENO};
    run();
    if (control)
        unlink(control);
    return 0;
}
