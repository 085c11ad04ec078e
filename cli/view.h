#ifndef CLI_VIEW_H
#define CLI_VIEW_H

/* What `status` shows of what /v1/cluster says, as lines of text. Pure. */

#include <jansson.h>
#include <stdbool.h>

#include "base/strbuf.h"

struct view {
    const char *url;
    const json_t *now, *before; /* before: an earlier answer of the same server, or NULL: rates are then of all its time */
    double seconds;             /* between the two */
    unsigned width, height;     /* of the terminal; 0: no limit */
    bool color;
};

void view_draw(const struct view *v, struct strbuf *out);

#endif
