/* See queue.h. A ring under one mutex: these queues carry whole batches, a few hundred a second. */
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled, drained;
    void **items;
    size_t capacity, first, length;
    bool closed;
};

struct queue *queue_create(size_t capacity, struct err *err)
{
    struct queue *q = mem_new(1, sizeof *q, err);
    if (!q)
        return NULL;
    if (!(q->items = mem_new(capacity, sizeof *q->items, err))) {
        free(q);
        return NULL;
    }
    q->capacity = capacity;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->filled, &attr);
    pthread_cond_init(&q->drained, &attr);
    pthread_condattr_destroy(&attr);
    return q;
}

void queue_destroy(struct queue *q)
{
    if (!q)
        return;
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->filled);
    pthread_cond_destroy(&q->drained);
    free(q->items);
    free(q);
}

static struct timespec deadline_after(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (ms % 1000) * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/* Waits on cond with the lock held; false once the deadline has passed. */
static bool wait_on(struct queue *q, pthread_cond_t *cond, int timeout_ms, const struct timespec *deadline)
{
    if (timeout_ms == 0)
        return false;
    if (timeout_ms < 0)
        return pthread_cond_wait(cond, &q->lock) == 0;
    return pthread_cond_timedwait(cond, &q->lock, deadline) != ETIMEDOUT;
}

int queue_push(struct queue *q, void *item, int timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms > 0 ? timeout_ms : 0);
    int rc = 0;
    pthread_mutex_lock(&q->lock);
    while (!q->closed && q->length == q->capacity && rc == 0)
        if (!wait_on(q, &q->drained, timeout_ms, &deadline))
            rc = 1;
    if (q->closed) {
        rc = -1;
    } else if (q->length < q->capacity) {
        q->items[(q->first + q->length++) % q->capacity] = item;
        pthread_cond_signal(&q->filled);
        rc = 0;
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int queue_pop(struct queue *q, void **ret_item, int timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms > 0 ? timeout_ms : 0);
    int rc = 0;
    pthread_mutex_lock(&q->lock);
    while (!q->closed && q->length == 0 && rc == 0)
        if (!wait_on(q, &q->filled, timeout_ms, &deadline))
            rc = 1;
    if (q->length > 0) {
        *ret_item = q->items[q->first];
        q->first = (q->first + 1) % q->capacity;
        q->length--;
        pthread_cond_signal(&q->drained);
        rc = 0;
    } else if (q->closed) {
        rc = -1;
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_cond_broadcast(&q->drained);
    pthread_mutex_unlock(&q->lock);
}

size_t queue_length(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->length;
    pthread_mutex_unlock(&q->lock);
    return n;
}
