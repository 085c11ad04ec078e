/* Events of a wire that wait to be fetched: everything but frames, which are never queued. */
#include "proto/wire_int.h"

#include <stdio.h>
#include <stdlib.h>

uint64_t wire_ms_from_now(unsigned ms)
{
    return wire_now_us() + (uint64_t)ms * 1000;
}

struct note *wire_note_add(struct wire *w, enum wire_event_kind kind, struct wire_link *link)
{
    struct note *n = w->n_notes < MAX_NOTES || link ? calloc(1, sizeof *n) : NULL;

    if (!n)
        return NULL;
    n->kind = kind;
    n->link = link;
    *w->last_note = n;
    w->last_note = &n->next;
    w->n_notes++;
    return n;
}

/* Whoever closes a link does not hear of it any more. */
void wire_notes_forget(struct wire *w, const struct wire_link *link)
{
    for (struct note **at = &w->first_note; *at;) {
        struct note *n = *at;
        if (n->link != link) {
            at = &n->next;
            continue;
        }
        *at = n->next;
        free(n);
        w->n_notes--;
    }
    for (w->last_note = &w->first_note; *w->last_note; w->last_note = &(*w->last_note)->next)
        ;
}

/* Somebody was turned away: counted always, told so many times a second. Any thread. */
void wire_note_refused(struct wire *w, enum refusal why, const char *address, const char *text)
{
    struct note *n;
    uint64_t now = wire_now_us();

    atomic_fetch_add(&w->net->refused[why], 1);
    pthread_mutex_lock(&w->refused_lock);
    if (now - w->refused_window_us >= 1000000) {
        w->refused_window_us = now;
        w->refused_told = 0;
    }
    if (w->refused_told >= WIRE_MAX_REFUSED_EVENTS || !(n = calloc(1, sizeof *n))) {
        w->refused_silent++;
    } else {
        w->refused_told++;
        n->kind = WIRE_REFUSED;
        n->count = 1 + w->refused_silent;
        w->refused_silent = 0;
        snprintf(n->text, sizeof n->text, "%s", text);
        snprintf(n->address, sizeof n->address, "%s", address);
        n->next = w->refused_first;
        w->refused_first = n;
    }
    pthread_mutex_unlock(&w->refused_lock);
    wire_wake(w);
}

void wire_fetch_refused(struct wire *w)
{
    struct note *n, *in_order = NULL;

    pthread_mutex_lock(&w->refused_lock);
    n = w->refused_first;
    w->refused_first = NULL;
    pthread_mutex_unlock(&w->refused_lock);
    while (n) {
        struct note *next = n->next;
        n->next = in_order;
        in_order = n;
        n = next;
    }
    while (in_order) {
        struct note *next = in_order->next;
        in_order->next = NULL;
        *w->last_note = in_order;
        w->last_note = &in_order->next;
        w->n_notes++;
        in_order = next;
    }
}
