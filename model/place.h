#ifndef MODEL_PLACE_H
#define MODEL_PLACE_H

/* On which memory pages lie where a machine has several. Tasks of an operation are taken by whichever core is free, so a
 * panel of weights is read by all of them: pages are spread over the nodes, so that every node's memory works. One node, or
 * a kernel that says nothing: nothing is done. Any thread. */

#include <stddef.h>

/* Call before the pages are touched. */
void place_pages(void *pages, size_t bytes);

/* For tests: a list of nodes as the kernel writes it ("0-1,3") as bits; 0 for what is none or reaches past 63. */
unsigned long long place_parse_nodes(const char *list);

#endif
