/* Who may connect: keys and their folder, the allow-list while links are up, strangers and garbage on the port, invitations. */
#include "proto/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/invite.h"
#include "tests/proto/sides.h"
#include "tests/tap.h"

/* --- the folder ---------------------------------------------------------------------------------------------------------- */
static void put_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    ssize_t n = write(fd, text, strlen(text));

    (void)n;
    fchmod(fd, mode);
    close(fd);
}

static void test_folder(void)
{
    char dir[200], path[300], text[KEY_TEXT];
    struct stat st;
    struct err err;
    struct keys *k, *again;
    uint8_t key[KEY_BYTES];

    snprintf(dir, sizeof dir, "%s/new/deep", sides_folder());
    k = keys_open(dir, NULL, &err);
    if (!ok(k != NULL, "a folder is made on first start"))
        return;
    ok(stat(dir, &st) == 0 && (st.st_mode & 0777) == 0700, "for this user only");
    snprintf(path, sizeof path, "%s/node.secret", dir);
    ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "and so is the secret");
    again = keys_open(dir, "other", &err);
    ok(again && memcmp(keys_public(k), keys_public(again), KEY_BYTES) == 0, "the same pair the next time");
    is_str(again ? keys_name(again) : "", "other", "a name that was asked for");
    ok(key_parse(key_format(keys_public(k), text), key, &err) == 0 && memcmp(key, keys_public(k), KEY_BYTES) == 0, "a key as text and back");
    keys_close(again);
    keys_close(k);

    chmod(path, 0640);
    ok(!keys_open(dir, NULL, &err), "a secret that others can read is refused");
    has_str(err.text, "chmod 600", "with what to do");
    chmod(path, 0600);
    chmod(dir, 0755);
    ok(!keys_open(dir, NULL, &err), "a folder that others can enter is refused");
    has_str(err.text, "chmod 700", "with what to do");
    chmod(dir, 0700);
    put_file(path, "0123\n", 0600);
    ok(!keys_open(dir, NULL, &err), "a broken secret is refused, not replaced");
    has_str(err.text, "64 hexadecimal digits", "with what it should be");
    ok(!keys_open(dir, "../x", &err), "a name that is a path is none");
    ok(!keys_open("/dev/null/x", NULL, &err), "a folder that cannot be is an error: %s", err.text);
}

static void test_keys_text(void)
{
    static const char *const bad[] = {"", "12", "zz", "0000000000000000000000000000000000000000000000000000000000000000",
                                      "11111111111111111111111111111111111111111111111111111111111111111", "1111111111111111111111111111111111111111111111111111111111111111 x"};
    uint8_t key[KEY_BYTES];
    struct err err;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(key_parse(bad[i], key, &err) != 0, "\"%s\" is no key", bad[i]);
    ok(key_parse(" ABCDEF1111111111111111111111111111111111111111111111111111111111\n", key, &err) == 0 && key[0] == 0xAB, "capitals and white space are fine");
}

static void test_list(void)
{
    char dir[200], path[300], name[MSG_MAX_NAME + 1];
    uint8_t one[KEY_BYTES] = {1}, two[KEY_BYTES] = {2}, found[KEY_BYTES];
    bool changed;
    struct err err;
    struct keys *k;

    snprintf(dir, sizeof dir, "%s/list", sides_folder());
    k = keys_open(dir, "me", &err);
    ok(keys_trust(k, "one", one, &err) == 0 && keys_find(k, one, name) && strcmp(name, "one") == 0, "a key is trusted by its name");
    ok(keys_trust(k, "one", one, &err) == 0, "the same again is no error");
    ok(keys_trust(k, "one", two, &err) != 0 && err.kind == ERR_BUSY, "another key of that name is one: %s", err.text);
    ok(keys_trust(k, "uno", one, &err) != 0 && err.kind == ERR_BUSY, "another name of that key, too: %s", err.text);
    ok(keys_trust(k, "../one", two, &err) != 0, "a name that is a path is refused");
    ok(keys_lookup(k, "one", found) && memcmp(found, one, KEY_BYTES) == 0 && !keys_lookup(k, "two", found), "a name has its key");
    snprintf(path, sizeof path, "%s/trusted/two.pub", dir);
    put_file(path, "0200000000000000000000000000000000000000000000000000000000000000\n", 0600);
    ok(keys_reload(k, &changed, &err) == 0 && changed && keys_find(k, two, name), "a file put there by hand is found");
    ok(keys_reload(k, &changed, &err) == 0 && !changed, "nothing new is nothing new");
    chmod(path, 0666);
    ok(keys_reload(k, &changed, &err) != 0 && changed && !keys_find(k, two, name) && keys_find(k, one, name), "a file that others may write is passed over");
    has_str(err.text, "chmod 600", "and that is told");
    unlink(path);
    ok(keys_distrust(k, "two", &err) != 0 && strstr(err.text, "one"), "removing an unknown one names the known: %s", err.text);
    ok(keys_distrust(k, "one", &err) == 0 && keys_count(k) == 0, "removing");
    keys_close(k);
}

/* --- on the wire ----------------------------------------------------------------------------------------------------------- */
static void test_unknown_key(void)
{
    struct side a, b, c;
    struct side *all[] = {&a, &b, &c};
    struct wire_stats stats;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    side_open(&c, "gamma", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    side_dial(&a, &b, LINK_CONTROL);
    sides_until(all, 3, &b.n_up, 1, SIDES_WAIT_MS);
    side_dial(&c, &b, LINK_CONTROL);
    ok(sides_until(all, 3, &c.n_down, 1, SIDES_WAIT_MS), "an unknown key is turned away");
    has_str(c.down.text, "does not trust", "it is told why");
    ok(sides_until(all, 3, &b.n_refused, 1, SIDES_WAIT_MS), "the listener is told, too");
    has_str(b.refused.text, "not trusted here", "why");
    is_str(b.refused.address, "127.0.0.1", "and from where");
    sides_run(all, 3, 300);
    wire_net_stats(b.net, &stats);
    ok(stats.refused_key == 1 && stats.refused_garbage == 0, "counted once");
    ok(a.n_down == 0 && b.n_down == 0 && b.n_up == 1, "nothing else is disturbed");

    struct wire_dial wrong = {.endpoint = b.endpoint, .purpose = LINK_CONTROL, .key = keys_public(c.keys)};
    a.n_down = 0;
    wire_dial(a.wire, &wrong, NULL);
    ok(sides_until(all, 3, &a.n_down, 1, SIDES_WAIT_MS), "a listener with another key than expected is not talked to");
    has_str(a.down.text, "another key", "and that is said");
    side_close(&a);
    side_close(&b);
    side_close(&c);
}

static void test_removed_while_up(void)
{
    struct side a, b, c;
    struct side *all[] = {&a, &b, &c};
    struct err err;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    side_open(&c, "gamma", NULL);
    sides_trust(&a, &b);
    sides_trust(&c, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    side_dial(&a, &b, LINK_DATA);
    side_dial(&c, &b, LINK_DATA);
    sides_until(all, 3, &b.n_up, 2, SIDES_WAIT_MS);
    sides_until(all, 3, &a.n_up, 1, SIDES_WAIT_MS);
    keys_distrust(b.keys, "alpha", &err);
    ok(sides_until(all, 3, &a.n_down, 1, 2000) && sides_until(all, 3, &b.n_down, 1, 2000), "a key that is removed loses its links");
    has_str(a.down.text, "no longer trusted", "it is told why");
    is_str(b.down.name, "alpha", "and only it");
    is_int(c.n_down, 0, "others stay");
    side_dial(&a, &b, LINK_DATA);
    ok(sides_until(all, 3, &a.n_down, 2, SIDES_WAIT_MS), "it is not let in again");
    keys_trust(b.keys, "alpha", keys_public(a.keys), &err);
    side_dial(&a, &b, LINK_DATA);
    ok(sides_until(all, 3, &a.n_up, 2, SIDES_WAIT_MS), "until it is trusted again: at once");
    side_close(&a);
    side_close(&b);
    side_close(&c);
}

static void test_grants(void)
{
    struct side a, b;
    struct err err;

    side_open(&a, "granted", NULL);
    side_open(&b, "granter", NULL);
    side_listen(&b, "tcp://127.0.0.1:*");
    ok(wire_net_grant(b.net, "granted", keys_public(a.keys), 1u << LINK_DATA, &err) == 0, "a key is granted data links");
    side_dial(&a, &b, LINK_DATA);
    ok(until2(&a, &b, b.n_up, 1), "it may open one");
    is_str(wire_link_node(b.up.link), "granted", "under the name it was granted by");
    side_dial(&a, &b, LINK_CONTROL);
    ok(until2(&a, &b, a.n_down, 1), "but no control link");
    has_str(a.down.text, "may not open a control link", "and is told so");
    wire_net_revoke(b.net, "granted");
    ok(until2(&a, &b, b.n_down, 1), "revoked, its link goes down");
    side_close(&a);
    side_close(&b);
}

static int connect_to(const char *endpoint)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_port = htons((uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10));
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool closed_by_peer(int fd, struct side **all, size_t n, int ms)
{
    for (int waited = 0; waited < ms; waited += 20) {
        char buf[256];
        ssize_t got = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            return true;
        sides_run(all, n, 20);
    }
    return false;
}

static void test_garbage(void)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    struct side a, b;
    struct side *all[] = {&a, &b};
    struct wire_stats stats;
    struct err err;
    uint8_t noise[4096];
    int fds[WIRE_MAX_PENDING + 40], silent;
    unsigned cut = 0;

    side_open(&a, "alpha", NULL);
    side_open(&b, "beta", NULL);
    sides_trust(&a, &b);
    side_listen(&b, "tcp://127.0.0.1:*");
    struct wire_link *link = side_dial(&a, &b, LINK_DATA);
    until2(&a, &b, b.n_up, 1);
    srand(1);
    for (int i = 0; i < 20; i++) {
        int fd = connect_to(b.endpoint);
        for (size_t j = 0; j < sizeof noise; j++)
            noise[j] = (uint8_t)(rand() >> 7);
        ssize_t n = i == 0 ? send(fd, http, sizeof http - 1, MSG_NOSIGNAL) : send(fd, noise, (size_t)(i * 97), MSG_NOSIGNAL);
        (void)n;
        if (i == 0)
            ok(closed_by_peer(fd, all, 2, 8000), "HTTP on the port is hung up on");
        close(fd);
    }
    ok(until2(&a, &b, b.n_refused, 1), "garbage on the port is told of");
    has_str(b.refused.address, "127.0.0.1:", "with its address");
    sides_run(all, 2, 1500);
    wire_net_stats(b.net, &stats);
    is_int(stats.refused_garbage, 20, "and counted");
    ok(b.n_refused <= 2 * WIRE_MAX_REFUSED_EVENTS, "without flooding the log (%u events)", b.n_refused);

    silent = connect_to(b.endpoint);
    ok(closed_by_peer(silent, all, 2, WIRE_HANDSHAKE_MS + 3000), "who connects and says nothing is hung up on");
    close(silent);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        fds[i] = connect_to(b.endpoint);
        sides_run(all, 2, 2);
    }
    sides_run(all, 2, 300);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        char buf[256];
        ssize_t got;
        while ((got = recv(fds[i], buf, sizeof buf, MSG_DONTWAIT)) > 0)
            ;
        cut += got == 0 || errno != EAGAIN;
    }
    ok(cut >= 40 && cut <= 42, "of %zu silent connections %u are cut at once", sizeof fds / sizeof *fds, cut);
    side_dial(&a, &b, LINK_BULK);
    ok(until2(&a, &b, a.n_up, 2), "meanwhile who is known comes in");
    struct msg m = {.type = MSG_CREDIT};
    ok(wire_send_msg(link, &m, NULL, 0, NULL, NULL, &err) == WIRE_SENT && until2(&a, &b, b.n_frames, 1), "and links work");
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    is_int(a.n_down + b.n_down, 0, "no link was disturbed by any of it");
    side_close(&a);
    side_close(&b);
}

static void test_plaintext(void)
{
    struct side a, b;
    struct wire_net *bare;
    struct wire *w;
    struct err err;

    side_open(&a, "alpha", NULL);
    side_listen(&a, "tcp://127.0.0.1:*");
    bare = wire_net_create(&(struct wire_net_options){.node = "bare"}, &err);
    w = wire_create(bare, &err);
    ok(wire_listen(w, "tcp://127.0.0.1:*", NULL, &err) != 0, "without keys nothing listens on tcp");
    ok(!wire_dial(w, &(struct wire_dial){.endpoint = a.endpoint, .purpose = LINK_CONTROL}, &err), "nor dials it");
    wire_destroy(w);
    wire_net_destroy(bare);
    side_open(&b, "plain", &(struct wire_net_options){.plaintext_tcp_for_tests = true});
    side_dial(&b, &a, LINK_CONTROL);
    ok(until2(&a, &b, b.n_down, 1), "a peer without CURVE gets nowhere: %s", b.down.text);
    is_int(a.n_up, 0, "not even a greeting");
    side_close(&a);
    side_close(&b);
}

/* --- invitations ----------------------------------------------------------------------------------------------------------- */
struct join {
    struct keys *keys;
    const char *token;
    struct wire_joined joined;
    struct err err;
    int rc;
    atomic_bool done;
};

static void *join_main(void *arg)
{
    struct join *j = arg;

    j->rc = wire_join(j->keys, j->token, 5000, &j->joined, &j->err);
    atomic_store(&j->done, true);
    return NULL;
}

/* Joins while the coordinator's side is polled. */
static int join_now(struct side *coordinator, struct join *j)
{
    pthread_t thread;

    atomic_store(&j->done, false);
    pthread_create(&thread, NULL, join_main, j);
    while (!atomic_load(&j->done))
        sides_run(&coordinator, 1, 20);
    pthread_join(thread, NULL);
    return j->rc;
}

static void test_token(void)
{
    char token[INVITE_MAX_TOKEN], bad[INVITE_MAX_TOKEN], dir[200];
    const char *addresses[] = {"tcp://192.168.1.10:7100", "tcp://tower.local:7100"};
    struct invite in;
    struct err err;
    struct keys *k;
    uint64_t now = (uint64_t)time(NULL);
    unsigned accepted = 0;

    snprintf(dir, sizeof dir, "%s/token", sides_folder());
    k = keys_open(dir, "c", &err);
    if (!ok(invite_create(k, addresses, 2, 3600, token, &err) == 0, "an invitation of %zu characters", strlen(token)))
        return;
    is_int(strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), strlen(token), "letters, digits, - and _");
    ok(invite_parse(token, now, &in, &err) == 0 && in.n_addresses == 2 && strcmp(in.addresses[1], addresses[1]) == 0 &&
           memcmp(in.key, keys_public(k), KEY_BYTES) == 0 && in.expires_s >= now + 3599,
       "it says what went in");
    ok(invite_parse(token, now + 3700, &in, &err) != 0 && strstr(err.text, "expired"), "later it has expired: %s", err.text);
    for (size_t i = 0; token[i]; i++) {
        snprintf(bad, sizeof bad, "%s", token);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        accepted += invite_parse(bad, now, &in, &err) == 0;
        bad[i] = '\0';
        accepted += invite_parse(bad, now, &in, &err) == 0;
    }
    is_int(accepted, 0, "a wrong character or a cut anywhere is noticed");
    is_int(invite_count(k, now), 1, "one is open");
    is_int(invite_count(k, now + 3700), 0, "none when it has expired");
    ok(invite_create(k, addresses, 0, 60, token, &err) != 0 && invite_create(k, addresses, 1, 0, token, &err) != 0 &&
           invite_create(k, (const char *[]){"ipc:///x"}, 1, 60, token, &err) != 0,
       "no address, no time, no tcp: %s", err.text);
    keys_close(k);
}

static void test_joining(void)
{
    char token[INVITE_MAX_TOKEN], dir[200];
    struct side c;
    struct join j = {.token = token};
    struct wire_stats stats;
    struct err err;

    side_open(&c, "boss", &(struct wire_net_options){.registrations = true});
    side_listen(&c, "tcp://127.0.0.1:*");
    snprintf(dir, sizeof dir, "%s/joiner", sides_folder());
    j.keys = keys_open(dir, "joiner", &err);
    const char *addresses[] = {"tcp://127.0.0.1:1", c.endpoint};
    invite_create(c.keys, addresses, 2, 60, token, &err);
    if (!ok(join_now(&c, &j) == 0, "an invited node registers itself %s", j.err.text))
        return;
    is_str(j.joined.coordinator, "boss", "it learns whom it joined");
    is_str(j.joined.address, c.endpoint, "and which address answered");
    uint8_t key[KEY_BYTES];
    ok(keys_lookup(j.keys, "boss", key) && memcmp(key, keys_public(c.keys), KEY_BYTES) == 0, "it trusts the coordinator");
    ok(keys_lookup(c.keys, "joiner", key) && memcmp(key, keys_public(j.keys), KEY_BYTES) == 0, "which trusts it");
    is_int(c.n_registered, 1, "and is told");
    is_str(c.registered.name, "joiner", "of whom");
    is_int(c.n_up, 0, "a registration is no link");

    ok(join_now(&c, &j) != 0 && strstr(j.err.text, "used already"), "a second use is refused: %s", j.err.text);
    wire_net_stats(c.net, &stats);
    is_int(stats.refused_invite, 1, "and counted");
    keys_close(j.keys);

    /* A stranger, while an invitation of somebody else is open, can do nothing else. */
    struct side s;
    invite_create(c.keys, addresses + 1, 1, 60, token, &err);
    side_open(&s, "stranger", NULL);
    side_dial(&s, &c, LINK_CONTROL);
    ok(until2(&s, &c, s.n_down, 1), "a stranger gets no link though an invitation is open");
    has_str(s.down.text, "register it by an invitation", "and is told how");
    /* The same name again. */
    j.keys = s.keys;
    keys_set_name(s.keys, "joiner", &err);
    ok(join_now(&c, &j) != 0 && strstr(j.err.text, "another key is known as"), "a name that is taken is refused: %s", j.err.text);
    keys_set_name(s.keys, "second", &err);
    ok(join_now(&c, &j) == 0, "the invitation is still good for another name %s", j.err.text);
    side_dial(&s, &c, LINK_CONTROL);
    s.n_up = 0;
    ok(until2(&s, &c, s.n_up, 1), "and then it may connect");
    is_str(wire_link_node(c.up.link), "second", "under the name it registered");
    side_close(&s);
    side_close(&c);
}

static void test_expired(void)
{
    char token[INVITE_MAX_TOKEN], dir[200];
    uint8_t key[KEY_BYTES] = {9};
    struct invite in;
    struct err err;
    struct keys *k;
    uint64_t now = (uint64_t)time(NULL);

    snprintf(dir, sizeof dir, "%s/expired", sides_folder());
    k = keys_open(dir, "c", &err);
    invite_create(k, (const char *[]){"tcp://1.2.3.4:5"}, 1, 60, token, &err);
    invite_parse(token, now, &in, &err);
    ok(invite_redeem(k, in.secret, "late", key, now + 100, &err) != 0 && strstr(err.text, "expired"), "too late: %s", err.text);
    uint8_t wrong[INVITE_SECRET_BYTES] = {1};
    ok(invite_redeem(k, wrong, "x", key, now, &err) != 0 && strstr(err.text, "not known"), "a made-up secret: %s", err.text);
    ok(invite_redeem(k, in.secret, "in-time", key, now, &err) == 0, "in time");
    ok(invite_redeem(k, in.secret, "in-time", key, now, &err) != 0 && strstr(err.text, "used already"), "once");
    keys_close(k);
}

int main(void)
{
    test_folder();
    test_keys_text();
    test_list();
    test_unknown_key();
    test_removed_while_up();
    test_grants();
    test_garbage();
    test_plaintext();
    test_token();
    test_joining();
    test_expired();
    return tap_done();
}
