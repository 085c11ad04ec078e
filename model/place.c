/* See place.h. By the system call itself: libnuma would be a dependency for one line. */
#include "model/place.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_NODES = 64, LIST_BYTES = 256 };

static unsigned long nodes; /* with memory; 0: one only */

unsigned long long place_parse_nodes(const char *list)
{
    unsigned long long bits = 0;
    for (const char *at = list; *at && *at != '\n';) {
        char *end;
        unsigned long first = strtoul(at, &end, 10), last = first;
        if (end == at)
            return 0;
        if (*end == '-') {
            at = end + 1;
            last = strtoul(at, &end, 10);
            if (end == at)
                return 0;
        }
        if (first > last || last >= MAX_NODES)
            return 0;
        for (unsigned long i = first; i <= last; i++)
            bits |= 1ULL << i;
        if (*end == ',')
            end++;
        else if (*end && *end != '\n')
            return 0;
        at = end;
    }
    return bits;
}

static void find_nodes(void)
{
    char list[LIST_BYTES];
    int fd = open("/sys/devices/system/node/has_memory", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, list, sizeof list - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    list[n] = '\0';
    unsigned long long bits = place_parse_nodes(list);
    if (bits & (bits - 1)) /* more than one */
        nodes = (unsigned long)bits;
}

void place_pages(void *pages, size_t bytes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_nodes);
    if (nodes) /* a wish, too: a container may forbid it */
        syscall(SYS_mbind, pages, bytes, MPOL_INTERLEAVE, &nodes, (unsigned long)MAX_NODES + 1, 0);
}
