#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

/* A bounded queue of pointers between threads, any number on either side. A full queue makes its producers wait: that is
 * the back-pressure. Closing wakes everyone. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct queue;

struct queue *queue_create(size_t capacity, struct err *err);
void queue_destroy(struct queue *q); /* takes NULL; items still inside are the caller's to drain before */

/* timeout_ms: 0 does not wait, < 0 waits for ever. Return 0; 1 on time-out; -1 once the queue is closed (pop only when it
 * is empty, too). */
int queue_push(struct queue *q, void *item, int timeout_ms);
int queue_pop(struct queue *q, void **ret_item, int timeout_ms);
void queue_close(struct queue *q);
size_t queue_length(struct queue *q);

#endif
