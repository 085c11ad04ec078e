/* See sysinfo.h. */
#include "base/sysinfo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const uint64_t BEYOND_CACHES_MAX = (uint64_t)1 << 30;

/* The number in a one-line file; false if there is none ("max", no such file). */
static int number_in(const char *path, uint64_t *ret)
{
    char line[64];
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int found = fgets(line, sizeof line, f) && line[0] >= '0' && line[0] <= '9';
    if (found)
        *ret = strtoull(line, NULL, 10);
    fclose(f);
    return found;
}

uint64_t sysinfo_memory_available(void)
{
    uint64_t available = UINT64_MAX, limit, used;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "MemAvailable:", 13) == 0)
            available = strtoull(line + 13, NULL, 10) * 1024;
    if (f)
        fclose(f);
    if (number_in("/sys/fs/cgroup/memory.max", &limit) && number_in("/sys/fs/cgroup/memory.current", &used)) {
        uint64_t rest = limit > used ? limit - used : 0;
        available = rest < available ? rest : available;
    }
    return available;
}

uint64_t sysinfo_beyond_caches(uint64_t least)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t bytes = cache > 0 ? 2 * (uint64_t)cache : 0, available = sysinfo_memory_available() / 8;
    bytes = bytes < BEYOND_CACHES_MAX ? bytes : BEYOND_CACHES_MAX;
    bytes = bytes < available ? bytes : available;
    return bytes > least ? bytes : least;
}

unsigned sysinfo_cpu_quota(void)
{
    char line[64] = "", *end;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re"); /* "250000 100000": microseconds of each so many; or "max 100000" */
    if (!f)
        return 0;
    int found = fgets(line, sizeof line, f) && line[0] >= '1' && line[0] <= '9';
    fclose(f);
    unsigned long quota = found ? strtoul(line, &end, 10) : 0, period = found ? strtoul(end, NULL, 10) : 0;
    if (!quota || !period || quota / period >= 1u << 20)
        return 0;
    return (unsigned)((quota + period - 1) / period);
}

const char *sysinfo_bytes(char buf[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 6) {
        v /= 1024;
        u++;
    }
    if (u == 0)
        snprintf(buf, 32, "%" PRIu64 " B", bytes);
    else
        snprintf(buf, 32, "%.1f %s", v, units[u]);
    return buf;
}

uint64_t sysinfo_allow_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return UINT64_MAX;
    rlim_t before = r.rlim_cur;
    r.rlim_cur = r.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &r) == 0 ? r.rlim_max : before;
}
