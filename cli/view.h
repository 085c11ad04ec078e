#ifndef CLI_VIEW_H
#define CLI_VIEW_H

/* What `status` shows of what /v1/cluster says, as lines of text. Pure. */

#include <jansson.h>

#include "base/strbuf.h"
#include "cli/screen.h"

struct view {
    const char *url;
    const json_t *now, *before; /* before: an earlier answer of the same server, or NULL: rates are then of all its time */
    double seconds;             /* between the two */
    struct screen screen;
    unsigned height; /* lines that there are; 0: no limit */
};

void view_draw(const struct view *v, struct strbuf *out);

#endif
