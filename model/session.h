#ifndef MODEL_SESSION_H
#define MODEL_SESSION_H

/* A whole model in this process, for the commands that run without a pipeline (run, eval, bench, chat): one stage with all
 * layers, its paged KV, and a free list of blocks. One thread at a time; computing uses the session's own team. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"
#include "kernels/backend.h"
#include "kernels/device.h"

struct session;
struct model_params;

struct session_options {
    const struct device *device; /* NULL: the processors. The next six: device.h */
    unsigned threads;            /* 0: all processors this process may use */
    const char *isa;             /* cap of the kernels ("scalar", …); NULL: the best there is */
    enum threadpool_pin pin;
    enum prompt_gemm prompt_gemm;
    bool keep_file_layout;
    bool untested;
    uint32_t ctx;      /* positions a sequence may have; 0: min(the model's, 8192) */
    uint32_t parallel; /* sequences at once; 0: 1 */
    uint32_t batch_rows; /* most rows of one step; 0: 512 */
    enum kv_type kv;
    /* Called while loading, from this thread, with done ≤ total; NULL for none. */
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_arg;
};

/* Reads the header, checks everything that can be checked (architecture, tensors, memory against what is free), then loads.
 * Errors name the tensor or the limit. options NULL: defaults. */
struct session *session_open(const char *path, const struct session_options *options, struct err *err);
void session_close(struct session *s); /* takes NULL */

const struct gguf *session_gguf(const struct session *s);
const struct model_params *session_params(const struct session *s);
uint32_t session_n_vocab(const struct session *s);
uint32_t session_ctx(const struct session *s);
uint32_t session_parallel(const struct session *s);
uint32_t session_batch_rows(const struct session *s);
uint32_t session_threads(const struct session *s);
const char *session_isa(const struct session *s);       /* a GPU's name ("cuda:0") where one computes */
const char *session_placement(const struct session *s); /* of its threads: threadpool_placement */
uint64_t session_weight_bytes(const struct session *s);
uint64_t session_kv_bytes(const struct session *s);

struct session_row {
    uint32_t seq; /* below parallel */
    uint32_t pos; /* the next free position of the sequence: rows of one sequence ascend without gaps */
    int32_t token;
    bool want; /* its logits, or something that they say, are asked for */
};

/* Computes n ≤ batch_rows rows. Rows of several sequences mix freely. On success session_logits gives the wanted rows'
 * logits, counted from 0 in order of rows, valid until the next step. On error nothing was added to any sequence. */
int session_step(struct session *s, const struct session_row *rows, uint32_t n, struct err *err);
const float *session_logits(const struct session *s, uint32_t wanted_index);
/* The same, and the answers to what is asked of its wanted rows (model/answer.h): a device that samples keeps the logits. An error after
 * the rows were computed (a model whose logits are no numbers, a grammar that leaves no token) names the position; the rows stay. */
struct answer;
int session_answer(struct session *s, const struct session_row *rows, uint32_t n, struct answer *answers, uint32_t n_answers, struct err *err);
/* Rows of a step that may be wanted: fewer than a step may have where their logits would take a lot of the host's memory. */
uint32_t session_wanted_rows(const struct session *s);

/* Forgets the positions of a sequence from n on (0: all of it). Returns how many are kept: n, or 0 where the model's sliding
 * windows no longer hold what position n would look at; compute from there. */
uint32_t session_cut(struct session *s, uint32_t seq, uint32_t n);
uint32_t session_length(const struct session *s, uint32_t seq);

#endif
