#include "base/queue.h"

#include <pthread.h>
#include <stdint.h>

#include "tests/tap.h"

enum { ITEMS = 20000 };

static void *produce(void *arg)
{
    for (uintptr_t i = 1; i <= ITEMS; i++)
        if (queue_push(arg, (void *)i, -1) != 0)
            return arg;
    return NULL;
}

static void *wait_forever(void *arg)
{
    void *item;
    return queue_pop(arg, &item, -1) == -1 ? NULL : arg;
}

int main(void)
{
    struct queue *q = queue_create(4, NULL);
    void *item;
    is_int(queue_pop(q, &item, 0), 1, "empty: does not wait with 0");
    is_int(queue_pop(q, &item, 20), 1, "empty: waits a while");
    for (uintptr_t i = 1; i <= 4; i++)
        queue_push(q, (void *)i, 0);
    is_int(queue_push(q, q, 10), 1, "full: times out");
    bool order = true;
    for (uintptr_t i = 1; i <= 4; i++)
        order &= queue_pop(q, &item, 0) == 0 && item == (void *)i;
    ok(order, "first in, first out");

    pthread_t a, b;
    pthread_create(&a, NULL, produce, q);
    pthread_create(&b, NULL, produce, q);
    uint64_t sum = 0;
    for (int i = 0; i < 2 * ITEMS; i++) {
        queue_pop(q, &item, -1);
        sum += (uintptr_t)item;
    }
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    ok(sum == (uint64_t)ITEMS * (ITEMS + 1), "two producers, nothing lost");

    void *rc;
    pthread_create(&a, NULL, wait_forever, q);
    queue_close(q);
    pthread_join(a, &rc);
    ok(rc == NULL, "closing wakes a waiter");
    is_int(queue_push(q, q, -1), -1, "closed: no more goes in");
    queue_destroy(q);
    queue_destroy(NULL);
    return tap_done();
}
