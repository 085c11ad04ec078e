/* See source.h. */
#include "model/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void weight_source_destroy(struct weight_source *s)
{
    if (s)
        s->ops->destroy(s);
}

void weight_source_cancel(struct weight_source *s)
{
    s->ops->cancel(s);
}

void source_note(struct source_report *r, const char *fmt, ...)
{
    char text[SOURCE_NOTE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (uint32_t i = 0; i < r->n_notes; i++)
        if (strcmp(r->note[i], text) == 0)
            return;
    if (r->n_notes < SOURCE_MAX_NOTES)
        memcpy(r->note[r->n_notes++], text, sizeof text);
}

void source_report_add(struct source_report *r, const struct source_report *more)
{
    for (uint32_t i = 0; i < more->n_notes; i++)
        source_note(r, "%s", more->note[i]);
    for (uint32_t i = 0; i < more->n_parts; i++)
        source_part(r, more->part[i].name, more->part[i].bytes);
}

void source_part(struct source_report *r, const char *name, uint64_t bytes)
{
    if (bytes == 0)
        return;
    for (uint32_t i = 0; i < r->n_parts; i++)
        if (strncmp(r->part[i].name, name, SOURCE_NAME_BYTES - 1) == 0) {
            r->part[i].bytes += bytes;
            return;
        }
    if (r->n_parts == SOURCE_MAX_PARTS) { /* more ways than rows: the last row is for the rest */
        snprintf(r->part[SOURCE_MAX_PARTS - 1].name, SOURCE_NAME_BYTES, "others");
        r->part[SOURCE_MAX_PARTS - 1].bytes += bytes;
        return;
    }
    snprintf(r->part[r->n_parts].name, SOURCE_NAME_BYTES, "%s", name);
    r->part[r->n_parts++].bytes = bytes;
}
