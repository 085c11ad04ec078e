/* See local.h. */
#include "cli/local.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/keydir.h"
#include "cli/ui.h"
#include "coordinator/plan_input.h"
#include "kernels/backend.h"

enum { NOTES_MAX_BYTES = 4096, CTX_DEFAULT = 8192, CTX_MAX = 1 << 24, PARALLEL_MAX = 1024 };

static const char *const kv_names[] = {"f16", "f32", "q8_0", NULL};
static const enum kv_type kv_types[] = {KV_F16, KV_F32, KV_Q8_0};
static const char *const objective_names[] = {"latency", "throughput", "balanced", NULL};
static const enum plan_objective objectives[] = {PLAN_LATENCY, PLAN_THROUGHPUT, PLAN_BALANCED};
static const char *const wire_names[] = {"f32", "f16", "q8_0", "auto", NULL};
static const enum act_type wire_types[] = {ACT_F32, ACT_F16, ACT_Q8_0, ACT_F32};

const struct opt model_option_table[] = {
    {"model", 'm', OPT_STRING, .required = true, .arg = "FILE", .offset = offsetof(struct model_options, model),
     .help = "GGUF file; of a split model any part. run, chat, serve, eval and bench also take a URL or hf:OWNER/REPO:FILE (see pull)"},
    {"ctx", 'c', OPT_INT, .arg = "N", .offset = offsetof(struct model_options, ctx), .min = 1, .max = CTX_MAX,
     .help = "Positions (prompt and answer) a sequence may have (default: the model's, at most 8192)"},
    {"parallel", 0, OPT_INT, .arg = "N", .offset = offsetof(struct model_options, parallel), .min = 1, .max = PARALLEL_MAX,
     .help = "Sequences computed together (default: as many as there are, at most 8)"},
    {"kv", 0, OPT_CHOICE, .arg = "TYPE", .offset = offsetof(struct model_options, kv), .choices = kv_names, .def = "f16",
     .help = "How keys and values are kept"},
    {"workers", 0, OPT_INT, .arg = "N", .offset = offsetof(struct model_options, workers), .min = 1, .max = ENGINE_MAX_WORKERS,
     .help = "Split the model over N worker processes on this machine, --threads each (default: the processors divided evenly); several devices "
             "in --device are one such process"},
    {"topology", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct model_options, topology),
     .help = "Split the model over the machines that this file names"},
    {"wire", 0, OPT_CHOICE, .arg = "TYPE", .offset = offsetof(struct model_options, wire), .choices = wire_names, .def = "f32",
     .help = "How activations travel between stages; auto: f16 where a link is the bottleneck"},
    {"objective", 0, OPT_CHOICE, .arg = "WHAT", .offset = offsetof(struct model_options, objective), .choices = objective_names, .def = "balanced",
     .help = "What the layers are split for: one answer's latency, the throughput of many, or both"},
    {"prompt-share", 0, OPT_FLOAT, .arg = "X", .offset = offsetof(struct model_options, prompt_share), .max = PLAN_MAX_PROMPT_SHARE, .def = "2",
     .help = "Prompt tokens that are read for each token of an answer: what throughput and balanced reckon with (0: answers alone)"},
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct model_options, keys),
     .help = "This node's keys (default: ~/.config/stagecoach)"},
    {0},
};

const struct opt sample_option_table[] = {
    {"temp", 0, OPT_FLOAT, .arg = "T", .offset = offsetof(struct sample_options, temp), .max = 100, .def = "0.8",
     .help = "Temperature; 0 always takes the likeliest token"},
    {"top-k", 0, OPT_INT, .arg = "K", .offset = offsetof(struct sample_options, top_k), .max = 1 << 24, .def = "40",
     .help = "Choose among the K likeliest tokens; 0: all"},
    {"top-p", 0, OPT_FLOAT, .arg = "P", .offset = offsetof(struct sample_options, top_p), .max = 1, .def = "0.95",
     .help = "Choose among the likeliest tokens that together have probability P; 1: all"},
    {"min-p", 0, OPT_FLOAT, .arg = "P", .offset = offsetof(struct sample_options, min_p), .max = 1, .def = "0.05",
     .help = "Drop tokens less likely than P times the likeliest; 0: none"},
    {"typical", 0, OPT_FLOAT, .arg = "P", .offset = offsetof(struct sample_options, typical), .max = 1, .def = "1",
     .help = "Choose among the most typical tokens that together have probability P; 1: all"},
    {"repeat-penalty", 0, OPT_FLOAT, .arg = "X", .offset = offsetof(struct sample_options, repeat_penalty), .min = 0.01, .max = 100,
     .def = "1", .help = "Weaken tokens that came before by this factor; 1: not"},
    {"presence-penalty", 0, OPT_FLOAT, .arg = "X", .offset = offsetof(struct sample_options, presence_penalty), .min = -100, .max = 100,
     .def = "0", .help = "Subtract X from the logits of tokens that came before"},
    {"frequency-penalty", 0, OPT_FLOAT, .arg = "X", .offset = offsetof(struct sample_options, frequency_penalty), .min = -100, .max = 100,
     .def = "0", .help = "The same, once for each time they came"},
    {"repeat-last", 0, OPT_INT, .arg = "N", .offset = offsetof(struct sample_options, repeat_last), .min = -1, .max = CTX_MAX, .def = "64",
     .help = "How many of the last tokens the penalties look at; -1: all"},
    {"seed", 's', OPT_UINT, .arg = "S", .offset = offsetof(struct sample_options, seed),
     .help = "The same seed gives the same answer (default: another one each time)"},
    {0},
};

void sample_options_get(const struct sample_options *o, bool seeded, struct sample_params *ret)
{
    uint32_t random = 0;

    *ret = (struct sample_params){
        .temperature = (float)o->temp,
        .top_k = (uint32_t)o->top_k,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .typical_p = (float)o->typical,
        .repetition_penalty = (float)o->repeat_penalty,
        .presence_penalty = (float)o->presence_penalty,
        .frequency_penalty = (float)o->frequency_penalty,
        .penalty_last = (int32_t)o->repeat_last,
        .seed = o->seed,
    };
    if (!seeded) {
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
            random = (uint32_t)time(NULL);
        ret->seed = random; /* 32 bits: short enough to be typed again */
    }
}

struct sample_bias *sample_bias_parse(const struct opt_list *items, struct err *err)
{
    struct sample_bias *bias = mem_new(items->len, sizeof *bias, err);
    char shown[64];

    if (!bias)
        return NULL;
    for (size_t i = 0; i < items->len; i++) {
        char *equals, *end;
        long id = strtol(items->items[i], &equals, 10);
        double value = *equals == '=' ? strtod(equals + 1, &end) : 0;
        if (equals == items->items[i] || *equals != '=' || end == equals + 1 || *end || id < 0 || id > INT32_MAX) {
            err_printable(shown, sizeof shown, items->items[i], strlen(items->items[i]));
            err_set(err, ERR_USAGE, "--bias: \"%s\" is not ID=BIAS, such as 42=-5 or 42=-inf", shown);
            free(bias);
            return NULL;
        }
        bias[i] = (struct sample_bias){(int32_t)id, (float)value};
    }
    return bias;
}

/* --- opening ------------------------------------------------------------- */

static uint32_t trained_ctx(const struct gguf *g)
{
    struct gguf_str arch;
    struct err err;
    char key[128];
    uint32_t n = 0;

    if (gguf_get_str(g, "general.architecture", &arch, &err) != 1 || arch.len > 64)
        return 0;
    snprintf(key, sizeof key, "%.*s.context_length", (int)arch.len, arch.s);
    return gguf_get_u32(g, key, &n, &err) == 1 ? n : 0;
}

int local_open(struct local *l, const struct model_options *options, struct err *err)
{
    const char *slash = strrchr(options->model, '/'), *name = slash ? slash + 1 : options->model;

    *l = (struct local){.options = options};
    err_printable(l->name, sizeof l->name, name, strlen(name));
    l->header = gguf_open(options->model, options->topology != NULL, err); /* remote workers may have the rest */
    if (!l->header)
        return -1;
    l->ctx_model = trained_ctx(l->header);
    l->ctx = l->ctx_model && l->ctx_model < CTX_DEFAULT ? l->ctx_model : CTX_DEFAULT;
    if (options->ctx)
        l->ctx = (uint32_t)options->ctx;
    l->tokenizer = tokenizer_create(l->header, err);
    return l->tokenizer ? 0 : err_wrap(err, "%s", l->name);
}

struct load_progress {
    struct ui_progress bar;
    char what[300];
};

static void on_load(void *arg, uint64_t done, uint64_t total)
{
    ui_progress(&((struct load_progress *)arg)->bar, done, total);
}

/* A cap that this processor lacks is no error, but whoever names one wants to know what it came to. */
static void say_isa(const char *cap, const char *isa)
{
    struct strbuf levels;
    if (!cap || strcmp(cap, isa) == 0)
        return;
    strbuf_init(&levels, 256);
    backend_cpu_levels(&levels);
    ui_say("--isa %s: this processor (or its kernel) lacks it; it has %s; computing with %s", cap, strbuf_str(&levels), isa);
    strbuf_fini(&levels);
}

static enum kv_type kv_of(const struct model_options *o)
{
    for (size_t i = 0; kv_names[i]; i++)
        if (o->kv && strcmp(o->kv, kv_names[i]) == 0)
            return kv_types[i];
    return KV_F16;
}

/* --- a pipeline ------------------------------------------------------------------------------------------------------------ */

static void on_note(void *arg, const struct engine_note *note)
{
    (void)arg;
    if (note->kind == ENGINE_NOTE_TROUBLE)
        ui_say("%s", note->text);
}

/* Wrong names are better told here than by each worker process. */
static int find_devices(const struct compute_options *o, struct device_list *ret, struct err *err)
{
    struct strbuf notes;
    strbuf_init(&notes, NOTES_MAX_BYTES);
    int rc = compute_devices(o, "cpu", ret, &notes, err);
    for (const char *at = strbuf_str(&notes); rc == 0 && *at; at += strcspn(at, "\n") + 1)
        ui_say("%.*s", (int)strcspn(at, "\n"), at);
    strbuf_fini(&notes);
    if (rc == 0 && !o->device && compute_untested(o))
        ui_say("--cuda untested, but no GPU is named: the processor computes (--device cuda:0, or auto)");
    return rc;
}

int local_engine_options(const struct model_options *o, struct engine_options *ret, struct topology **ret_topology, struct err *err)
{
    static char keys[KEYDIR_PATH]; /* the options borrow them */
    static const char *worker_args[COMPUTE_ARGS_MAX + 1];
    struct device_list devices;

    *ret_topology = NULL;
    if (o->topology && compute_given(&o->compute))
        return err_set(err, ERR_USAGE, "%s with --topology: say it to the workers there (\"stagecoach worker %s …\")", compute_given(&o->compute),
                       compute_given(&o->compute));
    if (find_devices(&o->compute, &devices, err) != 0 || compute_args(&o->compute, worker_args, err) != 0)
        return -1;
    if (keydir_find(o->keys, keys, err) != 0 && o->topology)
        return -1;
    if (o->topology && o->join_listen && access(o->topology, F_OK) != 0 && errno == ENOENT) {
        if ((*ret_topology = topology_create(err)))
            (*ret_topology)->listen = o->join_listen;
    } else if (o->topology) {
        *ret_topology = topology_load(o->topology, err);
    }
    if (o->topology && !*ret_topology)
        return -1;
    *ret = (struct engine_options){
        .model = o->model,
        .topology = *ret_topology,
        .topology_path = o->topology,
        .join_listen = o->join_listen,
        .keys_dir = keys[0] ? keys : NULL,
        .program = "/proc/self/exe",
        .runtime_dir = getenv("XDG_RUNTIME_DIR"),
        .isa = o->compute.isa,
        .workers = (unsigned)o->workers,
        .threads = (unsigned)o->compute.threads,
        .worker_args = worker_args,
        .ctx = (uint32_t)o->ctx,
        .parallel = (uint32_t)o->parallel,
        .kv = kv_of(o),
        .prompt_share = o->prompt_share > 0 ? o->prompt_share : PLAN_ANSWERS_ALONE,
        .gather_ms = (uint32_t)(o->gather * 1000),
    };
    if (*ret_topology && (*ret_topology)->ctx && !o->ctx)
        ret->ctx = (*ret_topology)->ctx;
    for (size_t i = 0; wire_names[i]; i++)
        if (o->wire && strcmp(o->wire, wire_names[i]) == 0)
            ret->wire = wire_types[i];
    for (size_t k = 0; objective_names[k]; k++)
        if (o->objective && strcmp(o->objective, objective_names[k]) == 0)
            ret->objective = objectives[k];
    ret->wire_auto = o->wire && strcmp(o->wire, "auto") == 0;
    return 0;
}

static int load_engine(struct local *l, uint32_t parallel, uint32_t batch_rows, struct err *err)
{
    struct engine_options eo;
    double start = ui_seconds();

    if (local_engine_options(l->options, &eo, &l->topology, err) != 0)
        return -1;
    eo.ctx = eo.ctx ? eo.ctx : l->ctx;
    eo.parallel = eo.parallel ? eo.parallel : parallel;
    eo.batch_rows = batch_rows;
    eo.note = on_note;
    eo.trace_path = l->trace;
    if (!(l->engine = engine_create(&eo, err)))
        return -1;
    ui_watch_interrupt(true);
    for (int rc; (rc = engine_wait_ready(l->engine, 200, err)) != 0;) {
        if (rc < 0 || ui_interrupted()) {
            ui_unwatch_interrupt();
            return rc < 0 ? -1 : err_set(err, ERR_CANCELLED, "interrupted");
        }
    }
    ui_unwatch_interrupt();
    l->load_seconds = ui_seconds() - start;
    l->ctx = engine_ctx(l->engine);
    return 0;
}

bool local_in_pipeline(const struct model_options *o)
{
    return o->workers || o->topology || compute_is_list(&o->compute);
}

/* --- in this process ------------------------------------------------------------------------------------------------------- */

int local_load(struct local *l, uint32_t parallel, uint32_t batch_rows, struct err *err)
{
    const struct model_options *o = l->options;
    if (local_in_pipeline(o))
        return load_engine(l, parallel, batch_rows, err);
    struct load_progress progress;
    struct device_options how;
    struct device_list devices;
    if (find_devices(&o->compute, &devices, err) != 0)
        return -1;
    compute_how(&o->compute, &how);
    struct session_options so = {
        .device = &devices.item[0],
        .threads = how.threads,
        .isa = how.isa,
        .pin = how.pin,
        .prompt_gemm = how.prompt_gemm,
        .keep_file_layout = how.keep_file_layout,
        .untested = how.untested,
        .ctx = l->ctx,
        .parallel = o->parallel ? (uint32_t)o->parallel : parallel,
        .batch_rows = batch_rows,
        .kv = kv_of(o),
        .progress = on_load,
        .progress_arg = &progress,
    };
    double start = ui_seconds();

    if (how.prompt_gemm != GEMM_INT8)
        ui_say("--prompt-gemm %s: answers are no longer reproducible; they depend on what is computed together and on the processor",
               o->compute.prompt_gemm);
    snprintf(progress.what, sizeof progress.what, "loading %s", l->name);
    ui_progress_begin(&progress.bar, progress.what, true);
    l->session = session_open(o->model, &so, err);
    ui_progress_end(&progress.bar);
    if (!l->session)
        return -1;
    l->load_seconds = ui_seconds() - start;
    if (devices.item[0].kind == DEVICE_CPU)
        say_isa(o->compute.isa, session_isa(l->session));
    l->ctx = session_ctx(l->session);
    gguf_close(l->header);
    l->header = NULL;
    return 0;
}

uint32_t local_n_vocab(const struct local *l)
{
    return l->session ? session_n_vocab(l->session) : engine_n_vocab(l->engine);
}

void local_close(struct local *l)
{
    engine_destroy(l->engine);
    topology_destroy(l->topology);
    session_close(l->session);
    tokenizer_destroy(l->tokenizer);
    gguf_close(l->header);
    *l = (struct local){0};
}

int local_check_room(const struct local *l, const char *what, size_t n_prompt, uint64_t n_new, struct err *err)
{
    uint64_t need = n_prompt + n_new - (n_new > 0); /* the last token is chosen, but not computed */
    char hint[96] = "";

    if (need <= l->ctx)
        return 0;
    if (l->ctx_model > l->ctx)
        snprintf(hint, sizeof hint, " (the model was made for %u)", l->ctx_model);
    if (n_prompt > l->ctx)
        return err_set(err, ERR_USAGE, "%s has %zu tokens, the context %u positions; raise --ctx%s or shorten it", what, n_prompt, l->ctx, hint);
    return err_set(err, ERR_USAGE, "%s has %zu tokens and %llu more are to come: %llu positions, the context has %u; raise --ctx%s or lower -n",
                   what, n_prompt, (unsigned long long)n_new, (unsigned long long)need, l->ctx, hint);
}

/* --- chat ---------------------------------------------------------------- */

/* For models without a template of their own: names at the heads of paragraphs, which any base model goes on with. */
static const char plain_template[] = "{{ bos_token }}{% for message in messages %}"
                                     "{{ message.role | capitalize }}: {{ message.content }}\n\n"
                                     "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

static const struct gguf *header_of(const struct local *l)
{
    return l->session ? session_gguf(l->session) : l->header;
}

struct template *local_template(const struct local *l, bool *ret_fallback, struct err *err)
{
    struct gguf_str source = {plain_template, sizeof plain_template - 1};
    struct template *t;
    int found = gguf_get_str(header_of(l), "tokenizer.chat_template", &source, err);

    if (found < 0)
        return NULL;
    *ret_fallback = found == 0;
    t = template_compile("tokenizer.chat_template", source.s, source.len, err);
    if (!t)
        err_wrap(err, "%s", l->name);
    return t; /* cppcheck-suppress CastIntegerToAddressAtReturn */
}

static json_t *spelling(const struct tokenizer *t, int32_t id)
{
    size_t len = 0;
    const char *s = tokenizer_spelling(t, id, &len);
    return s ? json_stringn_nocheck(s, len) : json_string("");
}

int local_chat_tokens(const struct local *l, const struct template *t, json_t *messages, struct token_list *ret, struct err *err)
{
    struct template_output out = {0};
    json_t *context = json_pack("{s:O, s:b, s:o, s:o}", "messages", messages, "add_generation_prompt", 1, "bos_token",
                                spelling(l->tokenizer, tokenizer_bos(l->tokenizer)), "eos_token",
                                spelling(l->tokenizer, tokenizer_eos(l->tokenizer)));
    int32_t bos = tokenizer_bos(l->tokenizer);
    size_t before = ret->len;
    int rc = -1;

    if (!context)
        return err_set(err, ERR_MEMORY, "chat template: out of memory");
    if (template_render(t, context, time(NULL), NULL, &out, err) != 0)
        goto done;
    rc = tokenizer_encode_parts(l->tokenizer, strbuf_str(&out.text), out.parts, out.n_parts, TOKENIZE_PARSE_SPECIAL, ret, err);
    /* Most templates write bos_token themselves; where one does not, the model still expects it. */
    if (rc == 0 && tokenizer_adds_bos(l->tokenizer) && bos >= 0 && (ret->len == before || ret->ids[before] != bos)) {
        rc = mem_grow(&ret->ids, &ret->cap, ret->len + 1, sizeof *ret->ids, SIZE_MAX / sizeof *ret->ids, "tokens", err);
        if (rc == 0) {
            memmove(ret->ids + before + 1, ret->ids + before, (ret->len - before) * sizeof *ret->ids);
            ret->ids[before] = bos;
            ret->len++;
        }
    }
done:
    template_output_fini(&out);
    json_decref(context);
    return rc;
}
