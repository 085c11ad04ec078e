#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

/* How commands find the servers of this user on this machine: each keeps a file with its address, and a key that only this user
 * can know, in a folder that only the user may read, locked while it lives. */

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/opts.h"
#include "cli/http.h"

enum { CONTROL_PATH_BYTES = 256, CONTROL_KEY_BYTES = 512 };

struct control_server {
    char url[HTTP_URL_BYTES];
    char key[CONTROL_KEY_BYTES]; /* for whatever it can be asked, its cluster's administration too; "": none */
    char join[HTTP_URL_BYTES];   /* where workers may join; "": nowhere */
    pid_t pid;                   /* 0: not found here, but named */
    const char *ca_file;         /* of the options, borrowed; NULL: none */
};

/* Of a server: its file, held until control_drop. fd < 0: it has none. */
struct control_file {
    int fd;
    char path[CONTROL_PATH_BYTES];
};
/* join: NULL: nowhere. -1: there is no folder to be had, or no room: the server can do without. */
int control_hold(struct control_file *file, const char *url, const char *key, const char *join, struct err *err);
/* A key for control_hold and the server's own ears: random, hexadecimal. */
int control_key(char ret[CONTROL_KEY_BYTES], struct err *err);
void control_drop(struct control_file *file);

/* The server at url, or where url is NULL the only one. ERR_NOT_FOUND: none; ERR_USAGE: several, which are named. */
int control_find(const char *url, struct control_server *ret, struct err *err);

/* --url, --api-key-file and --ca-file, for commands that ask a server. */
struct control_options {
    const char *url, *key_file, *ca_file;
};
extern const struct opt control_option_table[];

/* Whom a command means to ask: the server at o->url, or this user's only one here, or else http://127.0.0.1:8080. The key is the
 * first of o->key_file, or that of the server's own file. */
int control_pick(const struct control_options *o, struct control_server *ret, struct err *err);
/* A GET of path, to be completed. */
struct http_request control_request(const struct control_server *s, const char *path);
/* http_ask of it, where any other status than 200 is an error with the server's words. body: NULL: GET. */
char *control_ask(const struct control_server *s, const char *path, const char *body, struct err *err);

#endif
