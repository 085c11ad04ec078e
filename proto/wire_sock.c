/* libzmq's sockets as the wire uses them: options, keys, monitors. */
#include "proto/wire_int.h"

#include <stdio.h>
#include <string.h>

int sock_failed(const char *what, struct err *err)
{
    return err_set(err, ERR_IO, "%s: %s%s", what, zmq_strerror(zmq_errno()),
                   zmq_errno() == EMFILE ? "; every link takes a few: raise it (ulimit -Hn, LimitNOFILE= in a unit)" : "");
}

int sock_set_int(void *z, int option, int value)
{
    return zmq_setsockopt(z, option, &value, sizeof value);
}

static int set_common(void *z, int64_t max_bytes, struct err *err)
{
    static const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_IMMEDIATE, 1},
        {ZMQ_SNDHWM, WIRE_SEND_QUEUE},
        {ZMQ_RCVHWM, WIRE_SEND_QUEUE},
        {ZMQ_RECONNECT_IVL, -1},
        {ZMQ_HANDSHAKE_IVL, WIRE_HANDSHAKE_MS},
        {ZMQ_HEARTBEAT_IVL, 0}, /* see wire_alive.c */
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 5},
        {ZMQ_TCP_KEEPALIVE_INTVL, 2},
        {ZMQ_TCP_KEEPALIVE_CNT, 3},
        {ZMQ_BACKLOG, BACKLOG},
    };

    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (sock_set_int(z, options[i].option, options[i].value) != 0)
            return sock_failed("libzmq: socket option", err);
    if (zmq_setsockopt(z, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes) != 0)
        return sock_failed("libzmq: ZMQ_MAXMSGSIZE", err);
    return 0;
}

/* peer: the key of whom we dial; NULL: we are the one that is dialed. Keys and checks are the same either way. */
int sock_set_curve(struct wire_net *net, void *z, const uint8_t *peer, struct err *err)
{
    bool good = zmq_setsockopt(z, ZMQ_CURVE_SECRETKEY, keys_secret(net->keys), KEY_BYTES) == 0;

    if (peer)
        good = good && zmq_setsockopt(z, ZMQ_CURVE_PUBLICKEY, keys_public(net->keys), KEY_BYTES) == 0 &&
               zmq_setsockopt(z, ZMQ_CURVE_SERVERKEY, peer, KEY_BYTES) == 0;
    else /* were the authentication's thread gone, libzmq would let anybody in, but without the user id that wire_greet() asks for */
        good = good && sock_set_int(z, ZMQ_CURVE_SERVER, 1) == 0 && zmq_setsockopt(z, ZMQ_ZAP_DOMAIN, "stagecoach", 10) == 0;
    return good ? 0 : sock_failed("libzmq: CURVE keys", err);
}

static int fd_of(void *z)
{
    int fd = -1;
    size_t len = sizeof fd;

    return zmq_getsockopt(z, ZMQ_FD, &fd, &len) == 0 ? fd : -1;
}

/* A socket of a type with its monitor, not yet bound or connected. */
int sock_open(struct wire *w, struct sock *s, int type, int64_t max_bytes, struct err *err)
{
    static atomic_uint serial;
    char name[64];

    *s = (struct sock){.fd = -1, .monitor_fd = -1};
    snprintf(name, sizeof name, "inproc://monitor-%u", atomic_fetch_add(&serial, 1));
    s->z = zmq_socket(w->net->ctx, type);
    s->monitor = zmq_socket(w->net->ctx, ZMQ_PAIR);
    if (!s->z || !s->monitor)
        return sock_failed("libzmq: no more sockets", err);
    if (set_common(s->z, max_bytes, err) != 0)
        return -1;
    sock_set_int(s->monitor, ZMQ_LINGER, 0);
    sock_set_int(s->monitor, ZMQ_RCVHWM, 0); /* its events are few and must not be lost */
    if (zmq_socket_monitor(s->z, name, ZMQ_EVENT_ALL) != 0 || zmq_connect(s->monitor, name) != 0)
        return sock_failed("libzmq: monitor", err);
    s->fd = fd_of(s->z);
    s->monitor_fd = fd_of(s->monitor);
    s->check = s->check_monitor = true;
    return s->fd < 0 || s->monitor_fd < 0 ? sock_failed("libzmq: descriptor", err) : 0;
}

void sock_close(struct sock *s, int linger_ms)
{
    if (s->z) {
        sock_set_int(s->z, ZMQ_LINGER, linger_ms);
        zmq_socket_monitor(s->z, NULL, 0);
        zmq_close(s->z);
    }
    if (s->monitor)
        zmq_close(s->monitor);
    *s = (struct sock){.fd = -1, .monitor_fd = -1};
}

/* Receives one event of a monitor. Returns its kind, 0 when there is none. */
int sock_monitor_event(struct sock *s, int32_t *ret_value)
{
    uint8_t head[6] = {0};
    char endpoint[MSG_MAX_ADDRESS];
    uint16_t kind;

    if (!s->monitor || zmq_recv(s->monitor, head, sizeof head, ZMQ_DONTWAIT) != sizeof head) {
        s->check_monitor = false;
        return 0;
    }
    zmq_recv(s->monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    memcpy(&kind, head, sizeof kind);
    memcpy(ret_value, head + 2, sizeof *ret_value);
    return kind;
}
