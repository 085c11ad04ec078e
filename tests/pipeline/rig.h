#ifndef TESTS_PIPELINE_RIG_H
#define TESTS_PIPELINE_RIG_H

/* What tests of the pipeline share: answers as one session gives them, streams that are held against those, and a cluster of
 * real worker processes with keys, each behind a relay that can be made a bad network. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "coordinator/engine.h"

enum {
    RIG_TOP = 7,
    RIG_PROMPT_MAX = 150,
    RIG_NEW_MAX = 60,
    RIG_CTX = 320,
    RIG_PARALLEL = 4,
    RIG_ROWS = 32,
    RIG_NODES_MAX = 8,
    RIG_NOTES = 80,
};

/* --- numbers drawn by lot ------------------------------------------------------------------------------------------------ */
/* From SC_SEED, else the clock; printed, so that a run can be repeated (the kernel's timing aside). */
void rig_seed(void);
uint64_t rig_draw(uint64_t below);
int64_t rig_now_ms(void);
void rig_sleep_ms(int ms);

/* --- answers ------------------------------------------------------------------------------------------------------------- */
struct answer {
    int32_t prompt[RIG_PROMPT_MAX], tokens[RIG_NEW_MAX];
    uint32_t n_prompt, n_new;
    struct sample_params sample;
    int32_t top_ids[RIG_PROMPT_MAX + RIG_NEW_MAX][RIG_TOP];
    float top_logprobs[RIG_PROMPT_MAX + RIG_NEW_MAX][RIG_TOP], logprobs[RIG_NEW_MAX];
    uint32_t n, n_top;
};

/* n questions by lot, with the answers of one session in this process. Bails out on failure. */
void rig_answers(const char *model, struct answer *answers, uint32_t n);

/* --- streams ------------------------------------------------------------------------------------------------------------- */
struct stream {
    struct engine_request *r; /* NULL: free */
    const struct answer *want;
    bool with_top, cancelled, finished, failed, wrong;
    uint32_t cancel_at; /* UINT32_MAX: never */
    uint32_t n, n_top, pauses;
    int64_t token_ms, gap_ms; /* of the last token; the longest time between two of them */
    struct err err;
};

void stream_begin(struct stream *s, struct engine *e, const struct answer *want, bool with_top, uint32_t cancel_at);
/* Takes what is there, waiting at most so long for the first of it; true: the stream has ended. */
bool stream_read(struct stream *s, int wait_ms);
/* What came is what had to come. Releases it. */
bool stream_end(struct stream *s);

/* --- a cluster ----------------------------------------------------------------------------------------------------------- */
struct rig_node {
    char name[16];
    int port;       /* that it listens on */
    int relay_port; /* that others use */
    pid_t pid, relay;
    int relay_in, relay_out;
    char ram[24]; /* "": no limit */
    char devices[48]; /* "": what it finds */
};

struct rig {
    char folder[300], model[400];
    struct rig_node nodes[RIG_NODES_MAX];
    unsigned n;
    struct topology *topology;
    char key[RIG_NODES_MAX][80];
};

/* The program `stagecoach` of this build; skips all tests where it or the relay is not there. */
const char *rig_program(void);
/* A model of so many layers with feed-forward parts `big` times as wide, in a file of rig_folder. */
const char *rig_model(unsigned layers, uint32_t big);
/* Workers and relays, all started. memory: what each may use; standby: how many of the last ones are. */
struct rig *rig_create(const char *model, unsigned n, unsigned standby, uint64_t memory);
/* The same with devices[i] as node i's, such as "cpu:0,cpu:1", NULL: the processors; memory is each one's. What they can do is not
 * measured, so that plans do not depend on what else the machine does. */
struct rig *rig_create_on(const char *model, unsigned n, unsigned standby, uint64_t memory, const char *const *devices);
void rig_destroy(struct rig *rig); /* ends all processes */
/* The least memory a node may have for so many of its kind to hold the model. */
uint64_t rig_memory_for(const char *model, unsigned nodes);
void rig_start(struct rig *rig, unsigned node);
/* Reaps; the worker's exit status as waitpid gives it, or -1: it runs. */
int rig_reap(struct rig *rig, unsigned node);
/* One command to the node's relay. */
void rig_link(struct rig *rig, unsigned node, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Stage i of the pipeline is on node i, with the layers divided evenly. */
void rig_pin(struct rig *rig, unsigned stages, unsigned layers);

/* Options for an engine over the rig (NULL: n own workers); notes are kept. */
struct engine_options rig_options(struct rig *rig, const char *model, unsigned workers);
/* Creates it and waits until it is ready; bails out otherwise. */
struct engine *rig_engine(const struct engine_options *o);
void rig_show_notes(void);
void rig_show_logs(void); /* what the workers said last */
/* The last sentence of the engine that contains `text`; false: there is none since rig_forget_notes. */
bool rig_note(const char *text, char *ret, size_t bytes);
int64_t rig_note_ms(const char *text); /* when it said that, by rig_now_ms; -1: it did not */
void rig_forget_notes(void);
_Noreturn void rig_bail(const char *what, const struct err *err);

/* So that what it does next needs more memory than it gets; RIG_CAN_LIMIT 0: sanitizers end a process then. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { RIG_CAN_LIMIT = 0 };
#else
enum { RIG_CAN_LIMIT = 1 };
#endif
void rig_limit_memory(pid_t pid, bool on);
/* How often the node's log has this text. */
unsigned rig_said(const struct rig *rig, unsigned node, const char *text);
/* Open descriptors, and resident KiB, of a process. */
int rig_fds(pid_t pid);
long rig_rss_kib(pid_t pid);

#endif
