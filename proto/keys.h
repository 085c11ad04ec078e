#ifndef PROTO_KEYS_H
#define PROTO_KEYS_H

/* Who this node is and whom it knows: a folder of its own (0700) with
 *
 *     node.secret        this node's secret key (0600)        node.public     its public key, to be given to others
 *     node.name          the name it was given
 *     trusted/NAME.pub   the public key of a node that may connect: removing the file removes the node
 *     invites/…          invitations that are open (proto/invite.h)
 *
 * made on first start. A key is written as 64 hexadecimal digits. Any thread: a keys object locks itself. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/msg.h"

enum { KEY_BYTES = MSG_ID_BYTES, KEY_TEXT = 2 * KEY_BYTES + 1, KEYS_MAX_TRUSTED = 1024 };

struct keys;

/* Makes what is missing (the command line knows where the folder is by default: cli/keydir.h). name: what the node shall be called;
 * NULL: as in node.name, else the host's name. ERR_INPUT, with the chmod to run, when others could read the secret. */
struct keys *keys_open(const char *dir, const char *name, struct err *err);
void keys_close(struct keys *k); /* takes NULL; wipes the secret */

const char *keys_dir(const struct keys *k);
const char *keys_name(const struct keys *k);
const uint8_t *keys_public(const struct keys *k); /* KEY_BYTES */
const uint8_t *keys_secret(const struct keys *k); /* KEY_BYTES; for sockets only */

/* What this node is called from now on; writes node.name. */
int keys_set_name(struct keys *k, const char *name, struct err *err);

/* Writes trusted/NAME.pub. ERR_BUSY when that name or key is already known differently. The same again is no error. */
int keys_trust(struct keys *k, const char *name, const uint8_t *key, struct err *err);
/* Removes it: the node's links are closed within a second, in every process that uses the folder. ERR_NOT_FOUND names those
 * that are known. */
int keys_distrust(struct keys *k, const char *name, struct err *err);
/* Looks whether trusted/ has changed and reads it again. *ret_changed (NULL allowed): the list is another one. Files that
 * are no keys, or that others may write, are passed over; the first such is told in err with the return value -1, the rest
 * of the list holds. */
int keys_reload(struct keys *k, bool *ret_changed, struct err *err);
/* The name a key is trusted by into ret_name (MSG_MAX_NAME + 1 bytes); false: not trusted. */
bool keys_find(struct keys *k, const uint8_t *key, char *ret_name);
/* The key trusted by that name. */
bool keys_lookup(struct keys *k, const char *name, uint8_t *ret_key);
size_t keys_count(struct keys *k);
/* Calls fn for every trusted key, by name; fn may not call back into k. */
void keys_each(struct keys *k, void (*fn)(void *arg, const char *name, const uint8_t *key), void *arg);
/* Reads the folder again in any case: -1 and err for the first file in trusted/ that is passed over. */
int keys_check(struct keys *k, struct err *err);
/* A number that grows with every change of the list that this object has seen. */
uint64_t keys_version(struct keys *k);

/* 64 digits (either case), with nothing before or behind but white space. */
int key_parse(const char *text, uint8_t *ret_key, struct err *err);
const char *key_format(const uint8_t *key, char buf[KEY_TEXT]); /* returns buf */

#endif
