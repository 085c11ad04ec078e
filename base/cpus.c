/* See cpus.h. A claim is a Unix socket bound to a name in Linux' abstract namespace: it goes when the process does, however
 * it ends, needs no folder, and stands between users, too. Network namespaces (most containers have their own) do not see each
 * other's; what is lost then is only that teams do not avoid each other. */
#include "base/cpus.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sysinfo.h"

enum { MASK_BITS = 8192 }; /* the system refuses masks shorter than its own */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int allowed[CPUS_MAX];
static unsigned n_allowed;
static cpu_set_t *mask;

static void read_mask(void)
{
    size_t bytes = CPU_ALLOC_SIZE(MASK_BITS);
    if (!(mask = CPU_ALLOC(MASK_BITS)))
        return;
    CPU_ZERO_S(bytes, mask);
    if (sched_getaffinity(0, bytes, mask) != 0)
        return;
    for (int i = 0; i < MASK_BITS && n_allowed < CPUS_MAX; i++)
        if (CPU_ISSET_S((size_t)i, bytes, mask))
            allowed[n_allowed++] = i;
}

unsigned cpus_usable(void)
{
    pthread_once(&once, read_mask);
    unsigned n = n_allowed ? n_allowed : 1, quota = sysinfo_cpu_quota();
    return quota && quota < n ? quota : n;
}

/* --- the order ------------------------------------------------------------------------------------------------------------ */

struct place {
    int cpu, package;
    int rank; /* which of its core's processors it is, of those that are there */
    int core; /* the lowest processor of its core */
};

/* The number that a one-line file begins with; -1 if there is none. */
static int number_in(const char *sys, int cpu, const char *file)
{
    char path[PATH_MAX], line[64];
    snprintf(path, sizeof path, "%s/cpu%d/topology/%s", sys, cpu, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return -1;
    long n = fgets(line, sizeof line, f) && line[0] >= '0' && line[0] <= '9' ? strtol(line, NULL, 10) : -1;
    fclose(f);
    return n <= INT_MAX ? (int)n : -1;
}

static int by_rank(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->package != y->package)
        return x->package < y->package ? -1 : 1;
    return x->cpu < y->cpu ? -1 : x->cpu > y->cpu;
}

void cpus_sort(const char *sys, int *cpu, unsigned n)
{
    struct place *place = calloc(n ? n : 1, sizeof *place);
    if (!place)
        return; /* any order will do */
    for (unsigned i = 0; i < n; i++) {
        place[i] = (struct place){.cpu = cpu[i], .package = number_in(sys, cpu[i], "physical_package_id")};
        place[i].core = number_in(sys, cpu[i], "thread_siblings_list"); /* "0,4" and "0-1" begin with the lowest */
        for (unsigned j = 0; place[i].core >= 0 && j < i; j++)
            place[i].rank += place[j].core == place[i].core;
    }
    qsort(place, n, sizeof *place, by_rank);
    for (unsigned i = 0; i < n; i++)
        cpu[i] = place[i].cpu;
    free(place);
}

unsigned cpus_in_order(int *ret, unsigned max)
{
    int all[CPUS_MAX];
    pthread_once(&once, read_mask);
    memcpy(all, allowed, n_allowed * sizeof *all);
    cpus_sort("/sys/devices/system/cpu", all, n_allowed);
    unsigned n = n_allowed < max ? n_allowed : max;
    memcpy(ret, all, n * sizeof *ret);
    return n;
}

/* --- taking --------------------------------------------------------------------------------------------------------------- */

int cpus_claim(int cpu)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int len = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "stagecoach/cpu/%d", cpu);
    if (bind(fd, (const struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool cpus_pin_self(int cpu)
{
    size_t bytes = CPU_ALLOC_SIZE(MASK_BITS);
    pthread_once(&once, read_mask);
    if (!mask)
        return false;
    if (cpu < 0)
        return sched_setaffinity(0, bytes, mask) == 0;
    cpu_set_t *one = CPU_ALLOC(MASK_BITS);
    if (!one)
        return false;
    CPU_ZERO_S(bytes, one);
    CPU_SET_S((size_t)cpu, bytes, one);
    bool good = sched_setaffinity(0, bytes, one) == 0;
    CPU_FREE(one);
    return good;
}
