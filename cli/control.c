/* See control.h. A file is as good as its lock: what a server that crashed left behind is not locked, and is removed. */
#include "cli/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/strbuf.h"

static const char prefix[] = "serve-";

/* ${XDG_RUNTIME_DIR}/stagecoach or /tmp/stagecoach-UID, ours alone; -1 where that cannot be. */
static int folder_path(char *path, size_t size)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    int n = base && base[0] == '/' ? snprintf(path, size, "%s/stagecoach", base)
                                   : snprintf(path, size, "/tmp/stagecoach-%u", (unsigned)getuid());

    if (n < 0 || (size_t)n >= size)
        return -1;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return -1;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == getuid() && (st.st_mode & 077) == 0 ? 0 : -1;
}

void control_hold(struct control_file *file, const char *url)
{
    char folder[CONTROL_PATH_BYTES - 32];

    file->fd = -1;
    if (folder_path(folder, sizeof folder) != 0)
        return;
    snprintf(file->path, sizeof file->path, "%s/%s%ld", folder, prefix, (long)getpid());
    file->fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file->fd >= 0 && (flock(file->fd, LOCK_EX) != 0 || dprintf(file->fd, "%s\n", url) < 0))
        control_drop(file);
}

void control_drop(struct control_file *file)
{
    if (file->fd < 0)
        return;
    unlink(file->path);
    close(file->fd);
    file->fd = -1;
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
    ssize_t n = read(fd, s.url, sizeof s.url - 1);
    close(fd);
    if (!lives && n > 0) /* an empty one is just being made */
        unlink(path);
    if (!lives || n <= 0)
        return 0;
    s.url[strcspn(s.url, "\n")] = '\0';
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
    DIR *dir = folder_path(folder, sizeof folder) == 0 ? opendir(folder) : NULL;

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

/* --- HTTP ---------------------------------------------------------------- */

static int connect_to(const char *url, int timeout_ms, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    struct timeval t = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    char host[CONTROL_URL_BYTES];
    const char *from = url + strlen("http://");
    int fd, rc;

    if (strncmp(url, "https://", strlen("https://")) == 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: the commands speak plain HTTP; ask %s/v1/cluster with curl", url, url);
    if (strncmp(url, "http://", strlen("http://")) != 0 || strlen(url) >= sizeof host)
        return err_set(err, ERR_USAGE, "%s: an address such as http://127.0.0.1:8080 is expected", url);
    snprintf(host, sizeof host, "%.*s", (int)strcspn(from, "/"), from);
    char *colon = strrchr(host, ':'), *name = host;
    if (!colon || strchr(colon, ']'))
        return err_set(err, ERR_USAGE, "%s: a port is missing, as in http://127.0.0.1:8080", url);
    *colon = '\0';
    if (host[0] == '[' && colon > host + 1 && colon[-1] == ']') {
        name++;
        colon[-1] = '\0';
    }
    if ((rc = getaddrinfo(name, colon + 1, &hints, &found)) != 0)
        return err_set(err, ERR_NOT_FOUND, "%s: %s", url, gai_strerror(rc));
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    }
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        err_errno(err, errno, "nobody answers at %s", url);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static int exchange(int fd, const char *url, const char *path, const char *key, struct strbuf *reply, struct err *err)
{
    struct strbuf ask;
    char buf[16384];
    ssize_t n;
    int rc = 0;

    strbuf_init(&ask, 4096);
    strbuf_printf(&ask, "GET %s HTTP/1.0\r\nHost: localhost\r\n", path); /* 1.0: the whole body, then the end */
    if (key)
        strbuf_printf(&ask, "Authorization: Bearer %s\r\n", key);
    strbuf_puts(&ask, "\r\n");
    if (ask.failed || send(fd, ask.data, ask.len, MSG_NOSIGNAL) != (ssize_t)ask.len)
        rc = err_errno(err, errno, "asking %s", url);
    strbuf_fini(&ask);
    while (rc == 0 && (n = recv(fd, buf, sizeof buf, 0)) != 0)
        if (n > 0)
            strbuf_add(reply, buf, (size_t)n);
        else if (errno != EINTR)
            rc = err_errno(err, errno, "the answer of %s", url);
    return rc == 0 ? strbuf_check(reply, "the answer", err) : -1;
}

char *control_get(const char *url, const char *path, const char *key, int timeout_ms, int *ret_status, struct err *err)
{
    int fd = connect_to(url, timeout_ms, err);
    struct strbuf reply;
    char *body = NULL, *split;

    if (fd < 0)
        return NULL;
    strbuf_init(&reply, CONTROL_MAX_REPLY);
    if (exchange(fd, url, path, key, &reply, err) == 0) {
        split = reply.len ? strstr(reply.data, "\r\n\r\n") : NULL;
        if (!split || sscanf(reply.data, "HTTP/%*d.%*d %d", ret_status) != 1)
            err_set(err, ERR_IO, "%s: what answers there does not speak HTTP", url);
        else if (!(body = strdup(split + 4)))
            err_set(err, ERR_MEMORY, "%s: out of memory", url);
    }
    strbuf_fini(&reply);
    close(fd);
    return body;
}
