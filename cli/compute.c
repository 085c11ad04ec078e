/* See compute.h. */
#include "cli/compute.h"

#include <string.h>

static const char *const gemm_names[] = {"int8", "blas", "blas-all", NULL};
static const enum prompt_gemm gemms[] = {GEMM_INT8, GEMM_BLAS, GEMM_BLAS_ALL};
static const char *const weights_names[] = {"packed", "file", NULL};
static const char *const cuda_names[] = {"tested", "untested", NULL};
static const char *const pin_names[] = {"auto", "no", "yes", NULL};
static const enum threadpool_pin pins[] = {THREADPOOL_PIN_AUTO, THREADPOOL_PIN_NO, THREADPOOL_PIN_YES};

const struct opt compute_option_table[] = {
    {"device", 0, OPT_STRING, .arg = "LIST", .offset = offsetof(struct compute_options, device),
     .help = "What computes: cpu, cuda:0, … or several with commas between them, a stage of the model on each; cpu:0,cpu:1 divide the processors, by "
             "memory nodes where there are as many; auto: the processors and every GPU that can be used"},
    {"vram", 0, OPT_LIST, .arg = "DEVICE=SIZE", .offset = offsetof(struct compute_options, vram),
     .help = "Memory of a GPU that may be used, such as cuda:0=20GiB (default: what is free)"},
    {"threads", 't', OPT_INT, .arg = "N", .offset = offsetof(struct compute_options, threads), .min = 1, .max = 1024,
     .help = "Threads that compute (default: as many as this process may use processors)"},
    {"pin", 0, OPT_CHOICE, .arg = "WHEN", .offset = offsetof(struct compute_options, pin), .choices = pin_names, .def = "auto",
     .help = "Bind each thread to a processor, one of each core first; auto: where no other Stagecoach on this machine has taken them, or "
             "where the threads are as many as the processors; yes: fail otherwise"},
    {"isa", 0, OPT_STRING, .arg = "CAP", .offset = offsetof(struct compute_options, isa),
     .help = "Best instruction set that may be used, such as scalar (default: the processor's)"},
    {"prompt-gemm", 0, OPT_CHOICE, .arg = "HOW", .offset = offsetof(struct compute_options, prompt_gemm), .choices = gemm_names, .def = "int8",
     .help = "What computes prompts; blas: OpenBLAS, where weights are floats or --isa is scalar, and on a GPU cuBLAS, where they are floats; answers "
             "are then not reproducible"},
    {"weights", 0, OPT_CHOICE, .arg = "HOW", .offset = offsetof(struct compute_options, weights), .choices = weights_names, .def = "packed",
     .help = "How weights lie in memory; file: as in the file, which takes up to 4% less and is slower (docs/performance.md)"},
    {"cuda", 0, OPT_CHOICE, .arg = "WHICH", .offset = offsetof(struct compute_options, cuda), .choices = cuda_names, .def = "tested",
     .help = "Kernels for GPUs that may be used; untested: also those that have never run on a real one of its kind (docs/cuda.md)"},
    {0},
};

static size_t chosen(const char *value, const char *const *names)
{
    for (size_t i = 0; value && names[i]; i++)
        if (strcmp(value, names[i]) == 0)
            return i;
    return 0;
}

bool compute_untested(const struct compute_options *o)
{
    return chosen(o->cuda, cuda_names) == 1;
}

void compute_how(const struct compute_options *o, struct device_options *ret)
{
    *ret = (struct device_options){
        .threads = (unsigned)o->threads,
        .isa = o->isa,
        .pin = pins[chosen(o->pin, pin_names)],
        .prompt_gemm = gemms[chosen(o->prompt_gemm, gemm_names)],
        .keep_file_layout = chosen(o->weights, weights_names) == 1,
        .untested = compute_untested(o),
    };
}

int compute_devices(const struct compute_options *o, const char *otherwise, struct device_list *ret, struct strbuf *notes, struct err *err)
{
    const char *text = o->device ? o->device : otherwise;
    struct device_options how;
    int rc;

    compute_how(o, &how);
    rc = strcmp(text, "auto") == 0 ? device_list_auto(&how, ret, notes, err) : device_list_parse(text, ret, err);
    if (rc != 0)
        return err_wrap(err, "--device");
    for (size_t i = 0; i < o->vram.len; i++)
        if (device_list_limit(ret, o->vram.items[i], err) != 0)
            return err_wrap(err, "--vram");
    return 0;
}

bool compute_is_list(const struct compute_options *o)
{
    return o->device && (strchr(o->device, ',') || strcmp(o->device, "auto") == 0);
}

int compute_args(const struct compute_options *o, const char *ret[COMPUTE_ARGS_MAX + 1], struct err *err)
{
    const struct {
        const char *name, *value;
        bool given;
    } all[] = {
        {"--device", o->device, o->device != NULL},
        {"--pin", o->pin, chosen(o->pin, pin_names) > 0},
        {"--prompt-gemm", o->prompt_gemm, chosen(o->prompt_gemm, gemm_names) > 0},
        {"--weights", o->weights, chosen(o->weights, weights_names) > 0},
        {"--cuda", o->cuda, compute_untested(o)},
    };
    size_t n = 0;

    if (2 * (o->vram.len + sizeof all / sizeof *all) > COMPUTE_ARGS_MAX)
        return err_set(err, ERR_USAGE, "--vram is given %zu times; there are at most %d devices", o->vram.len, DEVICE_MAX);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].given)
            ret[n++] = all[i].name;
        if (all[i].given)
            ret[n++] = all[i].value;
    }
    for (size_t i = 0; i < o->vram.len; i++) {
        ret[n++] = "--vram";
        ret[n++] = o->vram.items[i];
    }
    ret[n] = NULL;
    return 0;
}

const char *compute_given(const struct compute_options *o)
{
    return o->device                                    ? "--device"
           : o->vram.len                                ? "--vram"
           : chosen(o->pin, pin_names) > 0              ? "--pin"
           : chosen(o->prompt_gemm, gemm_names) > 0     ? "--prompt-gemm"
           : chosen(o->weights, weights_names) > 0      ? "--weights"
           : compute_untested(o)                        ? "--cuda"
                                                        : NULL;
}
