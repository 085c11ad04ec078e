/* The process's part of the wire: libzmq's context, who may connect, and the thread that answers for it (ZAP,
 * rfc.zeromq.org/spec/27). libzmq asks it for every CURVE handshake; it knows trusted/ and the grants, looks for changes of
 * the folder twice a second, and then wakes every wire, which closes what is no longer allowed. */
#include "proto/wire_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/hostport.h"
#include "base/mem.h"
#include "base/sysinfo.h"
#include "proto/files.h"
#include "proto/invite.h"

enum {
    ZAP_PARTS = 7,        /* of a request: version, id, domain, address, routing id, mechanism, key */
    RELOAD_LEAST_MS = 20, /* between two looks at the folder for keys that are not known */
    MAX_SOCKETS = 4 * WIRE_MAX_LINKS,
    MAX_IO_THREADS = 16,
    IPC_PATH_MAX = 107, /* sockaddr_un */
};

uint64_t wire_now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- addresses --------------------------------------------------------------------------------------------------------- */
int endpoint_check(const char *endpoint, bool listening, struct err *err)
{
    char host[256], shown[128];
    const char *port = NULL;
    unsigned char ip[16];

    err_printable(shown, sizeof shown, endpoint, strlen(endpoint));
    if (strlen(endpoint) > MSG_MAX_ADDRESS)
        return err_set(err, ERR_USAGE, "address \"%s\" is longer than %d bytes", shown, MSG_MAX_ADDRESS);
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        if (endpoint[6] == '/' && strlen(endpoint + 6) <= IPC_PATH_MAX)
            return 0;
        return err_set(err, ERR_USAGE, "address \"%s\": behind ipc:// comes an absolute path of at most %d bytes", shown, IPC_PATH_MAX);
    }
    if (strncmp(endpoint, "tcp://", 6) != 0 || !hostport_split(endpoint + 6, host, sizeof host, &port))
        return err_set(err, ERR_USAGE, "address \"%s\": tcp://%s:PORT, tcp://[IPv6]:PORT or ipc:///PATH is needed", shown, listening ? "IP" : "HOST");
    if (!hostport_port_valid(port, listening))
        return err_set(err, ERR_USAGE, "address \"%s\": the port is no number from 1 to 65535", shown);
    if (!listening && hostport_is_anywhere(host))
        return err_set(err, ERR_USAGE, "address \"%s\": %.60s is every address of a machine, good only to listen at; name one that others can dial", shown, host);
    if (inet_pton(AF_INET, host, ip) != 1 && inet_pton(AF_INET6, host, ip) != 1 && !(listening && strcmp(host, "*") == 0))
        return err_set(err, ERR_USAGE, "address \"%s\": \"%.60s\" is no %s", shown, host, listening ? "IP address" : "host");
    return 0;
}

int wire_address_check(const char *endpoint, bool listening, struct err *err)
{
    char host[256];
    const char *port;

    if (!listening && strncmp(endpoint, "tcp://", 6) == 0 && strlen(endpoint) <= MSG_MAX_ADDRESS && hostport_split(endpoint + 6, host, sizeof host, &port) &&
        hostport_port_valid(port, false) && hostport_host_valid(host) && !hostport_is_anywhere(host))
        return 0;
    return endpoint_check(endpoint, listening, err);
}

bool wire_address_seen(const char *said, const struct wire_link *link, char ret[MSG_MAX_ADDRESS + 1])
{
    const char *from = wire_link_address(link);
    char host[MSG_MAX_ADDRESS + 1], own[MSG_MAX_ADDRESS + 1], text[2 * MSG_MAX_ADDRESS];
    const char *port, *unused;

    snprintf(ret, MSG_MAX_ADDRESS + 1, "%s", said);
    if (strncmp(said, "tcp://", 6) != 0 || !hostport_split(said + 6, host, sizeof host, &port) || !hostport_is_anywhere(host))
        return false;
    ret[0] = '\0';
    if (!hostport_split(from, own, sizeof own, &unused) || hostport_is_anywhere(own))
        return true;
    bool six = strchr(own, ':') != NULL;
    /* All of IPv4's do not answer by IPv6, and a link-local address means nothing without its interface. */
    if (six && (!strchr(host, ':') || strncasecmp(own, "fe80:", 5) == 0))
        return true;
    if (snprintf(text, sizeof text, six ? "tcp://[%s]:%s" : "tcp://%s:%s", own, port) <= MSG_MAX_ADDRESS)
        memcpy(ret, text, strlen(text) + 1);
    return true;
}

bool wire_address_loopback(const char *address)
{
    char host[MSG_MAX_ADDRESS + 1];
    const char *port, *at = strncmp(address, "tcp://", 6) == 0 ? address + 6 : address;

    if (strncmp(address, "ipc", 3) == 0)
        return true;
    return hostport_split(at, host, sizeof host, &port) && hostport_is_loopback(host);
}

/* --- whom we trust ------------------------------------------------------------------------------------------------------- */
static bool granted(struct wire_net *net, const uint8_t *key, char *ret_name, unsigned *ret_purposes)
{
    bool found = false;

    pthread_mutex_lock(&net->lock);
    for (size_t i = 0; i < net->n_grants && !found; i++)
        if (memcmp(net->grants[i].key, key, KEY_BYTES) == 0) {
            memcpy(ret_name, net->grants[i].name, sizeof net->grants[i].name);
            *ret_purposes = net->grants[i].purposes;
            found = true;
        }
    pthread_mutex_unlock(&net->lock);
    return found;
}

bool net_allows(struct wire_net *net, const uint8_t *key, char ret_name[MSG_MAX_NAME + 1], unsigned *ret_purposes)
{
    if (net->keys && keys_find(net->keys, key, ret_name)) {
        *ret_purposes = NET_ALL_PURPOSES;
        return true;
    }
    return granted(net, key, ret_name, ret_purposes);
}

/* Whom we trust has changed: every wire looks through its links. */
static void wake_wires(struct wire_net *net)
{
    atomic_fetch_add(&net->generation, 1);
    pthread_mutex_lock(&net->lock);
    for (struct wire *w = net->wires; w; w = *wire_next_slot(w))
        wire_wake(w);
    pthread_mutex_unlock(&net->lock);
}

int wire_net_grant(struct wire_net *net, const char *name, const uint8_t *key, unsigned purposes, struct err *err)
{
    struct grant *g = NULL;
    int rc = 0;

    if (!msg_name_valid(name))
        return err_set(err, ERR_INPUT, "a node's name is 1 to %d letters, digits, dots, dashes", MSG_MAX_NAME);
    pthread_mutex_lock(&net->lock);
    for (size_t i = 0; i < net->n_grants && !g; i++)
        if (strcmp(net->grants[i].name, name) == 0)
            g = &net->grants[i];
    if (!g && (rc = mem_grow(&net->grants, &net->grants_cap, net->n_grants + 1, sizeof *net->grants, NET_MAX_GRANTS, "granted keys", err)) == 0)
        g = &net->grants[net->n_grants++];
    if (g) {
        *g = (struct grant){.purposes = purposes};
        snprintf(g->name, sizeof g->name, "%s", name);
        memcpy(g->key, key, KEY_BYTES);
    }
    pthread_mutex_unlock(&net->lock);
    wake_wires(net);
    return rc;
}

void wire_net_revoke(struct wire_net *net, const char *name)
{
    pthread_mutex_lock(&net->lock);
    for (size_t i = 0; i < net->n_grants; i++)
        if (strcmp(net->grants[i].name, name) == 0) {
            net->grants[i] = net->grants[--net->n_grants];
            break;
        }
    pthread_mutex_unlock(&net->lock);
    wake_wires(net);
}

/* Somebody else of this process may have read the folder again, too: hence the version. Only the authentication's thread
 * calls this. */
static void reload(struct wire_net *net)
{
    uint64_t version;

    keys_reload(net->keys, NULL, NULL);
    version = keys_version(net->keys);
    if (version == net->keys_version)
        return;
    net->keys_version = version;
    wake_wires(net);
}

/* --- the thread that answers ----------------------------------------------------------------------------------------------- */
/* Tells one wire that listens; the first will do. */
static void note_refused(struct wire_net *net, const char *address, const char *text)
{
    struct wire *w;

    pthread_mutex_lock(&net->lock);
    for (w = net->wires; w && !wire_is_listening(w); w = *wire_next_slot(w))
        ;
    if (w)
        wire_note_refused(w, REFUSED_KEY, address, text);
    pthread_mutex_unlock(&net->lock);
}

/* Whether a handshake may go on. A key that nobody knows may while an invitation is open: it can do nothing but register. */
static bool may_connect(struct wire_net *net, const uint8_t *key, uint64_t *last_reload_us)
{
    char name[MSG_MAX_NAME + 1];
    unsigned purposes;

    if (net_allows(net, key, name, &purposes))
        return true;
    if (wire_now_us() - *last_reload_us >= RELOAD_LEAST_MS * 1000) { /* it may have been added just now */
        reload(net);
        *last_reload_us = wire_now_us();
        if (net_allows(net, key, name, &purposes))
            return true;
    }
    return net->registrations && invite_count(net->keys, (uint64_t)time(NULL)) > 0;
}

static void send_part(void *socket, const void *data, size_t len, bool more)
{
    zmq_send(socket, data, len, more ? ZMQ_SNDMORE : 0);
}

static void refuse_key(struct wire_net *net, const uint8_t *key, const char *ip)
{
    char text[256], digits[KEY_TEXT], shown[64];

    err_printable(shown, sizeof shown, ip, strlen(ip));
    snprintf(text, sizeof text, "the key %s is not trusted here: an invitation or a file trusted/NAME.pub would admit it",
             key ? key_format(key, digits) : "(none)");
    note_refused(net, shown, text);
}

/* One request; -1: there is none. */
static int answer(struct wire_net *net, uint64_t *last_reload_us)
{
    char parts[ZAP_PARTS][256] = {{0}};
    size_t lens[ZAP_PARTS] = {0};
    int n = 0, more = 1;
    size_t more_len = sizeof more;

    while (more) {
        char extra[256];
        char *to = n < ZAP_PARTS ? parts[n] : extra;
        int len = zmq_recv(net->zap, to, sizeof extra - 1, ZMQ_DONTWAIT);
        if (len < 0)
            return -1;
        len = len < (int)sizeof extra - 1 ? len : (int)sizeof extra - 1;
        to[len] = '\0';
        if (n < ZAP_PARTS)
            lens[n] = (size_t)len;
        n++;
        zmq_getsockopt(net->zap, ZMQ_RCVMORE, &more, &more_len);
    }
    const uint8_t *key = n == ZAP_PARTS && strcmp(parts[5], "CURVE") == 0 && lens[6] == KEY_BYTES ? (const uint8_t *)parts[6] : NULL;
    bool allowed = key && may_connect(net, key, last_reload_us);
    char user[KEY_TEXT] = "";
    if (allowed)
        key_format(key, user);
    else
        refuse_key(net, key, n > 3 ? parts[3] : "unknown");
    send_part(net->zap, "1.0", 3, true);
    send_part(net->zap, parts[1], lens[1], true);
    send_part(net->zap, allowed ? "200" : "400", 3, true);
    send_part(net->zap, allowed ? "" : "key", allowed ? 0 : 3, true);
    send_part(net->zap, user, strlen(user), true);
    send_part(net->zap, "", 0, false);
    return 0;
}

static void *zap_main(void *arg)
{
    struct wire_net *net = arg;
    zmq_pollitem_t items[] = {{net->zap, 0, ZMQ_POLLIN, 0}, {NULL, net->stop_fd, ZMQ_POLLIN, 0}};
    uint64_t last_reload_us = wire_now_us();

    for (;;) {
        if (zmq_poll(items, 2, NET_RELOAD_MS) < 0 && errno != EINTR)
            break;
        if (items[1].revents)
            break;
        while (answer(net, &last_reload_us) == 0)
            ;
        if (wire_now_us() - last_reload_us >= NET_RELOAD_MS * 1000) {
            reload(net);
            last_reload_us = wire_now_us();
        }
    }
    zmq_close(net->zap);
    return NULL;
}

static int start_zap(struct wire_net *net, struct err *err)
{
    int zero = 0, rc;

    net->zap = zmq_socket(net->ctx, ZMQ_REP);
    if (!net->zap || zmq_setsockopt(net->zap, ZMQ_LINGER, &zero, sizeof zero) != 0 || zmq_bind(net->zap, "inproc://zeromq.zap.01") != 0)
        return err_set(err, ERR_INTERNAL, "libzmq: the authentication's socket: %s", zmq_strerror(zmq_errno()));
    rc = pthread_create(&net->zap_thread, NULL, zap_main, net);
    if (rc != 0)
        return err_errno(err, rc, "starting the authentication's thread");
    net->zap_running = true;
    return 0;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */
static int set_up(struct wire_net *net, const struct wire_net_options *o, struct err *err)
{
    const char *node = o->node ? o->node : o->keys ? keys_name(o->keys) : "node";

    if (!msg_name_valid(node))
        return err_set(err, ERR_USAGE, "a node's name is 1 to %d letters, digits, dots, dashes, the first a letter or digit", MSG_MAX_NAME);
    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium does not start");
    snprintf(net->node, sizeof net->node, "%s", node);
    net->keys = o->keys;
    net->registrations = o->registrations && o->keys;
    net->plaintext = o->plaintext_tcp_for_tests && !o->keys;
    net->protocol_min = o->protocol_min ? o->protocol_min : PROTOCOL_MIN;
    net->protocol_max = o->protocol_max ? o->protocol_max : PROTOCOL_MAX;
    net->io_threads = o->io_threads ? o->io_threads : 2;
    net->io_threads = net->io_threads > MAX_IO_THREADS ? MAX_IO_THREADS : net->io_threads;
    net->instance = o->instance;
    while (net->instance == 0)
        randombytes_buf(&net->instance, sizeof net->instance);
    /* Where libzmq cannot have a descriptor for a thread of its own it ends the whole process. */
    uint64_t files = sysinfo_allow_files();
    if (files < WIRE_LEAST_FILES)
        return err_set(err, ERR_LIMIT, "this process may open %" PRIu64 " files; links need at least %d: raise it (ulimit -Hn, LimitNOFILE= in a unit)", files, WIRE_LEAST_FILES);
    net->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (net->stop_fd < 0)
        return err_errno(err, errno, "eventfd");
    net->ctx = zmq_ctx_new();
    if (!net->ctx || zmq_ctx_set(net->ctx, ZMQ_IO_THREADS, (int)net->io_threads) != 0 || zmq_ctx_set(net->ctx, ZMQ_MAX_SOCKETS, MAX_SOCKETS) != 0)
        return err_set(err, ERR_INTERNAL, "libzmq: %s", zmq_strerror(zmq_errno()));
    if (net->keys && !zmq_has("curve"))
        return err_set(err, ERR_UNSUPPORTED, "this libzmq was built without CURVE, so nothing could be encrypted: install the distribution's");
    return net->keys ? start_zap(net, err) : 0;
}

struct wire_net *wire_net_create(const struct wire_net_options *options, struct err *err)
{
    struct wire_net *net = mem_new(1, sizeof *net, err);

    if (!net)
        return NULL;
    net->stop_fd = -1;
    pthread_mutex_init(&net->lock, NULL);
    if (set_up(net, options, err) != 0) {
        if (net->zap && !net->zap_running)
            zmq_close(net->zap);
        wire_net_destroy(net);
        return NULL;
    }
    return net;
}

void wire_net_destroy(struct wire_net *net)
{
    uint64_t one = 1;

    if (!net)
        return;
    if (net->zap_running) {
        ssize_t ignored = write(net->stop_fd, &one, sizeof one);
        (void)ignored;
        pthread_join(net->zap_thread, NULL);
    }
    if (net->ctx)
        while (zmq_ctx_term(net->ctx) != 0 && zmq_errno() == EINTR)
            ;
    if (net->stop_fd >= 0)
        close(net->stop_fd);
    pthread_mutex_destroy(&net->lock);
    free(net->grants);
    free(net);
}

uint64_t wire_net_instance(const struct wire_net *net)
{
    return net->instance;
}

const char *wire_net_node(const struct wire_net *net)
{
    return net->node;
}

void net_add_wire(struct wire_net *net, struct wire *w)
{
    pthread_mutex_lock(&net->lock);
    *wire_next_slot(w) = net->wires;
    net->wires = w;
    pthread_mutex_unlock(&net->lock);
}

void net_remove_wire(struct wire_net *net, struct wire *w)
{
    pthread_mutex_lock(&net->lock);
    for (struct wire **at = &net->wires; *at; at = wire_next_slot(*at))
        if (*at == w) {
            *at = *wire_next_slot(w);
            break;
        }
    pthread_mutex_unlock(&net->lock);
}

void wire_net_stats(struct wire_net *net, struct wire_stats *ret)
{
    *ret = (struct wire_stats){
        .accepted = net->accepted,
        .dialed = net->dialed,
        .down = net->down,
        .refused_key = net->refused[REFUSED_KEY],
        .refused_version = net->refused[REFUSED_VERSION],
        .refused_garbage = net->refused[REFUSED_GARBAGE],
        .refused_invite = net->refused[REFUSED_INVITE],
        .refused_other = net->refused[REFUSED_OTHER],
        .registered = net->registered,
        .frames_sent = net->frames_sent,
        .frames_received = net->frames_received,
        .bytes_sent = net->bytes_sent,
        .bytes_received = net->bytes_received,
    };
}
