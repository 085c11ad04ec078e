/* Accepted connections: see wire_int.h. */
#include "proto/wire_int.h"

#include <arpa/inet.h>
#include <linux/tcp.h> /* the C library's struct tcp_info ends before the bytes */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

enum { CONNS_MAX = WIRE_MAX_LINKS + 4 * WIRE_MAX_PENDING };

/* 0: the descriptor is no socket (any more). */
uint64_t conn_cookie(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;

    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 ? cookie : 0;
}

static void address_of(int fd, char *buf, size_t cap)
{
    struct peer_address peer = {.len = sizeof peer.room};
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer.room;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&peer.room;
    char ip[INET6_ADDRSTRLEN];

    snprintf(buf, cap, "unknown");
    if (!accept_take(fd, &peer) && getpeername(fd, (struct sockaddr *)&peer.room, &peer.len) != 0)
        return;
    if (peer.room.ss_family == AF_UNIX)
        snprintf(buf, cap, "ipc");
    else if (peer.room.ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip))
        snprintf(buf, cap, "%s:%u", ip, ntohs(v4->sin_port));
    else if (peer.room.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], ip, sizeof ip))
        snprintf(buf, cap, "%s:%u", ip, ntohs(v6->sin6_port)); /* IPv4's, at a port of IPv6 that takes both */
    else if (peer.room.ss_family == AF_INET6 && inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof ip))
        snprintf(buf, cap, "[%s]:%u", ip, ntohs(v6->sin6_port));
}

struct conn *conns_find(struct conns *cs, int fd)
{
    for (size_t i = 0; i < cs->len; i++)
        if (cs->items[i].fd == fd)
            return &cs->items[i];
    return NULL;
}

struct conn *conns_add(struct conns *cs, int fd, struct err *err)
{
    struct conn *c = conns_find(cs, fd);

    if (!c) {
        if (mem_grow(&cs->items, &cs->cap, cs->len + 1, sizeof *cs->items, CONNS_MAX, "connections", err) != 0)
            return NULL;
        c = &cs->items[cs->len++];
    }
    *c = (struct conn){.fd = fd, .cookie = conn_cookie(fd), .since_us = wire_now_us()};
    address_of(fd, c->address, sizeof c->address);
    return c;
}

void conns_remove(struct conns *cs, struct conn *c)
{
    *c = cs->items[--cs->len];
}

struct conn *conns_oldest_pending(struct conns *cs, size_t max)
{
    struct conn *oldest = NULL;
    size_t n = 0;

    for (size_t i = 0; i < cs->len; i++) {
        struct conn *c = &cs->items[i];
        if (c->link || c->kill_us)
            continue;
        n++;
        if (!oldest || c->since_us < oldest->since_us)
            oldest = c;
    }
    return n > max ? oldest : NULL;
}

bool conn_is_current(const struct conn *c)
{
    return c->cookie && conn_cookie(c->fd) == c->cookie;
}

bool conn_received(int fd, uint64_t cookie, uint64_t *ret_bytes)
{
    struct tcp_info info;
    socklen_t len = sizeof info;

    if (!cookie || conn_cookie(fd) != cookie || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return false;
    *ret_bytes = info.tcpi_bytes_received;
    return true;
}

void conn_kill(const struct conn *c)
{
    /* Between the two calls libzmq could close the descriptor and the kernel give it to the next connection, which then
     * would be cut and dial again: rare, and harmless. */
    if (conn_is_current(c))
        shutdown(c->fd, SHUT_RDWR);
}

bool conn_is_same_user(const struct conn *c)
{
    struct ucred peer;
    socklen_t len = sizeof peer;

    return getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}
