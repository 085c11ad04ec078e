#ifndef CLI_KEYDIR_H
#define CLI_KEYDIR_H

/* Where this user's keys are, for every command that has --keys. */

#include "base/err.h"
#include "proto/keys.h"
#include "proto/msg.h"

enum { KEYDIR_PATH = 4096 };

/* dir, or where it is NULL $XDG_CONFIG_HOME/stagecoach or ~/.config/stagecoach. */
int keydir_find(const char *dir, char ret[KEYDIR_PATH], struct err *err);

/* keys_open of dir, or of $XDG_CONFIG_HOME/stagecoach or ~/.config/stagecoach where it is NULL. name: as there. */
struct keys *keydir_open(const char *dir, const char *name, struct err *err);

/* "[NAME@]tcp://HOST:PORT": its address, a part of text, and the key that is trusted by that name, or the only one that is; NULL: it is
 * none. option: how messages call it, such as "--peer". */
const char *keydir_peer(struct keys *k, const char *option, const char *text, uint8_t key[KEY_BYTES], struct err *err);

#endif
