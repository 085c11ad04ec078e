#ifndef PROTO_FILES_H
#define PROTO_FILES_H

/* Small private files, for keys.c and invite.c: read whole, written so that nobody ever sees half of one. Any thread. */

#include <stddef.h>

#include "base/err.h"

enum { FILES_MAX_PATH = 4096 };

/* dir/name, or dir/sub/name (sub NULL: none), into buf. ERR_LIMIT when it is too long. */
int files_path(char buf[FILES_MAX_PATH], const char *dir, const char *sub, const char *name, struct err *err);
/* The folder and those above it, 0700 where they are made. Then it must be ours and closed to others: ERR_INPUT with the
 * chmod to run. */
int files_private_folder(const char *path, struct err *err);
/* The same question of a folder that must be there. */
int files_check_folder(const char *path, struct err *err);
/* At most cap - 1 bytes, 0-terminated; a longer file is an error. */
int files_read(const char *path, char *buf, size_t cap, struct err *err);
/* 0600. ERR_BUSY if the file is there already; replace: it is overwritten instead. durable: on disk when this returns. */
int files_write(const char *path, const char *text, int replace, int durable, struct err *err);

#endif
