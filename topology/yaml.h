#ifndef TOPOLOGY_YAML_H
#define TOPOLOGY_YAML_H

/* Inside topology/ only: a YAML document as a tree with places, bounded. libyaml scans; aliases stand for the node they name and
 * are counted again each time they are used, so that few bytes cannot become many. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

enum yaml_kind { YAML_TEXT, YAML_MAP, YAML_LIST };

struct yaml_item {
    enum yaml_kind kind;
    const char *text; /* YAML_TEXT: 0-terminated, holds no other 0 */
    size_t len;
    bool quoted;
    uint32_t line, column; /* from 1 */
    struct yaml_item *first, *last; /* entries; of a map key and value in turn */
    struct yaml_item *next;
};

/* The document's root in memory of the arena; NULL and "NAME:LINE:COLUMN: …". An empty document is an error. */
struct yaml_item *yaml_read(const char *name, const char *text, size_t len, struct arena *arena, struct err *err);

/* Sets err to "NAME:LINE:COLUMN: …"; returns -1. */
int yaml_fail(const char *name, const struct yaml_item *at, struct err *err, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
const char *yaml_kind_words(const struct yaml_item *item);

#endif
