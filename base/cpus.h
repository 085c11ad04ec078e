#ifndef BASE_CPUS_H
#define BASE_CPUS_H

/* The processors this process may use: how many, in what order a team of threads should take them, and who on the machine
 * has taken which. Any thread. */

#include <stdbool.h>

enum {
    CPUS_MAX = 1024,     /* of one process; more are not used */
    CPUS_MAX_NODES = 64, /* memory nodes; more count as one machine's common memory */
};

/* How many threads this process may keep busy: its affinity mask, and what its control group may use of it (a container
 * limited to 2.5 of 64 processors: 3). At least 1. */
unsigned cpus_usable(void);

/* The numbers of the processors of this process's affinity mask, as it was when first asked (a thread that was pinned since
 * sees no less), in the order in which to take them: one of each core before the second of any, and cores of one package
 * before those of the next. Returns how many, at most `max`; 0 if the system does not say. */
unsigned cpus_in_order(int *ret, unsigned max);

/* The same for given processors and another folder than /sys/devices/system/cpu. Sorts cpu in place. */
void cpus_sort(const char *sys, int *cpu, unsigned n);

/* Memory nodes that processors of this process belong to; 1 where the system does not say. */
unsigned cpus_nodes(void);

/* The processors of part `index` of so many: the memory nodes' where there are as many, else equal shares, of which two never have
 * the same core while there are enough. Never empty but where cpus_in_order is. Returns how many, at most `max`. */
unsigned cpus_part(unsigned index, unsigned parts, int *ret, unsigned max);
/* The same for given processors and another folder. Takes the part's to the front of cpu; returns how many there are. */
unsigned cpus_part_of(const char *sys, int *cpu, unsigned n, unsigned index, unsigned parts);

/* Takes a processor for as long as the returned descriptor is open, against every other process of the machine that asks
 * here; -1 if another has it. It only keeps those who ask apart: nothing is reserved. */
int cpus_claim(int cpu);

/* The calling thread runs on this processor alone; on all of the process's with cpu = -1. Threads that it starts inherit it. */
bool cpus_pin_self(int cpu);
/* The same with several. */
bool cpus_stay_on(const int *cpu, unsigned n);

#endif
