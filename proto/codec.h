#ifndef PROTO_CODEC_H
#define PROTO_CODEC_H

/* Messages to bytes (protobuf, proto/pipeline.proto) and back. Every field is held to the limits of proto/msg.h on both
 * ways, so that neither a peer's nor our own mistake goes further; errors are ERR_INPUT and name the message, the field, the
 * value and what is allowed. One codec a thread. Nothing is allocated after codec_create: what a message needs lies in the
 * codec's own memory. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/msg.h"

enum {
    CODEC_SMALL_BYTES = 1 << 20,  /* control and bulk messages */
    CODEC_DATA_BYTES = 64 << 20,  /* any step; pages that no message touched cost nothing */
    CODEC_MAX_HEAD = 8 << 20,     /* bytes of an encoded message */
};

struct codec;

/* A message that needs more than `bytes` once decoded is refused with ERR_LIMIT. */
struct codec *codec_create(size_t bytes, struct err *err);
void codec_destroy(struct codec *c); /* takes NULL */

/* Appends nothing and sends nothing: *ret_len bytes in buf. -1 with buf's content undefined when a field is out of its range
 * (ERR_INTERNAL: our own fault) or it does not fit (ERR_LIMIT). Leaves a decoded message valid. */
int codec_encode(struct codec *c, const struct msg *m, void *buf, size_t cap, size_t *ret_len, struct err *err);

/* *ret, its strings and arrays are valid until the next decode. payload_len: of the raw bytes that came with it; it must be
 * what the message says. *ret is untouched on failure. */
int codec_decode(struct codec *c, enum msg_type type, const void *head, size_t head_len, size_t payload_len, struct msg *ret,
                 struct err *err);

/* Bytes of payload that belong to a message. */
size_t codec_payload_bytes(const struct msg *m);

#endif
