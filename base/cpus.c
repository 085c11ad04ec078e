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

/* --- parts ---------------------------------------------------------------------------------------------------------------- */

/* The memory node of a processor; -1 if the system does not say. */
static int node_of(const char *sys, int cpu)
{
    char path[PATH_MAX];
    for (int node = 0; node < CPUS_MAX_NODES; node++) {
        snprintf(path, sizeof path, "%s/cpu%d/node%d", sys, cpu, node);
        if (access(path, F_OK) == 0)
            return node;
    }
    return -1;
}

/* Which nodes there are, as bits; 0: one of the processors does not say. */
static unsigned long long nodes_of(const char *sys, const int *cpu, unsigned n)
{
    unsigned long long bits = 0;
    for (unsigned i = 0; i < n; i++) {
        int node = node_of(sys, cpu[i]);
        if (node < 0)
            return 0;
        bits |= 1ULL << node;
    }
    return bits;
}

static int by_core(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->package != y->package)
        return x->package < y->package ? -1 : 1;
    if (x->core != y->core)
        return x->core < y->core ? -1 : 1;
    return x->cpu < y->cpu ? -1 : x->cpu > y->cpu;
}

static void sort_by_core(const char *sys, int *cpu, unsigned n)
{
    struct place *place = calloc(n ? n : 1, sizeof *place);
    if (!place)
        return; /* any order will do */
    for (unsigned i = 0; i < n; i++)
        place[i] = (struct place){.cpu = cpu[i],
                                  .package = number_in(sys, cpu[i], "physical_package_id"),
                                  .core = number_in(sys, cpu[i], "thread_siblings_list")};
    qsort(place, n, sizeof *place, by_core);
    for (unsigned i = 0; i < n; i++)
        cpu[i] = place[i].cpu;
    free(place);
}

unsigned cpus_part_of(const char *sys, int *cpu, unsigned n, unsigned index, unsigned parts)
{
    unsigned long long nodes = nodes_of(sys, cpu, n);
    unsigned kept = 0;

    if (n == 0)
        return 0;
    if ((unsigned)__builtin_popcountll(nodes) == parts) {
        for (; index > 0; index--)
            nodes &= nodes - 1;
        for (unsigned i = 0; i < n; i++)
            if (node_of(sys, cpu[i]) == __builtin_ctzll(nodes))
                cpu[kept++] = cpu[i];
        return kept;
    }
    sort_by_core(sys, cpu, n);
    unsigned first = (unsigned)((unsigned long long)n * index / parts), end = (unsigned)((unsigned long long)n * (index + 1) / parts);
    if (first == end) { /* more parts than processors */
        cpu[0] = cpu[index % n];
        return 1;
    }
    memmove(cpu, cpu + first, (end - first) * sizeof *cpu);
    return end - first;
}

unsigned cpus_part(unsigned index, unsigned parts, int *ret, unsigned max)
{
    int all[CPUS_MAX];
    unsigned n = cpus_part_of("/sys/devices/system/cpu", all, cpus_in_order(all, CPUS_MAX), index, parts);
    n = n < max ? n : max;
    cpus_sort("/sys/devices/system/cpu", all, n);
    memcpy(ret, all, n * sizeof *ret);
    return n;
}

unsigned cpus_nodes(void)
{
    int all[CPUS_MAX];
    unsigned long long nodes = nodes_of("/sys/devices/system/cpu", all, cpus_in_order(all, CPUS_MAX));
    return nodes ? (unsigned)__builtin_popcountll(nodes) : 1;
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
    pthread_once(&once, read_mask);
    if (cpu < 0)
        return mask && sched_setaffinity(0, CPU_ALLOC_SIZE(MASK_BITS), mask) == 0;
    return cpus_stay_on(&cpu, 1);
}

bool cpus_stay_on(const int *cpu, unsigned n)
{
    size_t bytes = CPU_ALLOC_SIZE(MASK_BITS);
    cpu_set_t *set = CPU_ALLOC(MASK_BITS);
    pthread_once(&once, read_mask); /* before it changes */
    if (!set)
        return false;
    CPU_ZERO_S(bytes, set);
    for (unsigned i = 0; i < n; i++)
        CPU_SET_S((size_t)cpu[i], bytes, set);
    bool good = sched_setaffinity(0, bytes, set) == 0;
    CPU_FREE(set);
    return good;
}
