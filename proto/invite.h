#ifndef PROTO_INVITE_H
#define PROTO_INVITE_H

/* Invitations: how a node whose key nobody knows becomes one that is known, with one paste. The coordinator's side makes a
 * token (its addresses, its public key, a one-time secret, an expiry) and keeps the secret's hash under its keys' folder;
 * the joining node dials with it, and may do nothing but register the key it proved to have. One use.
 *
 * The worker's side: wire_join (proto/wire.h). The coordinator's: nothing but the option `registrations` of its wire_net. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/keys.h"

enum {
    INVITE_MAX_ADDRESSES = 8,
    INVITE_SECRET_BYTES = MSG_ID_BYTES,
    INVITE_MAX_TOKEN = 4096, /* characters, the 0 included */
    INVITE_MAX_OPEN = 256,
    INVITE_MAX_SECONDS = 30 * 86400,
};

struct invite {
    char addresses[INVITE_MAX_ADDRESSES][MSG_MAX_ADDRESS + 1];
    size_t n_addresses;
    uint8_t key[KEY_BYTES]; /* of the coordinator */
    uint8_t secret[INVITE_SECRET_BYTES];
    uint64_t expires_s; /* since 1970 */
};

/* Writes the token to ret_token and the secret's hash to the folder of keys. */
int invite_create(struct keys *k, const char *const *addresses, size_t n_addresses, uint64_t seconds, char ret_token[INVITE_MAX_TOKEN],
                  struct err *err);
/* What a token says. ERR_USAGE: mistyped, cut, of an unknown version, expired (as of now_s). */
int invite_parse(const char *token, uint64_t now_s, struct invite *ret, struct err *err);
/* Takes the one use of an invitation and trusts `key` as `name` from now on. The error says whether it is unknown, used or
 * expired, or whether the name cannot be had (then it stays open). */
int invite_redeem(struct keys *k, const uint8_t *secret, const char *name, const uint8_t *key, uint64_t now_s, struct err *err);
/* How many are open: while none is, unknown keys are not even listened to. Removes those that expired. */
size_t invite_count(struct keys *k, uint64_t now_s);

#endif
