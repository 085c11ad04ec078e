#ifndef BULK_PROBE_H
#define BULK_PROBE_H

/* Measures the link to another node, as weights and activations will find it: encrypted, over the port where that node listens.
 * bulk.h answers at the other end. */

#include "base/err.h"
#include "proto/keys.h"
#include "proto/msg.h"

struct probe_options {
    struct keys *keys;    /* ours */
    const char *endpoint; /* "tcp://IP:PORT" */
    const uint8_t *key;   /* the peer's */
    unsigned rate_ms;     /* how long each direction is filled; 0: 1000 */
};

struct probe_result {
    char self[MSG_MAX_NAME + 1], peer[MSG_MAX_NAME + 1];
    double rtt_us;           /* the median of PROBE_ROUNDS */
    double up_bps, down_bps; /* bytes a second, to the peer and from it */
};

enum { PROBE_ROUNDS = 31, PROBE_LIMIT_MS = 60000 };

/* Blocks for about two times rate_ms, at most PROBE_LIMIT_MS. */
int probe_link(const struct probe_options *o, struct probe_result *ret, struct err *err);

#endif
