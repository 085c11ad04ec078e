#ifndef MODEL_SOURCE_H
#define MODEL_SOURCE_H

/* Where a model's bytes come from: files on this machine (source_file_create), or others who have them
 * (model/source_remote.h). The loader says once which ranges it needs, in the order it wants them; the threads of its team
 * then take whatever has arrived, several ranges being under way at any time. A source is used for one load.
 *
 * One caller drives begin, end and destroy; `next` and `done` are called by all its threads at once; cancel and report come from
 * any thread at any time. Errors name the file or the peer and the offset; the loader adds the tensor. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"

enum { SOURCE_MAX_NOTES = 8, SOURCE_NOTE_BYTES = 200, SOURCE_MAX_PARTS = 8, SOURCE_NAME_BYTES = 48 };

struct source_range {
    uint64_t offset; /* in its split */
    uint32_t bytes;
    uint32_t split;
};

/* A range that is there. data stays until it is handed to `done`; slot is the source's own. */
struct source_data {
    size_t range; /* its number */
    const char *data;
    uint32_t slot;
};

/* What a load did: bytes by the way they came, and each fallback from the best way, said once: for the caller to show. */
struct source_report {
    struct {
        char name[SOURCE_NAME_BYTES]; /* "direct", "page cache", "buffered", a peer's name, "cache" */
        uint64_t bytes;
    } part[SOURCE_MAX_PARTS];
    uint32_t n_parts;
    char note[SOURCE_MAX_NOTES][SOURCE_NOTE_BYTES];
    uint32_t n_notes;
};

struct weight_source;

struct weight_source_ops {
    /* How much the source likes to be asked for at once by a team of so many; a range may be longer where it must. */
    uint32_t (*range_bytes)(const struct weight_source *, unsigned threads);
    /* ranges: ascending by split and offset; they stay where they are until `end`. threads: how many will call `next`. */
    int (*begin)(struct weight_source *, const struct source_range *ranges, size_t n, unsigned threads, struct err *);
    /* Any range that has arrived and that no other call got. Blocks until there is one. 1: *ret; 0: none is left to come;
     * -1: failed or cancelled, and so will every later call; ret->range is then the range that failed, or SIZE_MAX where none
     * in particular did. thread is below begin's threads. */
    int (*next)(struct weight_source *, unsigned thread, struct source_data *ret, struct err *);
    void (*done)(struct weight_source *, const struct source_data *);
    /* After the last `next` of all threads, whether it went well or not: waits for what is still under way. -1 when what was
     * read turns out not to count (a file that changed meanwhile). */
    int (*end)(struct weight_source *, struct err *);
    /* Where all that `next` gives lies, from begin to destroy: whole pages; NULL: no one place. */
    void *(*buffers)(const struct weight_source *, size_t *ret_bytes);
    void (*cancel)(struct weight_source *);
    void (*report)(const struct weight_source *, struct source_report *ret); /* so far */
    void (*destroy)(struct weight_source *);
};

/* First member of every source. */
struct weight_source {
    const struct weight_source_ops *ops;
};

void weight_source_destroy(struct weight_source *s); /* takes NULL */
void weight_source_cancel(struct weight_source *s);

/* For sources: adds a note unless it is already there. */
void source_note(struct source_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void source_part(struct source_report *r, const char *name, uint64_t bytes); /* adds up by name; 0 bytes: nothing */
void source_report_add(struct source_report *r, const struct source_report *more);

/* The model's own files. What lies in the page cache is copied from there; the rest is read by io_uring past the page cache
 * (O_DIRECT) into buffers registered with the kernel. Where one of these cannot be had, the next best way is taken and
 * noted. The fields switch ways off, for tests and measurements, and change sizes; all 0 is right for loading. */
struct source_file_options {
    bool no_uring;      /* pread */
    bool no_direct;     /* through the page cache */
    bool no_registered; /* buffers as they are */
    bool all_cold;      /* take nothing for resident */
    uint32_t range_bytes, in_flight; /* 0: SOURCE_FILE_RANGE and SOURCE_FILE_IN_FLIGHT */
};
enum { SOURCE_FILE_RANGE = 1 << 20, SOURCE_FILE_RANGE_MIN = 128 << 10, SOURCE_FILE_IN_FLIGHT = 6, SOURCE_FILE_MAX_IN_FLIGHT = 64 };

/* g must outlive the source; options NULL: defaults. A header from memory has no files: ERR_USAGE. */
struct weight_source *source_file_create(const struct gguf *g, const struct source_file_options *options, struct err *err);

#endif
