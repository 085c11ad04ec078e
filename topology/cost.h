#ifndef TOPOLOGY_COST_H
#define TOPOLOGY_COST_H

/* How long a pipeline takes: the formulas that the planner predicts with and the coordinator schedules by, with rates from a
 * file, from probes or from measured steps. Pure functions of numbers in microseconds; any thread. docs/planning.md derives
 * them.
 *
 * A stage computes a batch in max(read, compute) + fixed + copy: reading the weights that the batch's rows touch and their sequences'
 * keys and values from memory, and multiplying; rows come to a device and leave it by copies. A hop takes latency + rows / rate. */

#include <stdbool.h>
#include <stdint.h>

enum { COST_MAX_STAGES = 64, COST_MAX_GROUPS = 8, COST_MAX_CHUNKS = 4096, COST_ROWS = 3 };

/* Numbers of rows that products are measured with: one, a few, a prompt's. Rows of a batch share the unfolding of weights, so one
 * among many costs less than one alone; between these the time is interpolated. */
extern const double cost_rows[COST_ROWS];

/* Multiplying with a part's matrices: a row, where there are so many. */
struct cost_work {
    double row_us[COST_ROWS];
};

/* What travels through the pipeline together. Decoding: rows = wanted = seqs. A chunk of one prompt: seqs = 1, wanted 0 or 1. */
struct cost_batch {
    double rows;
    double wanted;  /* rows whose logits are asked for: what the head computes */
    double seqs;    /* whose keys and values are read */
    double context; /* positions a row looks at, on average */
};

struct cost_stage {
    double fixed_us;                   /* a batch costs this whatever it holds */
    double weights_us;                 /* reading the weights that every row uses */
    double experts_us;                 /* reading all experts */
    double head_us;                    /* reading the output head; once one row is wanted */
    double kv_us, kv_sliding_us;       /* reading keys and values, by position and sequence */
    struct cost_work work, experts_work, head_work; /* multiplying: with what every row uses; all experts; rows that are wanted */
    struct cost_work attn, attn_sliding; /* a row's attention, by position: rows of few sequences, many rows of a prompt */
    double copy_row_us;                /* bringing a row to the device and taking it from there, as its neighbours in the chain are */
    double disk_us;                    /* reading from disk what memory does not hold, once a batch (0: all is resident) */
    double measured;                   /* factor on all of it: measured time / predicted time; 0 counts as 1 */
    uint32_t experts, experts_used;    /* of a layer; 0: none */
    uint32_t window;                   /* positions that sliding layers look at */
    int32_t group;                     /* whose memory bus, or processors, it shares; -1: nobody's */
    double group_factor;               /* its reading keeps that bus busy for its own reading time times this … */
    bool group_whole;                  /* … or all that it does, not only reading: processors */
};

struct cost_hop {
    double latency_us, row_us; /* row_us: one row on the wire */
    int32_t group[2];          /* whose uplinks it shares, the sender's and the receiver's; -1: nobody's */
    double group_factor[2];
};

/* A pipeline of n stages and n + 1 hops: coordinator → first, …, last → coordinator. What shares a memory bus or an uplink is
 * one group: the sum of its members' times on it is what it is busy for, and a batch cannot follow the last one sooner. */
struct cost_pipeline {
    uint32_t n_stages;
    struct cost_stage stages[COST_MAX_STAGES];
    struct cost_hop hops[COST_MAX_STAGES + 1];
};

/* The expected share of n experts that `rows` rows touch, each choosing `used` at random. */
double cost_experts_touched(uint32_t n, uint32_t used, double rows);

/* All matrices with so many rows. */
double cost_work_us(const struct cost_work *w, double rows);
/* The experts' products: each touched one has its share of the rows. */
double cost_experts_work_us(const struct cost_work *w, uint32_t n, uint32_t used, double rows);
/* How that grows: what a batch costs to begin with, and every row of it, between a few rows and many. */
void cost_work_line(const struct cost_work *w, double *ret_start_us, double *ret_row_us);

double cost_read_us(const struct cost_stage *s, const struct cost_batch *b);
/* Without the disk: that is read ahead while others compute. */
double cost_stage_us(const struct cost_stage *s, const struct cost_batch *b);
double cost_hop_us(const struct cost_hop *h, double rows);

/* One batch alone through everything: formula 1, and 2 where a stage reads from disk. */
double cost_latency_us(const struct cost_pipeline *p, const struct cost_batch *b);
/* The time after which the next batch may follow: the slowest stage, link or shared resource. *ret_which (NULL allowed):
 * 0 … n - 1 a stage, n … 2n a hop, 2n + 1 + g a group. */
double cost_interval_us(const struct cost_pipeline *p, const struct cost_batch *b, uint32_t *ret_which);
/* n sequences that decode in m batches of n / m rows: a round, in which each gets one token: formula 3. */
double cost_round_us(const struct cost_pipeline *p, double n, uint32_t m, double context);
/* The m in 1 … stages + 2 (at most n) with the shortest round, the smallest within 2%. *ret_round_us may be NULL. */
uint32_t cost_best_m(const struct cost_pipeline *p, double n, double context, double *ret_round_us);

/* A prompt of `tokens` in chunks of `chunk` rows behind `context` positions, until its last row's logits are known: the exact
 * recursion of formula 5. */
double cost_prompt_us(const struct cost_pipeline *p, uint32_t tokens, uint32_t chunk, uint32_t context);
/* The best uniform chunk up to max_rows: formula 5's, tried against its neighbours with the exact recursion. */
uint32_t cost_best_chunk(const struct cost_pipeline *p, uint32_t tokens, uint32_t max_rows, double *ret_us);

#endif
