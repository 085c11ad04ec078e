/* See control.h. A file is as good as its lock: what a server that crashed left behind is not locked, and is removed. */
#include "cli/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/strbuf.h"
#include "cli/ui.h"

static const char prefix[] = "serve-";

static int private_folder(const char *path, struct err *err)
{
    struct stat st;

    if ((mkdir(path, 0700) != 0 && errno != EEXIST) || lstat(path, &st) != 0)
        return err_errno(err, errno, "%.200s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077))
        return err_set(err, ERR_INPUT, "%.200s is no folder of this user's alone (0700)", path);
    return 0;
}

/* ${XDG_RUNTIME_DIR}/stagecoach, or where that cannot be (su leaves another user's) /tmp/stagecoach-UID. */
static int folder_path(char *path, size_t size, struct err *err)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    int n = base && base[0] == '/' ? snprintf(path, size, "%s/stagecoach", base) : -1;

    if (n > 0 && (size_t)n < size && private_folder(path, err) == 0)
        return 0;
    snprintf(path, size, "/tmp/stagecoach-%u", (unsigned)getuid());
    return private_folder(path, err);
}

int control_key(char ret[CONTROL_KEY_BYTES], struct err *err)
{
    unsigned char bytes[32];

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return err_errno(err, errno, "a random key");
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

int control_hold(struct control_file *file, const char *url, const char *key, const char *join, struct err *err)
{
    char folder[CONTROL_PATH_BYTES - 32];
    int rc;

    file->fd = -1;
    if (folder_path(folder, sizeof folder, err) != 0)
        return -1;
    snprintf(file->path, sizeof file->path, "%s/%s%ld", folder, prefix, (long)getpid());
    file->fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file->fd >= 0 && flock(file->fd, LOCK_EX) == 0 && dprintf(file->fd, "%s\n%s\n%s\n", url, key, join ? join : "") >= 0)
        return 0;
    rc = err_errno(err, errno, "%.200s", file->path);
    control_drop(file);
    return rc;
}

void control_drop(struct control_file *file)
{
    if (file->fd < 0)
        return;
    unlink(file->path);
    close(file->fd);
    file->fd = -1;
}

static bool take_line(const char **at, char *ret, size_t size)
{
    size_t len = strcspn(*at, "\n");

    if (len >= size)
        return false;
    memcpy(ret, *at, len);
    ret[len] = '\0';
    *at += len + ((*at)[len] == '\n');
    return true;
}

/* Reads one file of the folder: 1 a server that lives, 0 none. */
static int read_server(const char *folder, const char *name, struct control_server *ret)
{
    char path[CONTROL_PATH_BYTES + 256];
    struct control_server s = {.pid = (pid_t)strtol(name + sizeof prefix - 1, NULL, 10)};
    int fd;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (s.pid <= 1 || (fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) < 0)
        return 0;
    bool lives = flock(fd, LOCK_SH | LOCK_NB) != 0;
    char text[2 * HTTP_URL_BYTES + CONTROL_KEY_BYTES] = "";
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (!lives && n > 0) /* an empty one is just being made */
        unlink(path);
    if (!lives || n <= 0)
        return 0;
    const char *at = text;
    if (!take_line(&at, s.url, sizeof s.url) || !take_line(&at, s.key, sizeof s.key) || !take_line(&at, s.join, sizeof s.join))
        return 0;
    *ret = s;
    return 1;
}

int control_find(const char *url, struct control_server *ret, struct err *err)
{
    char folder[CONTROL_PATH_BYTES - 32];
    struct control_server found;
    struct strbuf names;
    struct dirent *entry;
    size_t n = 0;
    DIR *dir = folder_path(folder, sizeof folder, err) == 0 ? opendir(folder) : NULL;

    strbuf_init(&names, 400);
    while (dir && (entry = readdir(dir)))
        if (strncmp(entry->d_name, prefix, sizeof prefix - 1) == 0 && read_server(folder, entry->d_name, &found) &&
            (!url || strcmp(url, found.url) == 0)) {
            strbuf_printf(&names, n ? ", %s" : "%s", found.url);
            *ret = found;
            n++;
        }
    if (dir)
        closedir(dir);
    if (n == 0 && url)
        err_set(err, ERR_NOT_FOUND, "no server of yours runs at %s on this machine", url);
    else if (n == 0)
        err_set(err, ERR_NOT_FOUND, "no server of yours runs on this machine; \"stagecoach serve\" starts one");
    else if (n > 1)
        err_set(err, ERR_USAGE, "%zu servers of yours run here; choose one with --url: %s", n, strbuf_str(&names));
    strbuf_fini(&names);
    return n == 1 ? 0 : -1;
}

/* --- asking -------------------------------------------------------------- */

enum { ASK_MS = 10000, KEY_FILE_BYTES = 1 << 20 };
static const char usual_url[] = "http://127.0.0.1:8080";

const struct opt control_option_table[] = {
    {"url", 0, OPT_STRING, .arg = "URL", .offset = offsetof(struct control_options, url),
     .help = "The server (default: yours on this machine, else http://127.0.0.1:8080)"},
    {"api-key-file", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct control_options, key_file),
     .help = "Ask with the first key of this file (default: a server of yours on this machine needs none)"},
    {"ca-file", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct control_options, ca_file),
     .help = "Trust these certificates of https servers, self-signed ones too (PEM), instead of the system's (default: of a server of "
             "yours on this machine none is checked)"},
    {0},
};

/* The first key of a file such as `serve --api-key-file` takes. */
static int read_key(const char *path, char *ret, size_t size, struct err *err)
{
    size_t len;
    char *text = ui_read_file(path, KEY_FILE_BYTES, &len, err);
    int rc = -1;

    if (!text)
        return -1;
    for (char *line = text; rc != 0 && *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char *key = line + strspn(line, " \t");
        size_t n = strcspn(key, "# \t\r\n");
        if (n == 0 || n >= size)
            continue;
        snprintf(ret, size, "%.*s", (int)n, key);
        rc = 0;
    }
    free(text);
    return rc == 0 ? 0 : err_set(err, ERR_INPUT, "%s holds no key", path);
}

int control_pick(const struct control_options *o, struct control_server *ret, struct err *err)
{
    struct control_server found;

    if (control_find(o->url, &found, err) == 0) {
        *ret = found;
    } else if (err->kind != ERR_NOT_FOUND) {
        return -1;
    } else {
        *ret = (struct control_server){0};
        if ((size_t)snprintf(ret->url, sizeof ret->url, "%s", o->url ? o->url : usual_url) >= sizeof ret->url)
            return err_set(err, ERR_USAGE, "--url: %zu bytes, at most %zu allowed", strlen(o->url), sizeof ret->url - 1);
    }
    err_clear(err);
    ret->ca_file = o->ca_file;
    return o->key_file ? read_key(o->key_file, ret->key, sizeof ret->key, err) : 0;
}

struct http_request control_request(const struct control_server *s, const char *path)
{
    return (struct http_request){
        .url = s->url, .path = path, .key = s->key[0] ? s->key : NULL, .timeout_ms = ASK_MS, .is_own = s->pid != 0, .ca_file = s->ca_file};
}

char *control_ask(const struct control_server *s, const char *path, const char *body, struct err *err)
{
    struct http_request r = control_request(s, path);
    int status = 0;

    r.body = body;
    char *reply = http_ask(&r, &status, err);

    if (!reply || status == 200)
        return reply;
    http_refused(s->url, status, reply, err);
    free(reply);
    return NULL;
}
