#ifndef PROTO_CHECK_H
#define PROTO_CHECK_H

/* Every field of a message against the limits of proto/msg.h. For codec.c, on the way out and on the way in. Any thread. */

#include "base/err.h"
#include "proto/msg.h"

/* kind: what a violation is (ERR_INPUT for a peer's, ERR_INTERNAL for our own). */
int msg_check(const struct msg *m, enum err_kind kind, struct err *err);

#endif
