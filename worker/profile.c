/* See profile.h. Figures are means, not the best: that is what a plan promises, and on machines that are held back from time to time
 * (a control group's quota, a throttled processor) the two differ. Matrices are filled with a byte that makes ordinary numbers in every quantization: neither zero pages, which
 * caches would hold, nor denormal numbers, which some processors are slow with. */
#include "worker/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    EMBD = 1024, FF = 4096, /* 12.6 million weights in a layer's three matrices */
    BEYOND_CACHES = 64 << 20, LAYERS_MAX = 32,
    FILL = 0x11,
    READ_TASK_BYTES = 1 << 20, READ_AHEAD_BYTES = 2048,
    DISK_BLOCK = 1 << 20, DISK_THREADS = 4, DISK_ALIGN = 4096,
};

const uint32_t profile_rows[PROFILE_ROWS] = {1, 8, 512};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- memory ------------------------------------------------------------------------------------------------------------- */

struct reading {
    const char *from;
    _Atomic uint64_t sum; /* so that nothing is left out */
};

static void read_task(void *arg, uint32_t task, uint32_t thread)
{
    struct reading *r = arg;
    const uint64_t *at = (const uint64_t *)(const void *)(r->from + (size_t)task * READ_TASK_BYTES);
    uint64_t sum[8] = {0};
    (void)thread;
    for (size_t i = 0; i < READ_TASK_BYTES / sizeof *at; i += 8) {
        __builtin_prefetch(&at[i] + READ_AHEAD_BYTES / sizeof *at, 0, 3); /* as kernels do: alone the processor looks less far ahead */
        for (size_t k = 0; k < 8; k++)
            sum[k] ^= at[i + k];
    }
    atomic_fetch_add_explicit(&r->sum, sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7], memory_order_relaxed);
}

int profile_read(struct threadpool *team, uint64_t bytes, unsigned ms, double *ret_per_s, struct err *err)
{
    uint32_t tasks = (uint32_t)(bytes / READ_TASK_BYTES);
    char *pages = mem_pages_alloc((size_t)tasks * READ_TASK_BYTES, err);
    struct reading r = {.from = pages};
    double began;
    unsigned n = 0;

    if (!pages)
        return -1;
    memset(pages, FILL, (size_t)tasks * READ_TASK_BYTES);
    threadpool_run(team, read_task, &r, tasks);
    began = seconds();
    do {
        threadpool_run(team, read_task, &r, tasks);
        n++;
    } while (seconds() < began + ms * 1e-3);
    *ret_per_s = (double)n * tasks * READ_TASK_BYTES / (seconds() - began);
    mem_pages_free(pages, (size_t)tasks * READ_TASK_BYTES);
    return 0;
}

/* --- products ----------------------------------------------------------------------------------------------------------- */

/* Layers that are nothing but their feed-forward parts: as many as no cache holds, gone through in turn. */
struct bench {
    struct backend *be;
    struct layer layers[LAYERS_MAX];
    uint32_t n_layers, next;
    struct run *run;
    void *weights[3];
    size_t weight_bytes[3]; /* of all layers */
    float *hidden;
    uint32_t *zeros;
};

static int make_weights(struct bench *b, int i, enum quant_type type, uint32_t rows, uint32_t cols, struct err *err)
{
    size_t bytes = b->be->ops->weight_bytes(b->be, type, rows, cols);
    if (!b->n_layers) /* all three are of one size but for the padding */
        b->n_layers = 3 * bytes > BEYOND_CACHES / LAYERS_MAX ? (uint32_t)(BEYOND_CACHES / (3 * bytes) + 1) : LAYERS_MAX;
    b->weight_bytes[i] = bytes * b->n_layers;
    if (!(b->weights[i] = b->be->ops->alloc(b->be, b->weight_bytes[i], err)))
        return -1;
    memset(b->weights[i], FILL, b->weight_bytes[i]);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        struct weight *w = i == 0 ? &b->layers[l].gate : i == 1 ? &b->layers[l].up : &b->layers[l].down;
        *w = (struct weight){.type = type, .layout = b->be->ops->weight_layout(b->be, type), .rows = rows, .cols = cols, .mats = 1,
                             .row_bytes = (size_t)quant_bytes(type, cols), .mat_bytes = bytes, .data = (char *)b->weights[i] + l * bytes};
    }
    return 0;
}

static void end_bench(struct bench *b)
{
    if (b->run)
        b->be->ops->run_destroy(b->run);
    for (int i = 0; i < 3; i++)
        if (b->weights[i])
            b->be->ops->free(b->be, b->weights[i], b->weight_bytes[i]);
    free(b->hidden);
    free(b->zeros);
}

static int begin_bench(struct bench *b, enum quant_type type, uint32_t rows, struct err *err)
{
    struct run_shape shape = {.max_rows = rows, .max_seqs = 1, .max_blocks = 1, .embd = EMBD, .q_dim = EMBD, .k_dim = EMBD, .v_dim = EMBD,
                              .head_dim_v = 64, .ff_dim = FF, .n_ropes = 1};
    if (make_weights(b, 0, type, FF, EMBD, err) != 0 || make_weights(b, 1, type, FF, EMBD, err) != 0 ||
        make_weights(b, 2, type, EMBD, FF, err) != 0 || !(b->hidden = mem_new((size_t)rows * EMBD, sizeof *b->hidden, err)) ||
        !(b->zeros = mem_new(rows, sizeof *b->zeros, err)) || !(b->run = b->be->ops->run_create(b->be, &shape, err)))
        return -1;
    for (size_t i = 0; i < (size_t)rows * EMBD; i++)
        b->hidden[i] = (float)(i % 17) - 8;
    return 0;
}

static double once(struct bench *b, uint32_t rows)
{
    const struct backend_ops *op = b->be->ops;
    const struct layer *layer = &b->layers[b->next++ % b->n_layers];
    struct batch batch = {.n_rows = rows, .seq = b->zeros, .pos = b->zeros, .token = (const int32_t *)b->zeros, .table_stride = 1};
    double began;
    op->begin(b->run, &batch);
    op->set_hidden(b->run, b->hidden); /* else it would grow from one to the next */
    began = seconds();
    op->ffn_in(b->run, layer);
    op->ffn_out(b->run, layer);
    op->finish(b->run, NULL);
    return seconds() - began;
}

int profile_rate(struct backend *be, unsigned ms, struct profile_rate *ret, struct err *err)
{
    struct bench *b = mem_new(1, sizeof *b, err);
    int rc = b ? 0 : -1;
    if (b)
        b->be = be;
    if (rc == 0)
        rc = begin_bench(b, ret->type, profile_rows[PROFILE_ROWS - 1], err);
    for (int k = 0; k < PROFILE_ROWS && rc == 0; k++) {
        double took = 0, until = seconds() + ms * 1e-3;
        unsigned n = 0;
        if (k == 0)
            once(b, profile_rows[k]); /* threads wake */
        do {
            took += once(b, profile_rows[k]);
            n++;
        } while (seconds() < until);
        ret->per_s[k] = 2.0 * 3 * EMBD * FF * profile_rows[k] * n / took;
    }
    if (b)
        end_bench(b);
    free(b);
    return rc;
}

/* --- attention ---------------------------------------------------------------------------------------------------------- */

static double attend_once(struct run *run, const struct batch *batch, const struct layer *layer, const struct kv_view *kv, const float *hidden)
{
    double began;
    run->ops->begin(run, batch);
    run->ops->set_hidden(run, hidden);
    began = seconds();
    run->ops->attend(run, layer, kv);
    run->ops->finish(run, NULL);
    return seconds() - began;
}

int profile_attention(struct backend *be, unsigned ms, double *ret_per_s, struct err *err)
{
    enum { HEADS = 32, KV_HEADS = 8, DIM = 64, BLOCKS = 32, POSITIONS = BLOCKS * KV_BLOCK };
    struct layer layer = {.attn = {.n_heads = HEADS, .n_kv_heads = KV_HEADS, .head_dim_k = DIM, .head_dim_v = DIM, .scale = 0.125f, .group = KV_FULL}};
    struct run_shape shape = {.max_rows = 1, .max_seqs = 1, .max_blocks = BLOCKS, .embd = HEADS * DIM, .q_dim = HEADS * DIM, .k_dim = KV_HEADS * DIM,
                              .v_dim = KV_HEADS * DIM, .head_dim_v = DIM, .ff_dim = HEADS * DIM, .n_ropes = 1};
    struct kv_view kv = {.type = KV_F16, .block_bytes = be->ops->kv_block_bytes(&layer.attn, KV_F16), .n_blocks = BLOCKS};
    uint32_t table[BLOCKS], seq = 0, pos = POSITIONS - 1;
    int32_t token = 0;
    struct batch batch = {.n_rows = 1, .seq = &seq, .pos = &pos, .token = &token, .table = {table, table}, .table_stride = BLOCKS};
    float *hidden = mem_new(HEADS * DIM, sizeof *hidden, err);
    struct run *run = hidden ? be->ops->run_create(be, &shape, err) : NULL;
    double took = 0, until;
    unsigned n = 0;
    int rc = -1;

    for (uint32_t i = 0; i < BLOCKS; i++)
        table[i] = i;
    if (run && (kv.base = be->ops->alloc(be, BLOCKS * kv.block_bytes, err))) {
        memset(kv.base, FILL, BLOCKS * kv.block_bytes);
        attend_once(run, &batch, &layer, &kv, hidden);
        until = seconds() + ms * 1e-3;
        do {
            took += attend_once(run, &batch, &layer, &kv, hidden);
            n++;
        } while (seconds() < until);
        *ret_per_s = 2.0 * HEADS * (DIM + DIM) * POSITIONS * n / took;
        be->ops->free(be, kv.base, BLOCKS * kv.block_bytes);
        rc = 0;
    }
    if (run)
        be->ops->run_destroy(run);
    free(hidden);
    return rc;
}

/* --- disk --------------------------------------------------------------------------------------------------------------- */

struct disk {
    int fd;
    uint64_t blocks;
    double until;
    _Atomic uint64_t next, done;
    _Atomic int failed;
};

static void *read_disk(void *arg)
{
    struct disk *d = arg;
    void *buf = NULL;
    if (posix_memalign(&buf, DISK_ALIGN, DISK_BLOCK) != 0)
        return NULL;
    while (seconds() < d->until && !atomic_load(&d->failed)) {
        uint64_t block = atomic_fetch_add(&d->next, 1) % d->blocks;
        ssize_t n = pread(d->fd, buf, DISK_BLOCK, (off_t)(block * DISK_BLOCK));
        if (n != DISK_BLOCK) {
            atomic_store(&d->failed, n < 0 ? errno : EIO);
            break;
        }
        atomic_fetch_add(&d->done, DISK_BLOCK);
    }
    free(buf);
    return NULL;
}

int profile_disk(const char *path, unsigned ms, double *ret_per_s, struct err *err)
{
    struct disk d = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT)};
    pthread_t threads[DISK_THREADS];
    int n = 0, failed = d.fd < 0 ? errno : 0;
    struct stat st;
    double began = seconds();

    if (failed == EINVAL)
        return err_set(err, ERR_UNSUPPORTED, "%s: its file system has no reads past the page cache (O_DIRECT): the disk cannot be measured there", path);
    if (failed)
        return err_errno(err, failed, "%s", path);
    if (fstat(d.fd, &st) != 0 || (d.blocks = (uint64_t)st.st_size / DISK_BLOCK) == 0) {
        close(d.fd);
        return err_set(err, ERR_INPUT, "%s: %lld bytes are too few to measure a disk with; give a file of some megabytes", path, (long long)st.st_size);
    }
    d.until = began + ms * 1e-3;
    for (; n < DISK_THREADS; n++)
        if (pthread_create(&threads[n], NULL, read_disk, &d) != 0)
            break;
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    close(d.fd);
    if ((failed = atomic_load(&d.failed)) != 0)
        return err_errno(err, failed, "%s", path);
    *ret_per_s = (double)atomic_load(&d.done) / (seconds() - began);
    return 0;
}
