#ifndef BASE_JSON_H
#define BASE_JSON_H

/* Glue to jansson for JSON that others wrote: reading with a bound on size, and typed look-ups whose messages name the
 * field ("cases[2].tokens"). `where` is how messages call the object: a file's name or a path within it. Nesting is
 * bounded by jansson itself (2048 levels). */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { JSON_MAX_BYTES = 256 << 20 };

/* Parses a file ("-": standard input) or a text of at most max_bytes. NULL and "NAME:LINE:COLUMN: what" on failure; the
 * caller json_decrefs. */
json_t *json_read_file(const char *path, size_t max_bytes, struct err *err);
json_t *json_read_text(const char *name, const char *text, size_t len, struct err *err);

/* Fields of an object. Absent (or null) and optional: *ret stays as it is. The rest: 0, or -1 and an error naming
 * where.name, what it is and what it should be. Strings and items are borrowed from the object. */
enum json_need { JSON_REQUIRED, JSON_OPTIONAL };
int json_get_text(const json_t *object, const char *where, const char *name, enum json_need need, const char **ret, struct err *err);
int json_get_int(const json_t *object, const char *where, const char *name, enum json_need need, int64_t min, int64_t max, int64_t *ret,
                 struct err *err);
int json_get_number(const json_t *object, const char *where, const char *name, enum json_need need, double min, double max, double *ret,
                    struct err *err);
int json_get_bool(const json_t *object, const char *where, const char *name, enum json_need need, bool *ret, struct err *err);
int json_get_array(const json_t *object, const char *where, const char *name, enum json_need need, json_t **ret, struct err *err);
int json_get_object(const json_t *object, const char *where, const char *name, enum json_need need, json_t **ret, struct err *err);

/* "an object", "a string", … */
const char *json_type_words(const json_t *value);

#endif
