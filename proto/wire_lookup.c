/* Names of hosts become addresses: see wire_int.h. The C library's resolver blocks, for half a minute where a name server is silent,
 * and nothing cuts it short. So each name has a thread of its own, which may outlive the link that asked; whoever leaves last frees. */
#include "proto/wire_int.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hostport.h"
#include "base/mem.h"

enum { LOOKUP_ADDRESSES = 8, LOOKUPS_MAX = 64 /* at once in a process, those that nobody waits for any more included */ };

struct lookup {
    pthread_mutex_t lock;
    struct wire *wire; /* woken when it is done; NULL: nobody waits any more */
    bool done;         /* the thread has ended, or is about to without looking at this again */
    char host[256], port[8];
    char numeric[LOOKUP_ADDRESSES][MSG_MAX_ADDRESS + 1];
    unsigned n, taken;
    char why[200]; /* there is none */
};

static atomic_int lookups;

static void lookup_free(struct lookup *l)
{
    pthread_mutex_destroy(&l->lock);
    free(l);
    atomic_fetch_sub(&lookups, 1);
}

/* Those that can be dialed: a link-local one of IPv6 would need its interface. */
static void take_address(struct lookup *l, const struct addrinfo *a)
{
    char ip[INET6_ADDRSTRLEN];

    if (l->n == LOOKUP_ADDRESSES || getnameinfo(a->ai_addr, a->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST) != 0 || strchr(ip, '%'))
        return;
    snprintf(l->numeric[l->n++], sizeof l->numeric[0], a->ai_family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s", ip, l->port);
}

static void *look_up(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    int rc = getaddrinfo(l->host, NULL, &hints, &list);

    if (rc != 0)
        snprintf(l->why, sizeof l->why, "the host \"%.100s\" was not found: %s", l->host, gai_strerror(rc));
    for (const struct addrinfo *a = rc == 0 ? list : NULL; a; a = a->ai_next)
        take_address(l, a);
    if (rc == 0) {
        freeaddrinfo(list);
        if (l->n == 0)
            snprintf(l->why, sizeof l->why, "the host \"%.100s\" has no address that can be dialed", l->host);
    }
    pthread_mutex_lock(&l->lock);
    bool left = !l->wire;
    l->done = true;
    if (!left)
        wire_wake(l->wire);
    pthread_mutex_unlock(&l->lock);
    if (left)
        lookup_free(l);
    return NULL;
}

struct lookup *lookup_start(struct wire *w, const char *endpoint, struct err *err)
{
    const char *port = NULL;
    pthread_attr_t attr;
    pthread_t thread;
    struct lookup *l;
    int rc;

    if (atomic_fetch_add(&lookups, 1) >= LOOKUPS_MAX) {
        atomic_fetch_sub(&lookups, 1);
        return err_set(err, ERR_BUSY, "%d names of hosts are being looked up, no more are allowed: the name server is silent", LOOKUPS_MAX), NULL;
    }
    if (!(l = mem_new(1, sizeof *l, err))) {
        atomic_fetch_sub(&lookups, 1);
        return NULL;
    }
    pthread_mutex_init(&l->lock, NULL);
    l->wire = w;
    hostport_split(endpoint + strlen("tcp://"), l->host, sizeof l->host, &port);
    snprintf(l->port, sizeof l->port, "%s", port);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    rc = pthread_create(&thread, &attr, look_up, l);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        lookup_free(l);
        return err_errno(err, rc, "starting a thread that looks up \"%.100s\"", endpoint), NULL;
    }
    return l;
}

int lookup_next(struct lookup *l, char ret[MSG_MAX_ADDRESS + 1], struct err *err)
{
    pthread_mutex_lock(&l->lock);
    bool done = l->done;
    pthread_mutex_unlock(&l->lock);
    if (!done)
        return 0;
    if (l->taken == l->n)
        return err_set(err, ERR_NOT_FOUND, "%s", l->n ? "nobody answers there (refused, or no way to it)" : l->why);
    memcpy(ret, l->numeric[l->taken++], MSG_MAX_ADDRESS + 1);
    return 1;
}

void lookup_end(struct lookup *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    bool done = l->done;
    l->wire = NULL;
    pthread_mutex_unlock(&l->lock);
    if (done)
        lookup_free(l);
}
