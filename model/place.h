#ifndef MODEL_PLACE_H
#define MODEL_PLACE_H

/* Which pages weights get: on which memory they lie, where a machine has several, and whether they are huge. Tasks of an operation are taken by whichever core is free, so a
 * panel of weights is read by all of them: pages are spread over the nodes, so that every node's memory works. One node, or
 * a kernel that says nothing: nothing is done. Any thread. */

#include <stdbool.h>
#include <stddef.h>

/* Call before the pages are touched. */
void place_pages(void *pages, size_t bytes);

/* Huge pages make decoding some 2% faster. But a virtual machine may have given its free memory back to the host, small pages'
 * last; then each huge page is fetched anew while it is zeroed, and a load takes three times as long. So one or two are tried:
 * where they come slowly the rest becomes small pages, which the system joins in time. Call before the pages are touched, and
 * `late` once they are filled; true: late is wanted. */
bool place_huge(void *pages, size_t bytes);
void place_huge_late(void *pages, size_t bytes);

/* For tests: a list of nodes as the kernel writes it ("0-1,3") as bits; 0 for what is none or reaches past 63. */
unsigned long long place_parse_nodes(const char *list);

#endif
