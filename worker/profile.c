/* See profile.h. Matrices are filled with a byte that makes ordinary numbers in every quantization: neither zero pages, which
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
    FILL = 0x11,
    READ_TASK_BYTES = 1 << 20,
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
    for (size_t i = 0; i < READ_TASK_BYTES / sizeof *at; i += 8)
        for (size_t k = 0; k < 8; k++)
            sum[k] ^= at[i + k];
    atomic_fetch_add_explicit(&r->sum, sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7], memory_order_relaxed);
}

int profile_read(struct threadpool *team, uint64_t bytes, unsigned ms, double *ret_per_s, struct err *err)
{
    uint32_t tasks = (uint32_t)(bytes / READ_TASK_BYTES);
    char *pages = mem_pages_alloc((size_t)tasks * READ_TASK_BYTES, err);
    struct reading r = {.from = pages};
    double best = 0, until;

    if (!pages)
        return -1;
    memset(pages, FILL, (size_t)tasks * READ_TASK_BYTES);
    until = seconds() + ms * 1e-3;
    do {
        double began = seconds(), rate;
        threadpool_run(team, read_task, &r, tasks);
        rate = (double)tasks * READ_TASK_BYTES / (seconds() - began);
        best = rate > best ? rate : best;
    } while (seconds() < until);
    mem_pages_free(pages, (size_t)tasks * READ_TASK_BYTES);
    *ret_per_s = best;
    return 0;
}

/* --- products ----------------------------------------------------------------------------------------------------------- */

/* A layer that is nothing but its feed-forward part. */
struct bench {
    struct backend *be;
    struct layer layer;
    struct run *run;
    void *weights[3];
    size_t weight_bytes[3];
    float *hidden;
    uint32_t *zeros;
};

static int make_weight(struct bench *b, int i, enum quant_type type, uint32_t rows, uint32_t cols, struct weight *ret, struct err *err)
{
    b->weight_bytes[i] = b->be->ops->weight_bytes(b->be, type, rows, cols);
    if (!(b->weights[i] = b->be->ops->alloc(b->be, b->weight_bytes[i], err)))
        return -1;
    memset(b->weights[i], FILL, b->weight_bytes[i]);
    *ret = (struct weight){.type = type, .layout = b->be->ops->weight_layout(b->be, type), .rows = rows, .cols = cols, .mats = 1,
                           .row_bytes = (size_t)quant_bytes(type, cols), .mat_bytes = b->weight_bytes[i], .data = b->weights[i]};
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
    if (make_weight(b, 0, type, FF, EMBD, &b->layer.gate, err) != 0 || make_weight(b, 1, type, FF, EMBD, &b->layer.up, err) != 0 ||
        make_weight(b, 2, type, EMBD, FF, &b->layer.down, err) != 0 || !(b->hidden = mem_new((size_t)rows * EMBD, sizeof *b->hidden, err)) ||
        !(b->zeros = mem_new(rows, sizeof *b->zeros, err)) || !(b->run = b->be->ops->run_create(b->be, &shape, err)))
        return -1;
    for (size_t i = 0; i < (size_t)rows * EMBD; i++)
        b->hidden[i] = (float)(i % 17) - 8;
    return 0;
}

static double once(struct bench *b, uint32_t rows)
{
    const struct backend_ops *op = b->be->ops;
    struct batch batch = {.n_rows = rows, .seq = b->zeros, .pos = b->zeros, .token = (const int32_t *)b->zeros, .table_stride = 1};
    double began;
    op->begin(b->run, &batch);
    op->set_hidden(b->run, b->hidden); /* else it would grow from one to the next */
    began = seconds();
    op->ffn_in(b->run, &b->layer);
    op->ffn_out(b->run, &b->layer);
    op->finish(b->run, NULL);
    return seconds() - began;
}

int profile_rate(struct backend *be, enum quant_type type, enum profile_rows rows, unsigned ms, double *ret_per_s, struct err *err)
{
    struct bench b = {.be = be};
    uint32_t n = profile_rows[rows];
    double best = 0, until;
    int rc = begin_bench(&b, type, n, err);
    if (rc == 0) {
        until = seconds() + ms * 1e-3;
        do {
            double t = once(&b, n);
            best = best == 0 || t < best ? t : best;
        } while (seconds() < until);
        *ret_per_s = 2.0 * 3 * EMBD * FF * n / best;
    }
    end_bench(&b);
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
