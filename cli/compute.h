#ifndef CLI_COMPUTE_H
#define CLI_COMPUTE_H

/* On which devices a process computes, and how: options that `worker` and all commands that run a model have in common, and what
 * they mean to the libraries. */

#include "base/opts.h"
#include "kernels/device.h"

struct compute_options {
    const char *isa, *pin, *prompt_gemm, *weights, *cuda; /* NULL, or the default: as usual */
    const char *device;                            /* "cpu,cuda:0", "auto"; NULL: not given */
    struct opt_list vram;                          /* "cuda:0=20GiB" */
    int64_t threads;                               /* 0: not given */
};
extern const struct opt compute_option_table[]; /* offsets of struct compute_options */

/* Choices are checked by opts. */
void compute_how(const struct compute_options *o, struct device_options *ret);
bool compute_untested(const struct compute_options *o); /* kernels for GPUs that have not proved themselves */
/* otherwise: what to take where no device is given, "cpu" or "auto". Notes (a line each): what is there and is not used. */
int compute_devices(const struct compute_options *o, const char *otherwise, struct device_list *ret, struct strbuf *notes, struct err *err);
/* Several are named: a process of its own has a stage on each. */
bool compute_is_list(const struct compute_options *o);
/* The arguments that give a worker process the same, --threads and --isa aside; NULL-terminated. They borrow o's strings. */
enum { COMPUTE_ARGS_MAX = 48 };
int compute_args(const struct compute_options *o, const char *ret[COMPUTE_ARGS_MAX + 1], struct err *err);
/* The first option that workers elsewhere have to be given themselves; NULL: none was given. */
const char *compute_given(const struct compute_options *o);

#endif
