/* The model's own files as a source (source.h).
 *
 * One ring and one list of ranges under one lock. A thread that asks for a range first tops up the ring with the next cold
 * ranges, so that the disk always has several large reads in ascending order before it; then takes what has completed; else
 * copies the next range itself, if that lies in the page cache; else waits for the ring. Waiting holds the lock: whoever else
 * comes would have to wait for the same completion. Packing, copying and finishing a short read happen outside of it.
 *
 * Which way a range goes is decided when its turn comes. Reading past the page cache takes whole blocks of DIRECT_ALIGN
 * bytes: a range is widened to them, and the page that two neighbouring ranges share is read twice. */
#include "model/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config.h"
#include "base/mem.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

enum { DIRECT_ALIGN = 4096, READ_AHEAD = 8 << 20 };

enum way { WAY_DIRECT, WAY_CACHED, WAY_BUFFERED, WAYS };
static const char *const way_names[WAYS] = {"direct", "page cache", "buffered"};

struct split_file {
    int fd, direct_fd; /* -1: not opened; direct_fd also where O_DIRECT is refused */
    void *map;         /* only to ask which pages are resident, never read; NULL: not needed so far */
    bool direct_refused; /* by a read: not every file system says so when the file is opened */
    bool no_residency; /* nobody tells us which pages are resident */
};

/* A read: [from, from + length) of a split goes to data, the range begins `skip` bytes into it. */
struct slot {
    char *data;
    size_t range;
    uint64_t from;
    size_t length, skip, have;
    enum way way;
    int failed; /* errno of the read */
};

struct source_file {
    struct weight_source base;
    const struct gguf *gguf;
    struct source_file_options options;
    struct split_file *files;
    uint32_t n_files;

    pthread_mutex_t lock;
    const struct source_range *ranges;
    size_t n_ranges, next;
    enum { HEAD_UNKNOWN, HEAD_COLD, HEAD_RESIDENT } head; /* what the next range is */
    bool failed;
    struct err err;      /* of the first failure */
    size_t failed_range; /* its range; SIZE_MAX: none in particular */
    _Atomic bool cancelled;

    unsigned threads;
    struct slot *slots; /* one a thread, then the ring's */
    uint32_t n_slots, in_flight_max, in_flight;
    _Atomic unsigned char *taken; /* the ring's slots in use */
    size_t slot_bytes;
    char *pages; /* of all slots */
    size_t pages_bytes;
    enum { RING_UNTRIED, RING_THERE, RING_MISSING } ring_state;
    bool registered;
#ifdef HAVE_LIBURING
    struct io_uring ring;
#endif
    uint64_t bytes[WAYS];
    struct source_report report; /* its notes */
};

static struct source_file *self(struct weight_source *s)
{
    return (struct source_file *)s;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static const char *path_of(const struct source_file *f, uint32_t split)
{
    return gguf_split_path(f->gguf, split);
}

/* The file that the header was read from, and as it was then. */
static int check_stamp(const struct source_file *f, uint32_t split, struct err *err)
{
    struct gguf_stamp now, then = gguf_split_stamp(f->gguf, split);
    if (gguf_stamp_of(f->files[split].fd, &now, err) != 0)
        return err_wrap(err, "%s", path_of(f, split));
    if (now.bytes != then.bytes)
        return err_set(err, ERR_INPUT, "%s: its size changed from %" PRIu64 " to %" PRIu64 " bytes since its header was read; load it again",
                       path_of(f, split), then.bytes, now.bytes);
    if (!gguf_stamp_same(&now, &then))
        return err_set(err, ERR_INPUT, "%s: it was %s since its header was read; load it again", path_of(f, split),
                       now.inode == then.inode && now.device == then.device ? "written to" : "replaced");
    return 0;
}

static int open_split(struct source_file *f, uint32_t split, struct err *err)
{
    struct split_file *file = &f->files[split];
    if (file->fd >= 0)
        return 0;
    if ((file->fd = open(path_of(f, split), O_RDONLY | O_CLOEXEC)) < 0)
        return err_errno(err, errno, "%s", path_of(f, split));
    if (check_stamp(f, split, err) != 0)
        return -1;
    if (f->options.no_direct)
        return 0;
    file->direct_fd = open(path_of(f, split), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (file->direct_fd < 0)
        source_note(&f->report, "the file system does not read past the page cache (O_DIRECT: %s)", strerror(errno));
    return 0;
}

/* --- which pages are there ---------------------------------------------------------------------------------------------- */

/* As <linux/mman.h> of Linux 6.5 has them; older headers do not. */
struct cachestat_range_abi {
    uint64_t off, len;
};
struct cachestat_abi {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
};
#ifndef SYS_cachestat
#define SYS_cachestat 451 /* on every architecture */
#endif

static bool resident_by_cachestat(int fd, uint64_t from, uint64_t bytes, uint64_t page, bool *ret_known)
{
    struct cachestat_range_abi range = {from, bytes};
    struct cachestat_abi stat = {0};
    *ret_known = syscall(SYS_cachestat, fd, &range, &stat, 0) == 0;
    return *ret_known && stat.cached >= bytes / page;
}

/* The kernel tells strangers that every page is resident, so only owners may ask. */
static bool resident_by_mincore(const struct source_file *f, struct split_file *file, uint32_t split, uint64_t from, uint64_t bytes, uint64_t page)
{
    struct stat st;
    unsigned char present[256];
    if (!file->map && !file->no_residency) {
        bool may = fstat(file->fd, &st) == 0 && (st.st_uid == geteuid() || access(path_of(f, split), W_OK) == 0);
        void *map = may ? mmap(NULL, (size_t)gguf_split_bytes(f->gguf, split), PROT_READ, MAP_SHARED, file->fd, 0) : MAP_FAILED;
        file->no_residency = map == MAP_FAILED;
        file->map = file->no_residency ? NULL : map;
    }
    if (file->no_residency)
        return false;
    for (uint64_t at = from; at < from + bytes; at += sizeof present * page) {
        uint64_t n = (from + bytes - at) / page;
        n = n < sizeof present ? n : sizeof present;
        if (mincore((char *)file->map + at, (size_t)(n * page), present) != 0)
            return false;
        for (uint64_t i = 0; i < n; i++)
            if (!(present[i] & 1))
                return false;
    }
    return true;
}

static bool is_resident(struct source_file *f, const struct source_range *r)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = r->offset / page * page, end = (r->offset + r->bytes + page - 1) / page * page;
    struct split_file *file = &f->files[r->split];
    bool known;
    if (f->options.all_cold)
        return false;
    bool resident = resident_by_cachestat(file->fd, from, end - from, page, &known);
    return known ? resident : resident_by_mincore(f, file, r->split, from, end - from, page);
}

/* --- the ring ----------------------------------------------------------------------------------------------------------- */

static uint64_t memlock_bytes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

#ifdef HAVE_LIBURING
static void register_buffers(struct source_file *f)
{
    struct iovec parts[SOURCE_FILE_MAX_IN_FLIGHT];
    uint32_t n = f->n_slots - f->threads;
    if (f->options.no_registered || n > SOURCE_FILE_MAX_IN_FLIGHT)
        return;
    for (uint32_t i = 0; i < n; i++)
        parts[i] = (struct iovec){f->slots[f->threads + i].data, f->slot_bytes};
    int rc = io_uring_register_buffers(&f->ring, parts, n);
    f->registered = rc == 0;
    if (rc != 0)
        source_note(&f->report, "%u buffers of %zu KiB could not be registered (%s; ulimit -l is %" PRIu64 " KiB)", n, f->slot_bytes / 1024,
                    strerror(-rc), memlock_bytes() / 1024);
}

static void start_ring(struct source_file *f)
{
    int rc = f->options.no_uring ? -ENOSYS : io_uring_queue_init(SOURCE_FILE_MAX_IN_FLIGHT, &f->ring, 0);
    f->ring_state = rc == 0 ? RING_THERE : RING_MISSING;
    if (rc == 0)
        register_buffers(f);
    else
        source_note(&f->report, "no io_uring (%s): files are read by pread", strerror(-rc));
}

static void stop_ring(struct source_file *f)
{
    if (f->ring_state == RING_THERE)
        io_uring_queue_exit(&f->ring);
    f->ring_state = RING_UNTRIED;
    f->registered = false;
}

static void prepare_read(struct source_file *f, uint32_t i)
{
    struct slot *s = &f->slots[i];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring); /* there are more than slots */
    const struct split_file *file = &f->files[f->ranges[s->range].split];
    int fd = s->way == WAY_DIRECT ? file->direct_fd : file->fd;
    if (f->registered)
        io_uring_prep_read_fixed(sqe, fd, s->data, (unsigned)s->length, s->from, (int)(i - f->threads));
    else
        io_uring_prep_read(sqe, fd, s->data, (unsigned)s->length, s->from);
    io_uring_sqe_set_data(sqe, s);
}

/* What was prepared and not taken by the kernel is taken next time. */
static void submit(struct source_file *f)
{
    io_uring_submit(&f->ring);
}

/* A slot whose read has ended; wait: there is one under way. NULL: none. */
static struct slot *completed(struct source_file *f, bool wait)
{
    struct io_uring_cqe *cqe;
    int rc = io_uring_peek_cqe(&f->ring, &cqe);
    while (rc != 0 && wait)
        rc = io_uring_submit_and_wait(&f->ring, 1) < 0 ? io_uring_wait_cqe(&f->ring, &cqe) : io_uring_peek_cqe(&f->ring, &cqe);
    if (rc != 0)
        return NULL;
    struct slot *s = io_uring_cqe_get_data(cqe);
    s->failed = cqe->res < 0 ? -cqe->res : 0;
    s->have = cqe->res < 0 ? 0 : (size_t)cqe->res;
    io_uring_cqe_seen(&f->ring, cqe);
    f->in_flight--;
    return s;
}
#else
static void start_ring(struct source_file *f)
{
    f->ring_state = RING_MISSING;
    source_note(&f->report, "built without io_uring: files are read by pread");
}

static void stop_ring(struct source_file *f)
{
    f->ring_state = RING_UNTRIED;
}

static void prepare_read(struct source_file *f, uint32_t i)
{
    (void)f;
    (void)i;
}

static void submit(struct source_file *f)
{
    (void)f;
}

static struct slot *completed(struct source_file *f, bool wait)
{
    (void)f;
    (void)wait;
    return NULL;
}
#endif

/* --- reading ------------------------------------------------------------------------------------------------------------ */

static void aim(struct slot *s, const struct source_range *r, size_t range, enum way way)
{
    uint64_t align = way == WAY_DIRECT ? DIRECT_ALIGN : 1;
    s->range = range;
    s->way = way;
    s->from = r->offset / align * align;
    s->skip = (size_t)(r->offset - s->from);
    s->length = (size_t)((r->offset + r->bytes + align - 1) / align * align - s->from);
    s->have = 0;
    s->failed = 0;
}

static uint32_t free_slot(struct source_file *f)
{
    for (uint32_t i = f->threads; i < f->n_slots; i++)
        if (!atomic_exchange_explicit(&f->taken[i - f->threads], 1, memory_order_acquire))
            return i;
    return UINT32_MAX;
}

/* Opens the next range's file, and says whether the range is resident. */
static int look_at_head(struct source_file *f)
{
    const struct source_range *r = &f->ranges[f->next];
    if (f->head != HEAD_UNKNOWN)
        return 0;
    if (open_split(f, r->split, &f->err) != 0)
        return -1;
    f->head = is_resident(f, r) ? HEAD_RESIDENT : HEAD_COLD;
    return 0;
}

/* Gives the ring all it may have of the cold ranges that come next. */
static int top_up(struct source_file *f)
{
    bool any = false;
    while (f->next < f->n_ranges && f->in_flight < f->in_flight_max) {
        if (look_at_head(f) != 0)
            return -1;
        if (f->head == HEAD_RESIDENT)
            break;
        if (f->ring_state == RING_UNTRIED)
            start_ring(f);
        uint32_t i = f->ring_state == RING_THERE ? free_slot(f) : UINT32_MAX;
        if (i == UINT32_MAX)
            break;
        const struct source_range *r = &f->ranges[f->next];
        const struct split_file *file = &f->files[r->split];
        aim(&f->slots[i], r, f->next, file->direct_fd >= 0 && !file->direct_refused ? WAY_DIRECT : WAY_BUFFERED);
        prepare_read(f, i);
        f->in_flight++;
        f->next++;
        f->head = HEAD_UNKNOWN;
        any = true;
    }
    if (any)
        submit(f);
    return 0;
}

/* What is missing of a range is read here and now: all of it where the thread reads by itself, the rest of a short read, or
 * everything again where the file system refused to read past its cache. Outside the lock. */
static int complete(struct source_file *f, struct slot *s, struct err *err)
{
    const struct source_range *r = &f->ranges[s->range];
    const char *path = path_of(f, r->split);
    size_t need = s->skip + r->bytes;
    if (s->failed && s->failed != EINVAL && s->failed != EOPNOTSUPP && s->failed != EINTR && s->failed != EAGAIN)
        return err_errno(err, s->failed, "%s: reading %u bytes at byte %" PRIu64, path, r->bytes, r->offset);
    while (s->have < need) {
        ssize_t n = pread(f->files[r->split].fd, s->data + s->have, need - s->have, (off_t)(s->from + s->have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "%s: reading %u bytes at byte %" PRIu64, path, r->bytes, r->offset);
        if (n == 0)
            return err_set(err, ERR_INPUT, "%s: the file ends at byte %" PRIu64 " while bytes %" PRIu64 " to %" PRIu64
                                           " are read: it was cut meanwhile; get it again",
                           path, s->from + s->have, r->offset, r->offset + r->bytes);
        s->have += (size_t)n;
    }
    return 0;
}

/* Under the lock. A refusal that came from the read itself: every later range of the file goes through the page cache. */
static void learn_from(struct source_file *f, struct slot *s)
{
    struct split_file *file = &f->files[f->ranges[s->range].split];
    if (s->way == WAY_DIRECT && (s->failed == EINVAL || s->failed == EOPNOTSUPP)) {
        source_note(&f->report, "the file system does not read past the page cache (O_DIRECT: %s)", strerror(s->failed));
        s->way = WAY_BUFFERED;
        file->direct_refused = true;
    }
    f->bytes[s->way] += f->ranges[s->range].bytes;
}

/* Under the lock: the slot to go on with outside it; NULL and *ret_rc: 0 nothing more, -1 failed. */
static struct slot *choose(struct source_file *f, unsigned thread, int *ret_rc)
{
    struct slot *s;
    *ret_rc = -1;
    if (f->failed)
        return NULL;
    if (atomic_load(&f->cancelled)) {
        err_set(&f->err, ERR_CANCELLED, "loading was cancelled");
        return NULL;
    }
    if (top_up(f) != 0)
        return NULL;
    if (f->in_flight > 0 && (s = completed(f, false)))
        return s;
    if (f->next < f->n_ranges && look_at_head(f) != 0)
        return NULL;
    if (f->next < f->n_ranges && (f->head == HEAD_RESIDENT || f->ring_state == RING_MISSING)) {
        const struct source_range *r = &f->ranges[f->next];
        s = &f->slots[thread];
        aim(s, r, f->next, f->head == HEAD_RESIDENT ? WAY_CACHED : WAY_BUFFERED);
        if (s->way == WAY_BUFFERED) /* so that the disk works while we pack */
            posix_fadvise(f->files[r->split].fd, (off_t)(r->offset + r->bytes), READ_AHEAD, POSIX_FADV_WILLNEED);
        f->next++;
        f->head = HEAD_UNKNOWN;
        return s;
    }
    if (f->in_flight > 0)
        return completed(f, true);
    *ret_rc = 0;
    return NULL;
}

static void fail(struct source_file *f, size_t range, const struct err *why)
{
    pthread_mutex_lock(&f->lock);
    if (!f->failed) {
        f->err = *why;
        f->failed_range = range;
    }
    f->failed = true;
    pthread_mutex_unlock(&f->lock);
}

static int file_next(struct weight_source *base, unsigned thread, struct source_data *ret, struct err *err)
{
    struct source_file *f = self(base);
    struct err why;
    int rc;
    pthread_mutex_lock(&f->lock);
    struct slot *s = choose(f, thread, &rc);
    if (s)
        learn_from(f, s);
    else if (rc != 0)
        f->failed = true;
    if (rc != 0 && !s) {
        ret->range = f->failed_range;
        if (err)
            *err = f->err;
    }
    pthread_mutex_unlock(&f->lock);
    if (!s)
        return rc;
    *ret = (struct source_data){s->range, s->data + s->skip, (uint32_t)(s - f->slots)};
    if (complete(f, s, &why) == 0)
        return 1;
    if (err)
        *err = why;
    fail(f, ret->range, &why); /* the slot stays taken: nothing is read any more */
    return -1;
}

static void file_done(struct weight_source *base, const struct source_data *data)
{
    struct source_file *f = self(base);
    if (data->slot >= f->threads)
        atomic_store_explicit(&f->taken[data->slot - f->threads], 0, memory_order_release);
}

/* --- a load ------------------------------------------------------------------------------------------------------------- */

/* What a big team keeps in its hands would not fit the memory that may be locked, so it takes smaller bites. */
static uint32_t file_range_bytes(const struct weight_source *base, unsigned threads)
{
    const struct source_file *f = (const struct source_file *)base;
    uint64_t may = memlock_bytes();
    if (f->options.range_bytes)
        return f->options.range_bytes;
    uint32_t bytes = SOURCE_FILE_RANGE;
    while (bytes > SOURCE_FILE_RANGE_MIN && (threads + (uint64_t)SOURCE_FILE_IN_FLIGHT) * (bytes + 2 * DIRECT_ALIGN) > may)
        bytes /= 2;
    return bytes;
}

static int make_slots(struct source_file *f, struct err *err)
{
    uint32_t most = 0, n_ring = f->threads + f->in_flight_max;
    for (size_t i = 0; i < f->n_ranges; i++)
        most = f->ranges[i].bytes > most ? f->ranges[i].bytes : most;
    f->slot_bytes = ((size_t)most + 2 * DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN + DIRECT_ALIGN;
    f->n_slots = f->threads + n_ring;
    f->pages_bytes = f->n_slots * f->slot_bytes;
    if (!(f->slots = mem_new(f->n_slots, sizeof *f->slots, err)) || !(f->taken = mem_new(n_ring, sizeof *f->taken, err)) ||
        !(f->pages = mem_pages_alloc(f->pages_bytes, err)))
        return err_wrap(err, "buffers for loading");
    for (uint32_t i = 0; i < f->n_slots; i++)
        f->slots[i].data = f->pages + i * f->slot_bytes;
    return 0;
}

static int file_begin(struct weight_source *base, const struct source_range *ranges, size_t n, unsigned threads, struct err *err)
{
    struct source_file *f = self(base);
    f->ranges = ranges;
    f->n_ranges = n;
    f->failed_range = SIZE_MAX;
    f->threads = threads;
    f->in_flight_max = f->options.in_flight ? f->options.in_flight : SOURCE_FILE_IN_FLIGHT;
    if (f->in_flight_max > SOURCE_FILE_MAX_IN_FLIGHT)
        f->in_flight_max = SOURCE_FILE_MAX_IN_FLIGHT;
    if (f->in_flight_max > n)
        f->in_flight_max = (uint32_t)n;
    return make_slots(f, err);
}

static int file_end(struct weight_source *base, struct err *err)
{
    struct source_file *f = self(base);
    int rc = 0;
    while (f->in_flight > 0)
        completed(f, true);
    stop_ring(f);
    for (uint32_t i = 0; i < f->n_files && rc == 0; i++)
        if (f->files[i].fd >= 0 && !f->failed)
            rc = check_stamp(f, i, err);
    return rc;
}

static void file_cancel(struct weight_source *base)
{
    atomic_store(&self(base)->cancelled, true);
}

static void file_report(const struct weight_source *base, struct source_report *ret)
{
    struct source_file *f = (struct source_file *)(uintptr_t)base;
    pthread_mutex_lock(&f->lock);
    *ret = f->report;
    for (int way = 0; way < WAYS; way++)
        source_part(ret, way_names[way], f->bytes[way]);
    pthread_mutex_unlock(&f->lock);
}

static void file_destroy(struct weight_source *base)
{
    struct source_file *f = self(base);
    stop_ring(f);
    for (uint32_t i = 0; i < f->n_files; i++) {
        if (f->files[i].map)
            munmap(f->files[i].map, (size_t)gguf_split_bytes(f->gguf, i));
        if (f->files[i].fd >= 0)
            close(f->files[i].fd);
        if (f->files[i].direct_fd >= 0)
            close(f->files[i].direct_fd);
    }
    mem_pages_free(f->pages, f->pages_bytes);
    free(f->slots);
    free((void *)f->taken);
    free(f->files);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void *file_buffers(const struct weight_source *base, size_t *ret_bytes)
{
    const struct source_file *f = (const struct source_file *)base;
    *ret_bytes = f->pages_bytes;
    return f->pages;
}

static const struct weight_source_ops file_ops = {
    .range_bytes = file_range_bytes,
    .begin = file_begin,
    .next = file_next,
    .done = file_done,
    .end = file_end,
    .buffers = file_buffers,
    .cancel = file_cancel,
    .report = file_report,
    .destroy = file_destroy,
};

struct weight_source *source_file_create(const struct gguf *g, const struct source_file_options *options, struct err *err)
{
    if (gguf_from_memory(g)) {
        err_set(err, ERR_USAGE, "the model's header came from memory: there is no file to load tensors from");
        return NULL;
    }
    struct source_file *f = mem_new(1, sizeof *f, err);
    if (!f)
        return NULL;
    f->base.ops = &file_ops;
    f->gguf = g;
    if (options)
        f->options = *options;
    pthread_mutex_init(&f->lock, NULL);
    if (!(f->files = mem_new(gguf_n_splits(g), sizeof *f->files, err))) {
        file_destroy(&f->base);
        return NULL;
    }
    for (f->n_files = 0; f->n_files < gguf_n_splits(g); f->n_files++)
        f->files[f->n_files] = (struct split_file){.fd = -1, .direct_fd = -1};
    return &f->base;
}
