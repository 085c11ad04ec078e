#ifndef PROTO_MSG_H
#define PROTO_MSG_H

/* The messages between nodes as plain structs: what coordinator and workers read and write. proto/codec.h turns them into
 * bytes and back and checks every field; proto/wire.h carries them. docs/protocol.md tells who sends what when.
 *
 * Strings are 0-terminated UTF-8, never NULL after decoding ("" is absent). Arrays and strings of a decoded message lie in
 * the codec's memory. Ids of models are BLAKE2b digests. Layers are [layer_first, layer_end). Nothing here is a path. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 2: a node has several devices, a stage on each (whoever speaks 1 hears of one device, and gets one stage); signs of life on
 * links (MSG_ALIVE). 3: chunks are hashed by BLAKE3 for whoever asks for it. */
enum { PROTOCOL_MIN = 1, PROTOCOL_MAX = 3, PROTOCOL_DEVICES = 2, PROTOCOL_ALIVE = 2, PROTOCOL_BLAKE3 = 3 };

/* The limits that codec.c holds every message to, sent or received. */
enum {
    MSG_ID_BYTES = 32,      /* of a model, a chunk's hash, a public key */
    MSG_MAX_NAME = 64,      /* bytes of a node's, a device's, a type's name */
    MSG_MAX_ADDRESS = 256,  /* bytes of tcp://… */
    MSG_MAX_TEXT = 480,     /* bytes of a sentence for people */
    MSG_MAX_VERSION = 64,
    MSG_MAX_DEVICES = 32,
    MSG_MAX_TYPES = 64,     /* quantizations */
    MSG_MAX_MODELS = 256,   /* local model ids of a hello */
    MSG_MAX_LAYERS = 4096,
    MSG_MAX_STAGES = 256,
    MSG_MAX_THREADS = 1024,
    MSG_MAX_CTX = 1 << 22,  /* positions of a sequence */
    MSG_MAX_SOURCES = 64,
    MSG_MAX_SEQS = 4096,
    MSG_MAX_BLOCKS = 1 << 26,
    MSG_MAX_ROWS = 8192,    /* of a step */
    MSG_MAX_OPS = 8192,     /* of a step */
    MSG_MAX_DELTAS = 16384, /* of a step */
    MSG_MAX_TABLE = 1 << 17, /* entries of a sequence's table */
    MSG_MAX_EMBD = 1 << 17,
    MSG_MAX_VOCAB = 1 << 24,
    MSG_MAX_BIAS = 1024,
    MSG_MAX_TOP = 1024,
    MSG_MAX_GIVEN = 1024,   /* given tokens of one row … */
    MSG_MAX_GIVEN_ALL = 1 << 16, /* … and of all rows of a step */
    MSG_MAX_SPLITS = 1024,
    MSG_MAX_CHUNKS = 1 << 22,
    MSG_MAX_MANIFEST = 4096, /* hashes of one manifest_put */
    MSG_MAX_WINDOW = 4096,   /* credit, in frames */
    MSG_MAX_PIECE = 256 << 10, /* payload of one weights_put: what a token may have to wait for on a link */
    MSG_MAX_STAGE_TIMES = 32,
    MSG_MAX_PROBE = 4 << 20, /* payload of a probe, and of its echo */
};

enum msg_type {
    MSG_NONE = 0,
    /* Links; only wire.c sends and reads these. */
    MSG_LINK_HELLO = 1,
    MSG_LINK_OK = 2,
    MSG_BYE = 3,
    MSG_REGISTER = 4,
    MSG_REGISTERED = 5,
    MSG_ALIVE = 6, /* a frame without a message: nothing but its prefix */
    /* Control. */
    MSG_HELLO = 16,
    MSG_WELCOME,
    MSG_CONFIGURE,
    MSG_LOAD_PROGRESS,
    MSG_READY,
    MSG_HEARTBEAT,
    MSG_STAGE_DONE,
    MSG_DRAIN,
    MSG_RELEASE,
    MSG_ERROR,
    /* Data. */
    MSG_STEP = 48,
    MSG_RESULT,
    MSG_CREDIT,
    MSG_MASK,
    /* Bulk. */
    MSG_WEIGHTS_GET = 64,
    MSG_WEIGHTS_PUT,
    MSG_MANIFEST_GET,
    MSG_MANIFEST_PUT,
    MSG_PROBE,
    MSG_PROBE_ECHO,
};

/* The configuration of a pipeline; frames of another one are dropped. */
struct msg_epoch {
    uint64_t instance; /* random: the coordinator process */
    uint64_t counter;
};

enum link_purpose { LINK_CONTROL = 1, LINK_DATA, LINK_BULK, LINK_REGISTER, LINK_PURPOSES };

/* Order and values as in kernels/backend.h, which proto/ does not know. */
enum msg_kv { MSG_KV_F16, MSG_KV_F32, MSG_KV_Q8_0, MSG_KV_TYPES };
enum { MSG_KV_GROUPS = 2 }; /* full attention, sliding window */

/* The form of rows on the wire: proto/act.h. */
enum act_type { ACT_F32, ACT_F16, ACT_Q8_0, ACT_TYPES };

/* --- links ------------------------------------------------------------------------------------------------------------- */
/* First frame of whoever dialed. */
struct msg_link_hello {
    enum link_purpose purpose;
    uint32_t protocol_min, protocol_max;
    const char *version; /* of the program, for people */
    const char *node;    /* the dialer's name; over tcp it must be the one its key is known by */
    uint64_t instance;   /* random: the dialer's process */
    struct msg_epoch epoch; /* LINK_DATA: the link belongs to this configuration */
    uint32_t stage;      /* LINK_DATA: the stage that dials, MSG_STAGE_COORDINATOR for none */
    bool upstream;       /* LINK_DATA: the dialer is the one that receives the acceptor's steps (else: sends to it) */
    const char *relay_to; /* LINK_DATA: "", or the node that the acceptor shall join this link with */
};
enum { MSG_STAGE_COORDINATOR = 0xFFFF };

struct msg_link_ok {
    uint32_t protocol; /* the highest that both know */
    const char *version;
    const char *node;
    uint64_t instance;
};

/* The sender closes the link for this reason. */
struct msg_bye {
    const char *text;
    bool fault; /* of the link, or of who receives this; else it is closed on purpose */
};

struct msg_register {
    uint8_t secret[MSG_ID_BYTES];
    const char *name; /* asked for */
};

struct msg_registered {
    const char *name;        /* given */
    const char *coordinator; /* its node name */
};

/* --- control ----------------------------------------------------------------------------------------------------------- */
struct msg_rate {
    const char *type; /* quantization: "Q4_K" */
    double per_s;     /* operations (multiply and add count two) with many rows */
    double few_per_s, one_per_s; /* with 8 rows, with 1; 0: not measured */
};

struct msg_bits {
    const char *type;
    double bits; /* per weight, after repacking for this node's devices */
};

struct msg_peer {
    const char *device; /* of the same node */
    double bytes_per_s;
};

struct msg_device {
    const char *name; /* "cpu", "cpu:1", "cuda:0" */
    uint64_t memory_bytes; /* what Stagecoach may use */
    double read_bytes_per_s; /* 0: not measured */
    const struct msg_rate *rates;
    size_t n_rates;
    /* PROTOCOL_DEVICES. What is absent is as the hello says of the node. */
    const char *numerics_class; /* "": absent, with the revision */
    uint32_t numerics_revision;
    uint32_t threads;           /* 0: absent */
    double copy_bytes_per_s;    /* from the host's memory to the device's; 0: not measured, or it is the same memory */
    const struct msg_bits *bits;
    size_t n_bits;
    const char *text; /* what it is, for people: "NVIDIA GeForce RTX 4090" */
    double attention_per_s;     /* operations a second in attention, of one row; 0: not measured */
    double attention_few_per_s, attention_many_per_s; /* of a row of each of 8 sequences, of a prompt's rows; 0: not measured */
    double back_bytes_per_s;    /* from the device's memory to the host's, as copy_bytes_per_s */
    const struct msg_peer *peers; /* devices whose memory it reaches straight from its own */
    size_t n_peers;
};

/* What a stage still holds from an earlier epoch. */
struct msg_resident {
    bool present;
    uint8_t model[MSG_ID_BYTES];
    uint32_t layer_first, layer_end;
    bool embed, head;
    const char *device;
    struct msg_epoch kv_epoch; /* its KV cache belongs to that configuration; 0, 0: none */
};

/* Worker to coordinator, first. */
struct msg_hello {
    const char *version;
    const char *node;
    uint64_t instance;
    const char *numerics_class;
    uint32_t numerics_revision;
    const char *isa;
    uint32_t threads;
    const char *address; /* advertised; "": nobody can dial this node */
    const uint8_t *key;  /* public key, MSG_ID_BYTES; NULL: none (ipc) */
    double disk_bytes_per_s;
    const struct msg_device *devices;
    size_t n_devices;
    const struct msg_bits *bits;
    size_t n_bits;
    const struct msg_resident *resident;
    size_t n_resident;
    const uint8_t (*models)[MSG_ID_BYTES]; /* whole files in its model folder */
    size_t n_models;
};

struct msg_welcome {
    uint64_t instance;
    const char *node;
    const char *version;
};

enum msg_reach { REACH_NONE, REACH_DIAL, REACH_AWAIT, REACH_PROCESS, REACH_RELAY, REACH_WAYS };

/* The other end of a data link. REACH_RELAY: dial `address` (the coordinator's) and ask to be joined with `node`. */
struct msg_neighbour {
    enum msg_reach reach;
    const char *node;
    const char *address;
    const uint8_t *key; /* public key of whom to dial or await; NULL: none (ipc) */
    uint32_t stage;     /* MSG_STAGE_COORDINATOR for the coordinator */
    enum act_type act;  /* form of rows on that link */
};

/* Of weights. A node without an address is not to be asked: it may ask this one. */
struct msg_source {
    const char *node;
    const char *address;
    const uint8_t *key;
};

/* Coordinator to worker: be this stage. */
struct msg_configure {
    struct msg_epoch epoch;
    uint32_t stage, n_stages;
    const char *device;
    uint8_t model[MSG_ID_BYTES];
    uint32_t layer_first, layer_end;
    bool embed, head;
    enum msg_kv kv;
    uint32_t ctx;
    uint32_t n_blocks[MSG_KV_GROUPS];
    uint32_t max_rows, max_wanted, max_seqs, table_stride;
    uint32_t threads; /* 0: the worker's own choice */
    const char *isa;  /* cap, "": none */
    bool keep_kv;     /* the KV of the previous epoch stays valid where layers and blocks are the same */
    struct msg_neighbour previous, next;
    const struct msg_source *sources; /* of weights, best first */
    size_t n_sources;
    uint64_t memory_bytes;   /* weights, KV and scratch together may take this; 0: as the hello said */
    uint32_t window_frames;  /* credit that a stage gives: steps … */
    uint64_t window_bytes;   /* … and payload bytes not yet taken */
    uint32_t heartbeat_ms, lost_ms, orphan_ms;
};

enum msg_load_from { LOAD_MEMORY, LOAD_DISK, LOAD_CACHE, LOAD_PEER, LOAD_COORDINATOR, LOAD_FROM };

struct msg_load_progress {
    struct msg_epoch epoch;
    uint32_t stage;
    uint64_t done_bytes, total_bytes;
    enum msg_load_from from;
    const char *text; /* of a source, for people */
};

struct msg_ready {
    struct msg_epoch epoch;
    uint32_t stage;
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
    uint64_t load_ms;
    uint64_t read_bytes; /* from disk, and … */
    uint64_t received_bytes; /* … from other nodes, for this configuration */
};

/* Since the previous heartbeat. */
struct msg_stage_times {
    uint32_t stage;
    uint64_t compute_us, wait_us, wire_us;
    uint64_t rows;
    uint32_t batches, queued;
};

/* Both ways. Clock offset: the peer sees its own time come back with the time between. */
struct msg_heartbeat {
    uint64_t now_us;       /* sender's monotonic clock */
    uint64_t peer_now_us;  /* the last heartbeat's now_us from the other side; 0: none yet */
    uint64_t peer_seen_us; /* when it came, by the sender's clock */
    const struct msg_stage_times *stages;
    size_t n_stages;
};

struct msg_stage_done {
    struct msg_epoch epoch;
    uint32_t stage;
    uint64_t batch;
    uint64_t received_us, started_us, ended_us; /* worker's monotonic clock */
    uint32_t rows;
    uint64_t bytes; /* of the payload that went on */
};

/* Coordinator to worker: finish what is queued and free everything (and come back after for_s, 0: do not). Worker to
 * coordinator: plan without me from now on. */
struct msg_drain {
    uint64_t for_s;
    const char *text;
};

/* Coordinator to worker: forget this configuration; keep or free weights. */
struct msg_release {
    struct msg_epoch epoch;
    bool keep_weights;
    const char *device; /* "": all; else this one alone (PROTOCOL_DEVICES) */
};

struct msg_error {
    struct msg_epoch epoch;
    uint32_t stage;
    uint32_t kind; /* enum err_kind */
    const char *text;
    uint64_t memory_bytes; /* of ERR_MEMORY while loading: what the stage may take at most; 0: not known */
};

/* --- data -------------------------------------------------------------------------------------------------------------- */
/* The same layout as kernels/sample.h's. */
struct msg_bias {
    int32_t token;
    float bias;
};

/* kernels/sample.h says what each does. */
struct msg_sample {
    float temperature;
    uint32_t top_k;
    float top_p, min_p, typical_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    int32_t penalty_last;
    uint64_t seed;
    const struct msg_bias *bias;
    size_t n_bias;
};

enum msg_op_kind { OP_SEQ_OPEN = 1, OP_SEQ_CLOSE, OP_SEQ_CUT, OP_BLOCK_COPY, OP_KINDS };

/* What happens before the rows of a step, in order, at every stage. */
struct msg_op {
    enum msg_op_kind kind;
    uint32_t slot; /* OP_SEQ_* */
    /* OP_SEQ_OPEN */
    uint64_t seq;
    uint32_t choice;
    struct msg_sample sample;
    const int32_t *tokens; /* all so far: the last stage keeps them for penalties */
    size_t n_tokens;
    /* OP_SEQ_CUT: positions from this on are dropped. */
    uint32_t keep;
    /* OP_BLOCK_COPY */
    uint32_t group, from, to;
};

/* Entries [index, index + n_blocks) of a sequence's table become these blocks. */
struct msg_delta {
    uint32_t slot, group, index;
    const uint32_t *blocks;
    size_t n_blocks;
};

enum {
    WANT_SAMPLE = 1,
    WANT_TOP = 2,    /* the top log-probabilities */
    WANT_GIVEN = 4,  /* log-probabilities of given tokens */
    WANT_HIDDEN = 8, /* the last layer's normed hidden state */
    WANT_MASK = 16,  /* the sample waits for a mask message */
    WANT_ALL = 31,
};

struct msg_want {
    uint32_t row;   /* of the step; ascending */
    uint32_t flags; /* WANT_… */
    uint32_t top;   /* how many, with WANT_TOP */
    const int32_t *given;
    size_t n_given;
};

enum { MSG_STOP_NONE = 0xFFFF }; /* rows go through to the last stage */

/* Rows through all stages. The payload: n_rows × embd in the form `act` (embd 0: none; the first stage takes tokens). */
struct msg_step {
    struct msg_epoch epoch;
    uint64_t batch;
    const struct msg_op *ops;
    size_t n_ops;
    const struct msg_delta *deltas;
    size_t n_deltas;
    size_t n_rows;
    const uint32_t *slot, *pos;
    const int32_t *token;
    const struct msg_want *wants;
    size_t n_wants;
    uint32_t stop_stage; /* this stage computes the rows, for its KV, and sends no rows on (ops and deltas go on) */
    enum act_type act;
    uint32_t embd;
};

struct msg_result_row {
    uint32_t row;
    uint32_t flags; /* what of the wants follows */
    int32_t token;  /* WANT_SAMPLE */
    float logprob;
    const int32_t *top_tokens; /* WANT_TOP: best first */
    const float *top_logprobs;
    size_t n_top;
    const float *given; /* WANT_GIVEN: in the order asked */
    size_t n_given;
};

/* Last stage to coordinator, one for every step that has wants or is the test of a chain. The payload: for the rows with
 * WANT_HIDDEN, in order, embd floats each. */
struct msg_result {
    struct msg_epoch epoch;
    uint64_t batch;
    const struct msg_result_row *rows;
    size_t n_rows;
    uint32_t embd;
    const char *error; /* "": none; else the step failed and this says how */
};

/* Backwards on a data link. */
struct msg_credit {
    struct msg_epoch epoch;
    uint64_t taken;      /* numbers of frames below this one were taken off the queue */
    uint64_t free_bytes; /* payload bytes that may be under way beyond them */
    uint32_t free_frames;
};

/* Coordinator straight to the last stage: which tokens the row may become. */
struct msg_mask {
    struct msg_epoch epoch;
    uint64_t batch;
    uint32_t row;
    const uint8_t *bits; /* bit i % 8 of byte i / 8: token i */
    size_t n_bytes;
};

/* --- bulk -------------------------------------------------------------------------------------------------------------- */
/* Asks for bytes [offset, offset + bytes) of a split of a model's files: answered by as many weights_put as there are pieces. */
struct msg_weights_get {
    uint64_t id; /* comes back */
    uint8_t model[MSG_ID_BYTES];
    uint32_t split;
    bool header; /* the split's header instead (offset and bytes are not used) */
    uint64_t offset, bytes;
};

/* The payload is the piece. */
struct msg_weights_put {
    uint64_t id;
    uint64_t offset;
    uint32_t bytes;  /* of this payload */
    bool last;
    uint64_t total_bytes; /* of the whole answer (a header's size is not known before) */
    const char *error; /* "": none; else nothing follows */
};

enum msg_hash { MSG_HASH_BLAKE2B, MSG_HASH_BLAKE3, MSG_HASHES };

struct msg_manifest_get {
    uint64_t id;
    uint8_t model[MSG_ID_BYTES];
    uint32_t split, first_chunk, n_chunks;
    enum msg_hash hash; /* other than BLAKE2b: PROTOCOL_BLAKE3 */
};

struct msg_manifest_put {
    uint64_t id;
    uint32_t split, first_chunk;
    uint32_t chunk_bytes;
    uint64_t split_bytes;
    const uint8_t (*hashes)[MSG_ID_BYTES];
    size_t n_hashes;
    const char *error;
    enum msg_hash hash;
};

/* Measures a link: whoever gets it on a bulk link answers at once with a payload of the size asked for. */
struct msg_probe {
    uint64_t id;
    uint64_t now_us;
    uint32_t bytes; /* of this payload */
    uint32_t answer_bytes;
};

struct msg_probe_echo {
    uint64_t id;
    uint64_t now_us; /* as asked */
    uint32_t bytes;  /* of this payload */
};

struct msg {
    enum msg_type type;
    union {
        struct msg_link_hello link_hello;
        struct msg_link_ok link_ok;
        struct msg_bye bye;
        struct msg_register register_;
        struct msg_registered registered;
        struct msg_hello hello;
        struct msg_welcome welcome;
        struct msg_configure configure;
        struct msg_load_progress load_progress;
        struct msg_ready ready;
        struct msg_heartbeat heartbeat;
        struct msg_stage_done stage_done;
        struct msg_drain drain;
        struct msg_release release;
        struct msg_error error;
        struct msg_step step;
        struct msg_result result;
        struct msg_credit credit;
        struct msg_mask mask;
        struct msg_weights_get weights_get;
        struct msg_weights_put weights_put;
        struct msg_manifest_get manifest_get;
        struct msg_manifest_put manifest_put;
        struct msg_probe probe;
        struct msg_probe_echo probe_echo;
    };
};

/* "configure"; "type 77" is "unknown". */
const char *msg_type_name(enum msg_type type);
/* Node names: 1 to MSG_MAX_NAME of [A-Za-z0-9._-], the first a letter or digit: they become file names. */
bool msg_name_valid(const char *name);
/* "coordinator" and "default": topology files mean something else by them, so no worker of a cluster can be called so. */
bool msg_name_reserved(const char *name);
/* The purpose of link that carries this message; 0: any. */
enum link_purpose msg_purpose(enum msg_type type);
const char *link_purpose_name(enum link_purpose purpose);
bool msg_epoch_same(struct msg_epoch a, struct msg_epoch b);

#endif
