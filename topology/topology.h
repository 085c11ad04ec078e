#ifndef TOPOLOGY_TOPOLOGY_H
#define TOPOLOGY_TOPOLOGY_H

/* The file that describes a cluster: its nodes, their devices and what they were measured to do, links, shared resources, pins.
 * docs/planning.md explains every key. Read by `plan` and by whoever runs a model on a cluster; written by `serve` as workers
 * join. Foreign bytes: bounded in size, depth and counts; every complaint begins with file:line:column. Any thread; one at a
 * time for one object. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

enum {
    TOPOLOGY_MAX_BYTES = 256 << 10,
    TOPOLOGY_MAX_DEPTH = 16,
    TOPOLOGY_MAX_ITEMS = 1 << 15, /* keys, values and entries of lists */
    TOPOLOGY_MAX_ANCHORS = 64,
    TOPOLOGY_MAX_NODES = 60,
    TOPOLOGY_MAX_DEVICES = 16, /* of a node, the CPU among them */
    TOPOLOGY_MAX_RATES = 24,   /* quantizations measured on a device */
    TOPOLOGY_MAX_LINKS = 2048,
    TOPOLOGY_MAX_GROUPS = 8,
    TOPOLOGY_MAX_MEMBERS = 64, /* of a group */
    TOPOLOGY_MAX_PINS = 64,
    TOPOLOGY_RATE_ROWS = 3,
    TOPOLOGY_MAX_NAME = 64, /* bytes of a name: letters, digits, . _ - */
};

struct topology_mark {
    uint32_t line, column; /* from 1; 0: it came from no file */
};

/* What was measured on a device; 0: nothing. */
struct topology_rate {
    const char *type;               /* "Q4_K" */
    double ops[TOPOLOGY_RATE_ROWS]; /* operations a second with 1, 8, 512 rows; the same thrice where one number was given */
};

struct topology_peer {
    const char *device; /* of the same node */
    double bps;
};

struct topology_device {
    const char *name; /* "cpu", "cpu:1", "cuda:0" */
    const char *numerics; /* class, where it is not the node's; NULL: not given */
    uint64_t memory_bytes; /* what Stagecoach may use */
    double read_bps, step_us; /* step: what a batch costs whatever it holds */
    double copy_bps, back_bps; /* from the host's memory to the device's, and back */
    struct topology_peer peers[TOPOLOGY_MAX_DEVICES]; /* whose memory it reaches */
    uint32_t n_peers;
    double attention_ops[TOPOLOGY_RATE_ROWS]; /* as rates */
    struct topology_rate rates[TOPOLOGY_MAX_RATES];
    uint32_t n_rates;
};

struct topology_node {
    const char *name;
    const char *address, *key, *model_dir, *numerics; /* NULL: not given */
    uint32_t threads;  /* 0: not given */
    uint32_t n_devices; /* devices[0] is the cpu; its memory is `ram`, 0 where nothing may be used */
    struct topology_device devices[TOPOLOGY_MAX_DEVICES];
    double disk_bps;   /* 0: not measured */
    bool disk_tier;    /* plans may leave layers on disk */
    bool standby;
    double watts;      /* 0: not known */
    struct topology_mark mark;
};

/* Between two nodes, both ways; index TOPOLOGY_COORDINATOR is the coordinator. */
#define TOPOLOGY_COORDINATOR UINT32_MAX
struct topology_link {
    uint32_t a, b;
    double rtt_us, bps;
};

struct topology_group {
    bool uplink; /* else memory */
    uint32_t nodes[TOPOLOGY_MAX_MEMBERS], devices[TOPOLOGY_MAX_MEMBERS]; /* devices: memory only */
    uint32_t n_members;
    double bps;
};

enum topology_pin_what { TOPOLOGY_PIN_LAYERS, TOPOLOGY_PIN_EMBED, TOPOLOGY_PIN_HEAD };
struct topology_pin {
    enum topology_pin_what what;
    uint32_t first, last; /* layers [first, last] */
    uint32_t node;
    bool never;
    struct topology_mark mark;
};

struct topology {
    const char *cluster, *listen; /* NULL: not given */
    uint32_t ctx, parallel;       /* 0: not given */
    const char *kv, *wire;        /* NULL: not given; "f16", … */
    double price_per_kwh;         /* 0: not known */
    const char *currency;         /* "EUR"; NULL: none */
    struct topology_node *nodes;
    uint32_t n_nodes;
    struct topology_link *links;
    uint32_t n_links;
    double default_rtt_us, default_bps; /* 0: not given */
    struct topology_group groups[TOPOLOGY_MAX_GROUPS];
    uint32_t n_groups;
    struct topology_pin pins[TOPOLOGY_MAX_PINS];
    uint32_t n_pins;
    struct arena arena; /* what the pointers above point into */
};

/* An empty one, to add nodes to; NULL: out of memory. */
struct topology *topology_create(struct err *err);
void topology_destroy(struct topology *t); /* takes NULL */

/* name: how messages call it. NULL and ERR_INPUT with "NAME:LINE:COLUMN: what was found, what is allowed". */
struct topology *topology_parse(const char *name, const char *text, size_t len, struct err *err);
struct topology *topology_load(const char *path, struct err *err);
/* A file's bytes with a 0 behind them, to be freed; NULL. */
char *topology_text(const char *path, size_t *ret_len, struct err *err);

/* UINT32_MAX: there is none. */
uint32_t topology_find(const struct topology *t, const char *node);

/* Whether two nodes cannot both have them. */
bool topology_same_address(const char *a, const char *b);

/* Adds a node (everything is copied), or replaces the one of that name. ERR_INPUT for a name that may not be, ERR_LIMIT. */
int topology_put(struct topology *t, const struct topology_node *node, struct err *err);

/* Appends the file's text, to be read by people and by topology_parse. */
int topology_write(const struct topology *t, struct strbuf *out, struct err *err);
/* Writes a new file beside `path`, then puts it in its place: whoever reads sees the old or the new one, whole, also after a
 * power cut. Comments of an earlier file are not kept, but its last version stays as PATH.old. Blocks on the disk. */
int topology_save(const struct topology *t, const char *path, struct err *err);
/* Writes a node of t into the file, which keeps its other lines and comments as they are, whatever they were edited to since it
 * was loaded. A file that does not have its nodes line by line, or is not there, is written anew, as by topology_save. */
int topology_note(const struct topology *t, const char *node, const char *path, struct err *err);

/* Reads one quantity as the file has it ("2.5Gbit/s"): for options and probes. ERR_USAGE. */
enum topology_unit { TOPOLOGY_BYTES, TOPOLOGY_RATE, TOPOLOGY_OPS, TOPOLOGY_TIME_US, TOPOLOGY_WATTS };
int topology_quantity(const char *text, size_t len, enum topology_unit unit, double *ret, struct err *err);
/* Appends a number of six digits, without an exponent. */
void topology_number_text(struct strbuf *out, double value);
/* Appends a quantity in the largest unit in which it is at least 1, at most six digits. */
void topology_quantity_text(struct strbuf *out, enum topology_unit unit, double value);

#endif
