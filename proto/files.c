/* Small private files: see files.h. */
#include "proto/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int files_path(char buf[FILES_MAX_PATH], const char *dir, const char *sub, const char *name, struct err *err)
{
    int n = snprintf(buf, FILES_MAX_PATH, "%s%s%s/%s", dir, sub ? "/" : "", sub ? sub : "", name);

    if (n < 0 || n >= FILES_MAX_PATH)
        return err_set(err, ERR_LIMIT, "%.100s…: the path is longer than %d bytes", dir, FILES_MAX_PATH - 1);
    return 0;
}

int files_check_folder(const char *path, struct err *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return err_errno(err, errno, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_INPUT, "%s is no folder", path);
    if (st.st_uid != geteuid())
        return err_set(err, ERR_INPUT, "%s belongs to user %u, this is user %u: use a folder of your own", path, (unsigned)st.st_uid,
                       (unsigned)geteuid());
    if (st.st_mode & 077)
        return err_set(err, ERR_INPUT, "%s is open to others (mode %04o): chmod 700 %s", path, (unsigned)(st.st_mode & 07777), path);
    return 0;
}

int files_private_folder(const char *path, struct err *err)
{
    char part[FILES_MAX_PATH];
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof part)
        return err_set(err, ERR_INPUT, "\"%.100s\" cannot be a folder's path", path);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST && !(errno == EROFS || errno == EACCES))
            return err_errno(err, errno, "making the folder %s", part);
    }
    return files_check_folder(path, err);
}

int files_read(const char *path, char *buf, size_t cap, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* a FIFO in our folder must not hang us */
    size_t done = 0;
    ssize_t n = 0;

    if (fd < 0)
        return err_errno(err, errno, "%s", path);
    while (done < cap && (n = read(fd, buf + done, cap - done)) > 0)
        done += (size_t)n;
    close(fd);
    if (n < 0)
        return err_errno(err, errno, "reading %s", path);
    if (done == cap)
        return err_set(err, ERR_INPUT, "%s is longer than %zu bytes", path, cap - 1);
    buf[done] = '\0';
    return 0;
}

static int write_temporary(const char *path, const char *text, int durable, struct err *err)
{
    size_t len = strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_errno(err, errno, "making %s", path);
    ssize_t n = write(fd, text, len);
    int failed = n != (ssize_t)len ? (n < 0 ? errno : ENOSPC) : durable && fsync(fd) != 0 ? errno : 0;
    close(fd);
    if (failed) {
        unlink(path);
        return err_errno(err, failed, "writing %s", path);
    }
    return 0;
}

int files_write(const char *path, const char *text, int replace, int durable, struct err *err)
{
    char temporary[FILES_MAX_PATH];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid()), failed = 0;

    if (n < 0 || n >= (int)sizeof temporary)
        return err_set(err, ERR_LIMIT, "%.100s…: the path is too long", path);
    unlink(temporary);
    if (write_temporary(temporary, text, durable, err) != 0)
        return -1;
    /* link fails where the name is taken, rename would not. */
    if (replace ? rename(temporary, path) != 0 : link(temporary, path) != 0)
        failed = errno;
    unlink(temporary);
    if (failed == EEXIST)
        return err_set(err, ERR_BUSY, "%s is there already", path);
    return failed ? err_errno(err, failed, "making %s", path) : 0;
}
