#ifndef FRONT_JOB_H
#define FRONT_JOB_H

/* What runs for a request after its helper has submitted it: text being generated, texts being embedded. The struct stands
 * first in its owner's. */

#include <stdbool.h>

#include "base/strbuf.h"
#include "front/openai.h"

struct job;

struct job_ops {
    /* Takes what came. Streams: appends events to out, until it holds enough for now; 1: that was the end. Whole answers: 1
     * once out holds all of it, -1 and e where it failed. 0: more is to come. */
    int (*pump)(struct job *job, struct strbuf *out, struct api_error *e);
    void (*destroy)(struct job *job); /* cancels what runs */
};

struct job {
    const struct job_ops *ops;
    bool streams;
};

#endif
