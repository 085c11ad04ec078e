#ifndef FRONT_OPENAI_FIELDS_H
#define FRONT_OPENAI_FIELDS_H

/* What the files that read a body share, besides openai.h's look-ups. */

#include "front/openai.h"

/* NULL: absent, or null, which says the same. */
const json_t *api_field(const json_t *o, const char *name);
/* -1 and "NAME is GOT; WANTED is expected". */
int api_wrong_type(struct api_error *e, const char *name, const char *wanted, const json_t *got);

/* What is known and not supported. */
int api_refused_read(const json_t *body, struct api_error *e);

#endif
