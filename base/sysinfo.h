#ifndef BASE_SYSINFO_H
#define BASE_SYSINFO_H

/* What the machine has to give. */

#include <stdint.h>

/* Bytes of memory this process could still take: what the system calls available, within its control group's limit.
 * UINT64_MAX when the system does not say. */
uint64_t sysinfo_memory_available(void);

/* Bytes that no cache holds for long, at least `least`: twice the third cache, where the system tells of one (a virtual machine may see its
 * host's, of some hundred MiB), within a gigabyte and an eighth of what is available. */
uint64_t sysinfo_beyond_caches(uint64_t least);

/* How many processors' worth of time the process's control group may use, rounded up; 0: no limit. */
unsigned sysinfo_cpu_quota(void);

/* "14.8 GiB": a size for people, in buf. Returns buf. */
const char *sysinfo_bytes(char buf[32], uint64_t bytes);

/* Lets this process open as many files as it may (RLIMIT_NOFILE): the usual limit is for programs that use select. How many that is. */
uint64_t sysinfo_allow_files(void);

#endif
