#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

/* How `status` and `stop` find the servers of this user on this machine: each keeps a file with its address in a folder that
 * only the user may read, locked while it lives. And the little HTTP that they need to ask one. */

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

enum { CONTROL_URL_BYTES = 256, CONTROL_PATH_BYTES = 256, CONTROL_MAX_REPLY = 64 << 20 };

struct control_server {
    char url[CONTROL_URL_BYTES];
    pid_t pid;
};

/* Of a server: its file, held until control_drop. fd < 0: it has none (no folder to be had), which is no failure. */
struct control_file {
    int fd;
    char path[CONTROL_PATH_BYTES];
};
void control_hold(struct control_file *file, const char *url);
void control_drop(struct control_file *file);

/* The server at url, or where url is NULL the only one. ERR_NOT_FOUND: none; ERR_USAGE: several, which are named. */
int control_find(const char *url, struct control_server *ret, struct err *err);

/* GET url + path, with a key where one is given. The body (0-terminated, the caller frees it), its HTTP status in *ret_status.
 * NULL and err where nobody answers within timeout_ms. */
char *control_get(const char *url, const char *path, const char *key, int timeout_ms, int *ret_status, struct err *err);

#endif
