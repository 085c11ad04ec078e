/* Where accepted connections come from.
 *
 * A connection that is closed as soon as it speaks (garbage, a port scan) is gone before its monitor event is read, and with
 * it getpeername's answer; libzmq knows the address and has no stable way to tell it. So libzmq's calls of accept4 pass
 * through here: a program's own definition comes before the C library's, in shared libraries, too. Only accepts of the
 * wire's own listeners are noted; where the definition does not take effect, getpeername is asked, and the address of some
 * that came and went stays unknown. */
#include "proto/wire_int.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SEEN_MAX = 1024, LISTENING_MAX = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int fd;
    struct peer_address from;
} seen[SEEN_MAX]; /* a ring, oldest first from seen_first */
static size_t seen_first, n_seen;
static int listening[LISTENING_MAX];
static size_t n_listening;

void accept_watch(int listening_fd)
{
    pthread_mutex_lock(&lock);
    if (n_listening < LISTENING_MAX)
        listening[n_listening++] = listening_fd;
    pthread_mutex_unlock(&lock);
}

void accept_unwatch(int listening_fd)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_listening; i++)
        if (listening[i] == listening_fd) {
            listening[i] = listening[--n_listening];
            break;
        }
    pthread_mutex_unlock(&lock);
}

static void note(int listener, int fd, const struct sockaddr_storage *from, socklen_t len)
{
    bool ours = false;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_listening; i++)
        ours |= listening[i] == listener;
    if (ours) {
        size_t at = (seen_first + n_seen) % SEEN_MAX;
        if (n_seen == SEEN_MAX)
            seen_first = (seen_first + 1) % SEEN_MAX;
        else
            n_seen++;
        seen[at].fd = fd;
        memcpy(&seen[at].from.room, from, sizeof *from);
        seen[at].from.len = len;
    }
    pthread_mutex_unlock(&lock);
}

bool accept_take(int fd, struct peer_address *ret)
{
    bool found = false;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_seen && !found; i++) {
        size_t at = (seen_first + i) % SEEN_MAX;
        if (seen[at].fd != fd)
            continue;
        *ret = seen[at].from;
        seen[at].fd = -1;
        found = true;
    }
    while (n_seen > 0 && seen[seen_first].fd < 0) {
        seen_first = (seen_first + 1) % SEEN_MAX;
        n_seen--;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict len, int flags)
{
    struct sockaddr_storage from = {0};
    socklen_t from_len = sizeof from;
    int got = (int)syscall(SYS_accept4, fd, &from, &from_len, flags), kept = errno;

    if (got < 0)
        return got;
    if (address && len) {
        socklen_t room = *len < from_len ? *len : from_len;
        memcpy(address, &from, room < sizeof from ? room : sizeof from);
        *len = from_len;
    }
    note(fd, got, &from, from_len);
    errno = kept;
    return got;
}
