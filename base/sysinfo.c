/* See sysinfo.h. */
#include "base/sysinfo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
