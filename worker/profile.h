#ifndef WORKER_PROFILE_H
#define WORKER_PROFILE_H

/* What this machine's devices can do, measured: what a plan reckons with. `stagecoach probe` measures everything, a worker at its
 * start what takes little time. Blocks, and keeps the device, or all threads of the backend, busy: nothing else should run meanwhile.
 * What is taken of a device's memory, a quarter of what is free at most, is given back. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/threadpool.h"
#include "gguf/quant.h"
#include "kernels/backend.h"

enum { PROFILE_MAX_RATES = 64 };

/* When to stop measuring something that is done again and again: after two windows of half of ms that say the same, or four times ms.
 * A machine that is held back from time to time (a control group's quota, others on its host) does more in one window than in the
 * next, and what it did in the first says little. */
struct profile_watch {
    double began, now, window_s, window_began, per_s;
    unsigned n, n_window;
};
void profile_watch_start(struct profile_watch *w, unsigned ms);
/* One more is done. true: that is enough; `now` - `began` seconds were n. */
bool profile_watch_done(struct profile_watch *w);

/* Rows that a rate is measured with: one answer, a few together, a prompt. */
enum profile_rows { PROFILE_ROW, PROFILE_FEW, PROFILE_PROMPT, PROFILE_ROWS };
extern const uint32_t profile_rows[PROFILE_ROWS];

struct profile_rate {
    enum quant_type type;
    double per_s[PROFILE_ROWS]; /* multiplications and additions; 0: not measured */
};

/* Bytes a second that the team's threads read together from memory larger than any cache, of `bytes` at least. */
int profile_read(struct threadpool *team, uint64_t bytes, unsigned ms, double *ret_per_s, struct err *err);
/* The backend's products with matrices of ret->type, for about ms with each number of rows. Matrices of which few rows make use
 * come from memory, as a model's do, not from a cache. */
int profile_rate(struct backend *be, unsigned ms, struct profile_rate *ret, struct err *err);
/* The backend's attention over a thousand positions of an F16 cache: one row, a row of each of eight sequences, the last rows of a
 * prompt; operations a second, as rates count them. */
int profile_attention(struct backend *be, unsigned ms, double ret_per_s[PROFILE_ROWS], struct err *err);

/* How fast the device reads its memory, and how rows get there and back: bytes a second; 0: it is the host's memory. */
struct profile_memory {
    double read_per_s, copy_per_s, back_per_s;
};
/* Over so many bytes, where the device is not too slow for them. */
int profile_memory(struct backend *be, uint64_t bytes, unsigned ms, struct profile_memory *ret, struct err *err);
/* From one device's memory straight to another's; 0: it does not reach. */
int profile_peer(struct backend *from, struct backend *to, uint64_t bytes, double *ret_per_s, struct err *err);
/* Bytes a second of a file read past the page cache (O_DIRECT), several reads at a time. ERR_UNSUPPORTED where its file system has no
 * such reads. */
int profile_disk(const char *path, unsigned ms, double *ret_per_s, struct err *err);

#endif
