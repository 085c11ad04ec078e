/* See children.h. A child gets an address in a folder of mode 0700: that is all the authentication between processes of one
 * user. It watches its parent (worker --child) and ends when that is gone, so that even SIGKILL leaves nothing behind but
 * the folder, which the next coordinator of this user removes: it is locked as long as it is in use. */
#include "coordinator/children.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"

extern char **environ;

static const char prefix[] = "stagecoach-w-"; /* six more characters follow */
enum { LEFT_AGE_S = 60, /* a younger one may be about to be locked */ FOLDER_BYTES = 72, ADDRESS_BYTES = 100 /* sun_path has 108 */, END_WAIT_MS = 1000 };

struct child {
    pid_t pid; /* 0: not running */
    char name[24], address[ADDRESS_BYTES];
};

struct children {
    struct children_options o;
    char folder[FOLDER_BYTES]; /* ours, in o.folder */
    int lock_fd;               /* of the folder */
    struct child *child;
};

/* What a coordinator that was killed left: sockets in a folder that nobody holds. */
static void remove_left(int base_fd, const char *name)
{
    int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dirent *e;
    struct stat st;
    DIR *d;

    if (fd < 0)
        return;
    if (fstat(fd, &st) != 0 || st.st_uid != geteuid() || time(NULL) - st.st_mtime < LEFT_AGE_S || flock(fd, LOCK_EX | LOCK_NB) != 0 ||
        !(d = fdopendir(fd))) {
        close(fd);
        return;
    }
    while ((e = readdir(d)))
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode))
            unlinkat(fd, e->d_name, 0);
    unlinkat(base_fd, name, AT_REMOVEDIR);
    closedir(d);
}

static void remove_all_left(const char *base)
{
    DIR *d = opendir(base);
    struct dirent *e;

    while (d && (e = readdir(d)))
        if (strncmp(e->d_name, prefix, sizeof prefix - 1) == 0)
            remove_left(dirfd(d), e->d_name);
    if (d)
        closedir(d);
}

static int make_folder(struct children *c, struct err *err)
{
    const char *base = c->o.folder;
    if (!base || base[0] != '/' || access(base, W_OK) != 0)
        base = "/tmp";
    if (strlen(base) + strlen("/") + sizeof prefix + strlen("XXXXXX") > sizeof c->folder)
        base = "/tmp";
    remove_all_left(base);
    snprintf(c->folder, sizeof c->folder, "%s/%sXXXXXX", base, prefix);
    if (!mkdtemp(c->folder)) {
        int e = errno;
        c->folder[0] = 0;
        return err_errno(err, e, "a folder for the sockets of worker processes in %s", base);
    }
    c->lock_fd = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->lock_fd < 0)
        return err_errno(err, errno, "opening %s", c->folder);
    flock(c->lock_fd, LOCK_EX); /* where that cannot be, nobody else can have it either, and nothing is ever removed */
    return 0;
}

struct children *children_create(const struct children_options *o, struct err *err)
{
    struct children *c = mem_new(1, sizeof *c, err);
    if (!c)
        return NULL;
    c->o = *o;
    c->lock_fd = -1;
    if (make_folder(c, err) != 0 || !(c->child = mem_new(o->n, sizeof *c->child, err))) {
        children_destroy(c);
        return NULL;
    }
    for (unsigned i = 0; i < o->n; i++) {
        snprintf(c->child[i].name, sizeof c->child[i].name, "worker%u", i);
        snprintf(c->child[i].address, sizeof c->child[i].address, "ipc://%s/%u", c->folder, i);
    }
    return c;
}

static bool all_ended(struct children *c)
{
    bool all = true;
    for (unsigned i = 0; c->child && i < c->o.n; i++) {
        if (c->child[i].pid && waitpid(c->child[i].pid, NULL, WNOHANG) != 0)
            c->child[i].pid = 0;
        all = all && !c->child[i].pid;
    }
    return all;
}

static void signal_all(struct children *c, int sig)
{
    for (unsigned i = 0; c->child && i < c->o.n; i++)
        if (c->child[i].pid)
            kill(c->child[i].pid, sig);
}

void children_destroy(struct children *c)
{
    if (!c)
        return;
    signal_all(c, SIGTERM);
    for (int ms = 0; !all_ended(c) && ms < END_WAIT_MS; ms += 5)
        nanosleep(&(struct timespec){.tv_nsec = 5 * 1000000}, NULL);
    signal_all(c, SIGKILL);
    while (!all_ended(c))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    for (unsigned i = 0; c->child && i < c->o.n; i++)
        unlink(c->child[i].address + strlen("ipc://"));
    if (c->folder[0])
        rmdir(c->folder);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    free(c->child);
    free(c);
}

unsigned children_count(const struct children *c)
{
    return c->o.n;
}

const char *children_name(const struct children *c, unsigned i)
{
    return c->child[i].name;
}

const char *children_address(const struct children *c, unsigned i)
{
    return c->child[i].address;
}

bool children_running(const struct children *c, unsigned i)
{
    return c->child[i].pid != 0;
}

int children_pid(const struct children *c, unsigned i)
{
    return c->child[i].pid;
}

int children_start(struct children *c, unsigned i, struct err *err)
{
    struct child *child = &c->child[i];
    char threads[16], parent[16];
    const char *argv[CHILDREN_ARGS_MAX + 1] = {c->o.program, "worker",  "--child",  "--listen",  child->address, "--name",
                            child->name,  "--model", c->o.model, "--threads", threads, "--parent", parent};
    unsigned n = 13;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, defaults;
    int rc;

    snprintf(threads, sizeof threads, "%u", c->o.threads);
    snprintf(parent, sizeof parent, "%ld", (long)getpid());
    if (c->o.isa) {
        argv[n++] = "--isa";
        argv[n++] = c->o.isa;
    }
    for (const char *const *arg = c->o.more; arg && *arg && n < CHILDREN_ARGS_MAX; arg++)
        argv[n++] = *arg;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGTERM);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0); /* the answer's place is not for workers */
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setpgroup(&attr, 0); /* Ctrl-C is ours to handle: we end them in order */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    rc = posix_spawn(&child->pid, c->o.program, &files, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (rc == 0)
        return 0;
    child->pid = 0;
    return err_errno(err, rc, "starting worker process %s (%s)", child->name, c->o.program);
}

int children_reap(struct children *c, bool *ret_by_itself, char *ret_how, unsigned how_bytes)
{
    for (unsigned i = 0; i < c->o.n; i++) {
        int status = 0;
        if (!c->child[i].pid || waitpid(c->child[i].pid, &status, WNOHANG) <= 0)
            continue;
        c->child[i].pid = 0;
        *ret_by_itself = !WIFSIGNALED(status);
        if (WIFSIGNALED(status))
            snprintf(ret_how, how_bytes, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else
            snprintf(ret_how, how_bytes, "ended with status %d", WEXITSTATUS(status));
        return (int)i;
    }
    return -1;
}

void children_kill(struct children *c, unsigned i)
{
    if (c->child[i].pid)
        kill(c->child[i].pid, SIGKILL);
}
