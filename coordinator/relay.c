/* See relay.h. Pair i joins stages i and i + 1; half 0 was dialed by the upper one. */
#include "coordinator/relay.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/cluster.h"

struct half {
    struct wire_link *link; /* NULL: not there yet */
    bool blocked;
    struct wire_frame *held[RELAY_MAX_HELD]; /* to go out here */
    unsigned first, n;
};

struct relay {
    struct half half[2];
};

static void drop(struct half *h)
{
    for (; h->n > 0; h->n--, h->first++)
        wire_frame_release(h->held[h->first % RELAY_MAX_HELD]);
}

/* Index of the pair that a link belongs to; -1: none. */
static int find(const struct engine *e, const struct wire_link *link, unsigned *ret_half)
{
    for (uint32_t i = 0; i < COST_MAX_STAGES; i++)
        for (unsigned k = 0; e->relays[i] && k < 2; k++)
            if (e->relays[i]->half[k].link == link) {
                *ret_half = k;
                return (int)i;
            }
    return -1;
}

static void close_pair(struct engine *e, uint32_t i, const char *why)
{
    struct relay *r = e->relays[i];
    for (unsigned k = 0; k < 2; k++) {
        wire_link_close(r->half[k].link, why);
        drop(&r->half[k]);
    }
    e->relays[i] = NULL;
    free(r);
}

void relay_close(struct engine *e, const char *why)
{
    for (uint32_t i = 0; i < COST_MAX_STAGES; i++)
        if (e->relays[i])
            close_pair(e, i, why);
}

static const char *node_name(const struct engine *e, uint32_t stage)
{
    return e->nodes[e->pipe.stages[stage].node].name;
}

static void fail(struct engine *e, uint32_t i, const char *why)
{
    char text[512];
    snprintf(text, sizeof text, "the relayed link from node %s to node %s: %.300s", node_name(e, i), node_name(e, i + 1), why);
    close_pair(e, i, text);
    pipeline_break(e, text);
}

/* What waits for a half goes out. */
static void pump(struct engine *e, uint32_t i, unsigned to)
{
    struct half *h = &e->relays[i]->half[to];
    struct err err;
    while (h->link && !h->blocked && h->n > 0) {
        switch (wire_forward(h->link, h->held[h->first % RELAY_MAX_HELD], &err)) {
        case WIRE_SENT:
            h->first++;
            h->n--;
            break;
        case WIRE_BLOCKED:
            h->blocked = true;
            break;
        case WIRE_FAILED:
            fail(e, i, err.text);
            return;
        }
    }
}

/* Of this epoch, from one of two neighbours that cannot be dialed, about the other. */
static bool is_awaited(const struct engine *e, const struct wire_link *link, uint32_t *ret_pair, unsigned *ret_half)
{
    const struct msg_link_hello *hello = wire_link_hello(link);
    const struct pipe *p = &e->pipe;
    uint32_t i = hello->upstream ? hello->stage - 1 : hello->stage;

    if (p->phase < PIPE_LOADING || p->phase == PIPE_FAILED || !msg_epoch_same(hello->epoch, p->epoch) || i >= p->n_stages || i + 1 >= p->n_stages)
        return false;
    *ret_pair = i;
    *ret_half = hello->upstream ? 1 : 0;
    return strcmp(wire_link_node(link), node_name(e, hello->stage)) == 0 &&
           strcmp(hello->relay_to, node_name(e, hello->upstream ? i : i + 1)) == 0;
}

static void take_up(struct engine *e, struct wire_link *link)
{
    uint32_t i;
    unsigned k;

    if (!is_awaited(e, link, &i, &k)) {
        wire_link_close(link, "no such link is awaited");
        return;
    }
    if (!e->relays[i] && !(e->relays[i] = mem_new(1, sizeof *e->relays[i], NULL))) {
        wire_link_close(link, "the coordinator is out of memory");
        return;
    }
    if (e->relays[i]->half[k].link) {
        wire_link_close(link, "this link is there already");
        return;
    }
    e->relays[i]->half[k].link = link;
    pump(e, i, k);
}

static void take_frame(struct engine *e, uint32_t i, unsigned from, struct wire_frame *frame)
{
    struct half *to = &e->relays[i]->half[!from];
    if (to->n == RELAY_MAX_HELD) {
        wire_frame_release(frame);
        fail(e, i, "more came than the other end takes");
        return;
    }
    to->held[(to->first + to->n++) % RELAY_MAX_HELD] = frame;
    pump(e, i, !from);
}

bool relay_event(struct engine *e, struct wire_event *event)
{
    unsigned k = 0;
    int i;

    if (wire_link_dialed(event->link) || !wire_link_hello(event->link)->relay_to[0])
        return false;
    if (event->kind == WIRE_UP) {
        take_up(e, event->link);
        return true;
    }
    i = find(e, event->link, &k);
    if (event->kind == WIRE_FRAME) {
        if (i >= 0)
            take_frame(e, (uint32_t)i, k, event->frame);
        else
            wire_frame_release(event->frame);
    } else if (i >= 0 && event->kind == WIRE_WRITABLE) {
        e->relays[i]->half[k].blocked = false;
        pump(e, (uint32_t)i, k);
    } else if (i >= 0 && event->kind == WIRE_DOWN) {
        e->relays[i]->half[k].link = NULL;
        fail(e, (uint32_t)i, event->text);
    }
    return true;
}
