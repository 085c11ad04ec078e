/* Signs of life on links over tcp, from protocol 2 on.
 *
 * libzmq has a heartbeat, too (ZMQ_HEARTBEAT_IVL), but in 4.3.4 its timer writes to connections whose reading has ended while
 * messages wait, and that fails an assertion: a peer that goes at the wrong moment ends our process. So it is switched off.
 *
 * Four times a second every link is looked at. Where nothing was sent since the last look, MSG_ALIVE is. Where no whole frame
 * came for four looks, the link is down: half open, or a frame whose length was hit by a flipped bit and that never ends. A
 * big frame on a slow link may take longer than that; it brings many bytes meanwhile, which the kernel counts. A stuck one does
 * not: behind it come signs of life, and no more than credit and queues still allow.
 *
 * A sign of life has the number of the last frame before it (older programs: 0), so that one that was lost is missed although
 * no other comes behind it.
 *
 * Time that this process did not have (suspended, or a busy machine) is nobody's silence. Over ipc nothing is lost on the way. */
#include "proto/wire_int.h"

#include <stdio.h>

enum {
    LOOKS_LOST = WIRE_LOST_MS / WIRE_ALIVE_MS,
    CRUMBS = 2048, /* bytes between two looks that are no frame on its way: a sign of life is about 60, and credit as much */
};

void link_watch(struct wire_link *link)
{
    /* Who registers waits for one answer, within a time of its own. */
    link->watched = !link->ipc && link->protocol >= PROTOCOL_ALIVE && link->hello.purpose != LINK_REGISTER;
    link->heard = true; /* its greeting */
    link->silent = 0;
    link->sent_seen = link->sent;
}

/* Whether the kernel has received more than crumbs since the last look. Where it does not count, a silent link is only a slow
 * one: better a late notice than a good link cut. */
static bool is_coming(struct wire_link *link)
{
    uint64_t bytes, before = link->bytes_seen;

    if (!conn_received(link->fd, link->cookie, &bytes))
        return link->cookie && conn_cookie(link->fd) == link->cookie;
    link->bytes_seen = bytes;
    return bytes - before > CRUMBS;
}

void link_look(struct wire_link *link, bool forgive)
{
    bool coming = is_coming(link);

    if (link->state != LINK_UP)
        return;
    if (link->sent == link->sent_seen)
        link_send_bare(link, MSG_ALIVE, link->sent);
    link->sent_seen = link->sent;
    link->silent = link->heard || coming || forgive ? 0 : link->silent + 1;
    link->heard = false;
    if (link->silent >= LOOKS_LOST) {
        char text[TEXT_BYTES];
        snprintf(text, sizeof text, "no frame and no sign of life for %d ms", WIRE_LOST_MS);
        link_send_bye(link, text, true);
        link_down(link, text);
    }
}
