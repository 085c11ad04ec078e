#ifndef COORDINATOR_RELAY_H
#define COORDINATOR_RELAY_H

/* Two neighbouring stages whose nodes cannot be dialed (NAT): each dials the coordinator and asks to be joined with the other;
 * from then on whatever comes on one link goes out on the other, as it came. Frames that come before the other half is there
 * wait. Their number is bounded by the credit that the stages give each other; more is a fault. Breaks on either side end both
 * links and the epoch. The engine's thread only. */

#include <stdbool.h>

#include "proto/wire.h"

struct engine;

enum { RELAY_MAX_HELD = 1024 /* frames of one direction */ };

/* An event of a data link. false: the link is none that wants to be joined. A frame is taken in any case. */
bool relay_event(struct engine *e, struct wire_event *event);
/* The epoch is over. */
void relay_close(struct engine *e, const char *why);

#endif
