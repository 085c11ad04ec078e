/* See place.h. By the system call itself: libnuma would be a dependency for one line. */
#include "model/place.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Zeroing 2 MiB takes 0.1 to 0.5 ms; with the host's help for each 4 KiB of them 5 to 6 ms. */
enum { MAX_NODES = 64, LIST_BYTES = 256, HUGE_PAGE = 2 << 20, SLOW_NS = 2000000, TRIES = 2 };

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

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

bool place_huge(void *pages, size_t bytes)
{
    uintptr_t first = ((uintptr_t)pages + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, end = (uintptr_t)pages + bytes;
    int slow = 0;
    /* the second try tells a slow page from a thread that lost its processor for a moment */
    for (int i = 0; i < TRIES && i == slow && first + HUGE_PAGE <= end; i++, first += HUGE_PAGE) {
        int64_t start = now_ns();
        *(volatile char *)first = 0;
        slow += now_ns() - start > SLOW_NS;
    }
    return slow == TRIES && madvise(pages, bytes, MADV_NOHUGEPAGE) == 0;
}

void place_huge_late(void *pages, size_t bytes)
{
    madvise(pages, bytes, MADV_HUGEPAGE);
}
