/* Looks after connections that are suspended, which libmicrohttpd does not: a client that goes away is noticed at once (its
 * side of the socket closes), and a stream that has had nothing to say for a while gets a comment, so that proxies and
 * clients do not take it for dead. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "front/inner.h"

enum { TICK_MS = 500, EVENTS = 64 };

/* One shot: the connection is closed by whom it belongs to. Only for calls whose answer runs: what is computed at once may
 * as well be sent into the void. */
void watch_add(struct call *c)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = c->serial};
    c->was_counted = true;
    atomic_fetch_add(&c->front->n_jobs, 1);
    epoll_ctl(c->front->epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

void watch_remove(struct call *c)
{
    if (!c->was_counted)
        return;
    epoll_ctl(c->front->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    atomic_fetch_sub(&c->front->n_jobs, 1);
    c->was_counted = false;
}

static void set_gone(struct front *f, uint64_t serial)
{
    pthread_mutex_lock(&f->lock);
    for (struct call *c = f->calls; c; c = c->next)
        if (c->serial == serial) {
            pthread_mutex_lock(&c->lock);
            c->gone = true;
            pthread_mutex_unlock(&c->lock);
            call_wake(c);
        }
    pthread_mutex_unlock(&f->lock);
}

static void tick(struct front *f)
{
    int64_t now = front_now_ms();

    pthread_mutex_lock(&f->lock);
    for (struct call *c = f->calls; c; c = c->next) {
        if (now - atomic_load(&c->sent_ms) < FRONT_KEEPALIVE_MS)
            continue;
        pthread_mutex_lock(&c->lock);
        bool due = c->waiting && !c->working && !c->tick;
        c->tick |= due;
        pthread_mutex_unlock(&c->lock);
        if (due)
            call_wake(c);
    }
    pthread_mutex_unlock(&f->lock);
}

static void *watch(void *arg)
{
    struct front *f = arg;
    struct epoll_event events[EVENTS];
    int64_t tick_ms = front_now_ms() + TICK_MS;

    for (;;) {
        int64_t left = tick_ms - front_now_ms();
        int n = epoll_wait(f->epoll_fd, events, EVENTS, left < 0 ? 0 : (int)left);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == 0)
                return NULL; /* told to stop */
            set_gone(f, events[i].data.u64);
        }
        if (front_now_ms() >= tick_ms) {
            tick(f);
            tick_ms = front_now_ms() + TICK_MS;
        }
    }
}

int watch_start(struct front *f, struct err *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    int rc;

    if ((f->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 || (f->stop_fd = eventfd(0, EFD_CLOEXEC)) < 0 ||
        epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, f->stop_fd, &event) != 0)
        return err_errno(err, errno, "watching connections");
    if ((rc = pthread_create(&f->watcher, NULL, watch, f)) != 0)
        return err_errno(err, rc, "starting the thread that watches connections");
    f->watching = true;
    return 0;
}

void watch_stop(struct front *f)
{
    uint64_t one = 1;

    if (f->watching && write(f->stop_fd, &one, sizeof one) == (ssize_t)sizeof one)
        pthread_join(f->watcher, NULL);
    f->watching = false;
    if (f->epoll_fd >= 0)
        close(f->epoll_fd);
    if (f->stop_fd >= 0)
        close(f->stop_fd);
    f->epoll_fd = f->stop_fd = -1;
}
