/* The driver's functions over the emulated machine, as a library named libcuda.so.1: a program that finds it first
 * (LD_LIBRARY_PATH) has an emulated device. Device memory ends where a page ends that may not be touched. What is enqueued runs
 * when somebody waits for it, and not before, so that whoever reads or overwrites too early notices.
 *
 * SC_EMULATED_CUDA: a list of NAME=NUMBER: devices (1), memory (MiB each, 1024), capability (90), seed (1), graphs (1),
 * fail_alloc (the how manieth allocation fails; 0: none), pin (1; 0: no pages of the host's can be pinned), peers (1; 0: devices do
 * not reach each other's memory), blas (1; 0: emulated.c leaves cuBLAS out), tell (0; 1: says at exit how many bytes came back).
 * Device memory is shared memory to the system, so that what a process holds of the host's own is what it calls anonymous.
 * At exit it says on stderr what was not freed. */
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "tests/cuda/machine.hh"

#define API extern "C" __attribute__((visibility("default"))) int

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, PEER_UNSUPPORTED = 217, NOT_FOUND = 500, PEER_ENABLED = 704, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801, MAX_DEVICES = 8, MAX_ALLOCS = 1 << 14, ARGS = 512 };
enum { PAGE = 4096, ALIGN = 256 };

/* Something in a stream or a graph. */
struct op {
    enum { LAUNCH, COPY, SET, EVENT, CALL } what;
    emu::kernel *kernel;
    void (*call)(const void *args);
    uint32_t grid[3], dim[3];
    char args[ARGS];
    void *to;
    const void *from;
    size_t bytes;
    bool between; /* devices: */
    int to_device, from_device;
    uint8_t value;
    struct event *event;
    uint64_t recorded; /* which record of the event it is */
    op *next;
};

struct list {
    op *first, **end;
};

struct event {
    double time;
    struct stream *in;
    uint64_t recorded, done;
};

struct stream {
    int device;
    list ops;
    list *captured; /* not NULL while capturing */
};

struct alloc {
    char *at, *map;
    size_t bytes, map_bytes;
    int device; /* HOST: pinned, ours; PINNED: pinned, the program's */
};
enum { HOST = -1, PINNED = -2 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static alloc allocs[MAX_ALLOCS];
static size_t used[MAX_DEVICES];
static unsigned n_devices = 1, fail_alloc, n_allocs_made;
static uint64_t memory = 1024ull << 20;
static size_t host_bytes, host_peak;
static uint64_t peer_copies, came_back;
static std::atomic<int> fail_in; /* calls that enqueue or make graphs, until one fails; 0: none does */
static bool graphs = true, pin = true, peers = true, tell, reaches[MAX_DEVICES][MAX_DEVICES];
static int live_streams, live_graphs, live_modules, live_events, live_others, retained[MAX_DEVICES];
static __thread int device_now = -1;

__attribute__((constructor)) static void configure()
{
    const char *s = getenv("SC_EMULATED_CUDA");
    emu::set_seed(1);
    while (s && *s) {
        char name[32];
        unsigned long value;
        int n = 0;
        if (sscanf(s, "%31[a-z_]=%lu%n", name, &value, &n) != 2) {
            fprintf(stderr, "SC_EMULATED_CUDA: \"%s\" is no NAME=NUMBER\n", s);
            abort();
        }
        if (!strcmp(name, "devices"))
            n_devices = value < MAX_DEVICES ? (unsigned)value : MAX_DEVICES;
        else if (!strcmp(name, "memory"))
            memory = (uint64_t)value << 20;
        else if (!strcmp(name, "capability"))
            emu::capability = (uint32_t)value;
        else if (!strcmp(name, "seed"))
            emu::set_seed(value);
        else if (!strcmp(name, "graphs"))
            graphs = value != 0;
        else if (!strcmp(name, "fail_alloc"))
            fail_alloc = (unsigned)value;
        else if (!strcmp(name, "pin"))
            pin = value != 0;
        else if (!strcmp(name, "peers"))
            peers = value != 0;
        else if (!strcmp(name, "tell"))
            tell = value != 0;
        else if (strcmp(name, "blas") != 0) { /* that one is for whoever opens cuBLAS: emulated.c */
            fprintf(stderr, "SC_EMULATED_CUDA: no setting is called %s\n", name);
            abort();
        }
        s += n;
        s += *s == ',';
    }
}

extern "C" __attribute__((visibility("default"))) unsigned emulated_cuda_live(void)
{
    unsigned n = (unsigned)(live_streams + live_graphs + live_modules + live_events + live_others);
    for (int i = 0; i < MAX_ALLOCS; i++)
        n += allocs[i].map != NULL;
    for (int i = 0; i < MAX_DEVICES; i++)
        n += (unsigned)retained[i];
    return n;
}

/* Most bytes of the host's memory that were pinned at once; copies from device to device. */
extern "C" __attribute__((visibility("default"))) uint64_t emulated_cuda_pinned(void)
{
    return host_peak;
}

extern "C" __attribute__((visibility("default"))) uint64_t emulated_cuda_peer_copies(void)
{
    return peer_copies;
}

/* The kernels there are, and how often each ran: name NULL past the last. */
extern "C" __attribute__((visibility("default"))) uint64_t emulated_cuda_kernel(unsigned i, const char **name)
{
    emu::kernel *k = emu::kernels;
    for (; k && i > 0; i--)
        k = k->next;
    *name = k ? k->name : NULL;
    return k ? k->launches : 0;
}

__attribute__((destructor)) static void at_exit()
{
    size_t n = 0, bytes = 0;
    const char *file = getenv("SC_EMULATED_CUDA_KERNELS");
    for (int i = 0; i < MAX_ALLOCS; i++)
        if (allocs[i].map) {
            n++;
            bytes += allocs[i].bytes;
        }
    if (emulated_cuda_live())
        fprintf(stderr, "emulated CUDA device: at exit %zu allocations of %zu bytes, %d streams, %d graphs, %d modules, %d events are left\n", n,
                bytes, live_streams, live_graphs, live_modules, live_events);
    if (tell)
        fprintf(stderr, "emulated CUDA device: %llu bytes came back\n", (unsigned long long)came_back);
    if (file) { /* appends which kernels ran */
        FILE *f = fopen(file, "a");
        for (emu::kernel *k = emu::kernels; f && k; k = k->next)
            fprintf(f, "%s %llu\n", k->name, (unsigned long long)k->launches);
        if (f)
            fclose(f);
    }
}

static double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* --- memory ---------------------------------------------------------------------------------------------------------------- */

static void count_host(size_t more)
{
    host_bytes += more;
    host_peak = host_bytes > host_peak ? host_bytes : host_peak;
}

static int allocate(size_t bytes, int device, void **ret)
{
    size_t inside = (bytes + ALIGN - 1) / ALIGN * ALIGN, map_bytes = (inside + PAGE - 1) / PAGE * PAGE + 2 * PAGE;
    if (bytes == 0)
        return INVALID_VALUE;
    if (device >= 0 && (used[device] + inside > memory || ++n_allocs_made == fail_alloc))
        return OUT_OF_MEMORY;
    for (int i = 0; i < MAX_ALLOCS; i++) {
        alloc *a = &allocs[i];
        if (a->map)
            continue;
        char *map = (char *)mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, (device < 0 ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            return OUT_OF_MEMORY;
        mprotect(map, PAGE, PROT_NONE);
        mprotect(map + map_bytes - PAGE, PAGE, PROT_NONE);
        *a = alloc{map + map_bytes - PAGE - inside, map, inside, map_bytes, device};
        memset(a->at, 0xA5, inside < 1 << 20 ? inside : 1 << 20); /* what nobody wrote is no zeros */
        if (device >= 0)
            used[device] += inside;
        else
            count_host(inside);
        *ret = a->at;
        return SUCCESS;
    }
    return OUT_OF_MEMORY;
}

static int release(const void *at, bool host)
{
    for (int i = 0; i < MAX_ALLOCS; i++)
        if (allocs[i].map && allocs[i].at == at && (host ? allocs[i].device == HOST : allocs[i].device >= 0)) {
            if (host)
                host_bytes -= allocs[i].bytes;
            else
                used[allocs[i].device] -= allocs[i].bytes;
            munmap(allocs[i].map, allocs[i].map_bytes);
            allocs[i] = alloc{};
            return SUCCESS;
        }
    emu::die("freed %p, which is no allocation", at);
}

static bool is_devices(const void *at)
{
    for (int i = 0; i < MAX_ALLOCS; i++)
        if (allocs[i].map && allocs[i].device >= 0 && (const char *)at >= allocs[i].at && (const char *)at < allocs[i].at + allocs[i].bytes)
            return true;
    return false;
}

/* Whether [at, at + bytes) lies in one of the device's allocations. */
static void check_range(int device, const void *at, size_t bytes, const char *what)
{
    for (int i = 0; i < MAX_ALLOCS; i++) {
        const alloc *a = &allocs[i];
        if (a->map && a->device == device && (const char *)at >= a->at && (const char *)at + bytes <= a->at + a->bytes)
            return;
    }
    emu::die("%s: %zu bytes at %p are not in one piece of the memory of device %d", what, bytes, at, device);
}

/* --- streams --------------------------------------------------------------------------------------------------------------- */

static void run(const op *o)
{
    switch (o->what) {
    case op::LAUNCH: emu::launch(o->kernel, o->grid, o->dim, o->args); break;
    case op::CALL: o->call(o->args); break;
    case op::COPY: memcpy(o->to, o->from, o->bytes); break;
    case op::SET: memset(o->to, o->value, o->bytes); break;
    case op::EVENT:
        o->event->time = now();
        o->event->done = o->recorded;
        break;
    }
}

static void add(list *l, const op &o)
{
    op *copy = new op(o);
    copy->next = NULL;
    *l->end = copy;
    l->end = &copy->next;
}

static void clear(list *l)
{
    while (op *o = l->first) {
        l->first = o->next;
        delete o;
    }
    l->end = &l->first;
}

extern "C" __attribute__((visibility("default"))) int emulated_cuda_fail_in(int calls)
{
    return fail_in.exchange(calls);
}

static bool fails_now()
{
    return fail_in > 0 && --fail_in == 0;
}

static int enqueue(void *s_, const op &o)
{
    stream *s = (stream *)s_;
    if (fails_now())
        return LAUNCH_FAILED;
    pthread_mutex_lock(&lock);
    if (o.what == op::COPY || o.what == op::SET) {
        bool to_device = is_devices(o.to), from_device = o.what == op::COPY && is_devices(o.from);
        if (to_device)
            check_range(o.between ? o.to_device : s->device, o.to, o.bytes, "copy to");
        if (from_device)
            check_range(o.between ? o.from_device : s->device, o.from, o.bytes, "copy from");
        if (!to_device && !from_device)
            emu::die("a copy between %p and %p, neither of which is the device's", o.from, o.to);
    }
    add(s->captured ? s->captured : &s->ops, o);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* All that is in the stream, or all up to an event's last record and no more. */
static void drain(stream *s, const event *until)
{
    pthread_mutex_lock(&lock);
    if (s->captured)
        emu::die("waited for a stream that is being captured");
    while (s->ops.first && (!until || until->done < until->recorded)) {
        op *o = s->ops.first;
        run(o);
        s->ops.first = o->next;
        delete o;
    }
    if (!s->ops.first)
        s->ops.end = &s->ops.first;
    pthread_mutex_unlock(&lock);
}

/* For other libraries of NVIDIA's that the tests have: a function in its turn of a stream; things that they made and did not destroy. */
API emulated_cuda_call(void *s, void (*fn)(const void *), const void *args, size_t bytes)
{
    op o = {};
    if (bytes > ARGS)
        return INVALID_VALUE;
    o.what = op::CALL;
    o.call = fn;
    memcpy(o.args, args, bytes);
    return enqueue(s, o);
}

extern "C" __attribute__((visibility("default"))) void emulated_cuda_count(int more)
{
    pthread_mutex_lock(&lock);
    live_others += more;
    pthread_mutex_unlock(&lock);
}

API cuInit(unsigned)
{
    return SUCCESS;
}

API cuDriverGetVersion(int *ret)
{
    *ret = 13000;
    return SUCCESS;
}

API cuDeviceGetCount(int *ret)
{
    *ret = (int)n_devices;
    return SUCCESS;
}

API cuDeviceGet(int *ret, int ordinal)
{
    *ret = ordinal;
    return ordinal >= 0 && ordinal < (int)n_devices ? SUCCESS : INVALID_VALUE;
}

API cuDeviceGetName(char *ret, int len, int)
{
    snprintf(ret, (size_t)len, "emulated");
    return SUCCESS;
}

API cuDeviceTotalMem_v2(size_t *ret, int)
{
    *ret = memory;
    return SUCCESS;
}

API cuDeviceGetAttribute(int *ret, int what, int)
{
    switch (what) {
    case 75: *ret = (int)emu::capability / 10; break;
    case 76: *ret = (int)emu::capability % 10; break;
    case 16: *ret = 4; break;          /* multiprocessors */
    case 13: *ret = 1000 * 1000; break; /* kHz */
    default: return INVALID_VALUE;
    }
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(void **ret, int device)
{
    pthread_mutex_lock(&lock);
    retained[device]++;
    pthread_mutex_unlock(&lock);
    *ret = &used[device];
    return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device)
{
    pthread_mutex_lock(&lock);
    retained[device]--;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

API cuCtxSetCurrent(void *ctx)
{
    device_now = ctx ? (int)((size_t *)ctx - used) : -1;
    return SUCCESS;
}

API cuMemGetInfo_v2(size_t *ret_free, size_t *ret_total)
{
    pthread_mutex_lock(&lock);
    *ret_total = memory;
    *ret_free = memory - used[device_now < 0 ? 0 : device_now];
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

API cuMemAlloc_v2(uint64_t *ret, size_t bytes)
{
    void *p = NULL;
    if (device_now < 0)
        emu::die("memory asked for by a thread without a context");
    pthread_mutex_lock(&lock);
    int rc = allocate(bytes, device_now, &p);
    pthread_mutex_unlock(&lock);
    *ret = (uint64_t)(uintptr_t)p;
    return rc;
}

API cuMemFree_v2(uint64_t at)
{
    pthread_mutex_lock(&lock);
    int rc = release((void *)(uintptr_t)at, false);
    pthread_mutex_unlock(&lock);
    return rc;
}

API cuMemHostAlloc(void **ret, size_t bytes, unsigned)
{
    pthread_mutex_lock(&lock);
    int rc = allocate(bytes, -1, ret);
    pthread_mutex_unlock(&lock);
    return rc;
}

API cuMemFreeHost(void *at)
{
    pthread_mutex_lock(&lock);
    int rc = release(at, true);
    pthread_mutex_unlock(&lock);
    return rc;
}

API cuMemHostRegister_v2(void *at, size_t bytes, unsigned)
{
    int rc = pin ? OUT_OF_MEMORY : NOT_SUPPORTED;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCS && rc == OUT_OF_MEMORY; i++)
        if (!allocs[i].map) {
            allocs[i] = alloc{(char *)at, (char *)at, bytes, 0, PINNED};
            count_host(bytes);
            rc = SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return rc;
}

API cuMemHostUnregister(void *at)
{
    int rc = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCS && rc != SUCCESS; i++)
        if (allocs[i].map == at && allocs[i].device == PINNED) {
            host_bytes -= allocs[i].bytes;
            allocs[i] = alloc{};
            rc = SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return rc;
}

API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *s)
{
    op o = {};
    o.what = op::COPY;
    o.to = (void *)(uintptr_t)to;
    o.from = from;
    o.bytes = bytes;
    return enqueue(s, o);
}

API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *s)
{
    op o = {};
    o.what = op::COPY;
    o.to = to;
    o.from = (const void *)(uintptr_t)from;
    o.bytes = bytes;
    pthread_mutex_lock(&lock);
    came_back += bytes;
    pthread_mutex_unlock(&lock);
    return enqueue(s, o);
}

API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *s)
{
    return cuMemcpyHtoDAsync_v2(to, (const void *)(uintptr_t)from, bytes, s);
}

API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *s)
{
    op o = {};
    o.what = op::SET;
    o.to = (void *)(uintptr_t)to;
    o.value = value;
    o.bytes = bytes;
    return enqueue(s, o);
}

API cuStreamCreate(void **ret, unsigned)
{
    stream *s = new stream();
    if (device_now < 0)
        emu::die("a stream made by a thread without a context");
    s->device = device_now;
    s->ops.end = &s->ops.first;
    pthread_mutex_lock(&lock);
    live_streams++;
    pthread_mutex_unlock(&lock);
    *ret = s;
    return SUCCESS;
}

API cuStreamSynchronize(void *s)
{
    drain((stream *)s, NULL);
    return SUCCESS;
}

API cuStreamDestroy_v2(void *s)
{
    drain((stream *)s, NULL);
    pthread_mutex_lock(&lock);
    live_streams--;
    pthread_mutex_unlock(&lock);
    delete (stream *)s;
    return SUCCESS;
}

/* --- between devices -------------------------------------------------------------------------------------------------------- */

API cuDeviceCanAccessPeer(int *ret, int device, int peer)
{
    *ret = peers && device != peer;
    return SUCCESS;
}

static int device_of(void *context)
{
    return (int)((size_t *)context - used);
}

API cuCtxEnablePeerAccess(void *peer, unsigned)
{
    int rc = !peers ? PEER_UNSUPPORTED : device_now < 0 || device_of(peer) == device_now ? INVALID_VALUE : SUCCESS;
    pthread_mutex_lock(&lock);
    if (rc == SUCCESS && reaches[device_now][device_of(peer)])
        rc = PEER_ENABLED;
    if (rc == SUCCESS)
        reaches[device_now][device_of(peer)] = true;
    pthread_mutex_unlock(&lock);
    return rc;
}

API cuMemcpyPeerAsync(uint64_t to, void *to_context, uint64_t from, void *from_context, size_t bytes, void *s)
{
    op o = {};
    o.what = op::COPY;
    o.to = (void *)(uintptr_t)to;
    o.from = (const void *)(uintptr_t)from;
    o.bytes = bytes;
    o.between = true;
    o.to_device = device_of(to_context);
    o.from_device = device_of(from_context);
    if (((stream *)s)->device != o.from_device)
        emu::die("a copy between devices %d and %d in a stream of device %d", o.from_device, o.to_device, ((stream *)s)->device);
    pthread_mutex_lock(&lock);
    peer_copies++;
    pthread_mutex_unlock(&lock);
    return enqueue(s, o);
}

/* --- events: a time each --------------------------------------------------------------------------------------------------- */

API cuEventCreate(void **ret, unsigned)
{
    pthread_mutex_lock(&lock);
    live_events++;
    pthread_mutex_unlock(&lock);
    *ret = new event();
    return SUCCESS;
}

API cuEventDestroy_v2(void *e_)
{
    event *e = (event *)e_;
    if (e->in && e->done < e->recorded)
        drain(e->in, e);
    pthread_mutex_lock(&lock);
    live_events--;
    pthread_mutex_unlock(&lock);
    delete e;
    return SUCCESS;
}

API cuEventRecord(void *e_, void *s)
{
    event *e = (event *)e_;
    op o = {};
    if (e->in && e->in != s && e->done < e->recorded)
        emu::die("an event recorded in another stream before the first one came to it");
    o.what = op::EVENT;
    o.event = e;
    o.recorded = ++e->recorded;
    e->in = (stream *)s;
    return enqueue(s, o);
}

API cuEventSynchronize(void *e)
{
    if (((event *)e)->in)
        drain(((event *)e)->in, (event *)e);
    return SUCCESS;
}

API cuEventElapsedTime(float *ret, void *from, void *to)
{
    *ret = (float)(((event *)to)->time - ((event *)from)->time);
    return SUCCESS;
}

/* --- kernels and graphs ----------------------------------------------------------------------------------------------------- */

API cuModuleLoadData(void **ret, const void *)
{
    pthread_mutex_lock(&lock);
    live_modules++;
    pthread_mutex_unlock(&lock);
    *ret = &live_modules;
    return SUCCESS;
}

API cuModuleUnload(void *)
{
    pthread_mutex_lock(&lock);
    live_modules--;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

API cuModuleGetFunction(void **ret, void *, const char *name)
{
    for (emu::kernel *k = emu::kernels; k; k = k->next)
        if (strcmp(k->name, name) == 0) {
            *ret = k;
            return SUCCESS;
        }
    return NOT_FOUND;
}

API cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **params,
                   void **extra)
{
    op o = {};
    emu::kernel *k = (emu::kernel *)f;
    if (shared || extra || k->args_bytes > ARGS || gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || bx * by * bz > k->max_threads)
        return INVALID_VALUE;
    o.what = op::LAUNCH;
    o.kernel = k;
    memcpy(o.args, params[0], k->args_bytes);
    uint32_t grid[3] = {gx, gy, gz}, dim[3] = {bx, by, bz};
    memcpy(o.grid, grid, sizeof grid);
    memcpy(o.dim, dim, sizeof dim);
    return enqueue(s, o);
}

API cuStreamBeginCapture_v2(void *s_, int)
{
    stream *s = (stream *)s_;
    if (!graphs)
        return NOT_SUPPORTED;
    if (s->captured)
        return INVALID_VALUE;
    s->captured = new list();
    s->captured->end = &s->captured->first;
    return SUCCESS;
}

API cuStreamEndCapture(void *s_, void **ret)
{
    stream *s = (stream *)s_;
    *ret = s->captured;
    if (!s->captured)
        return INVALID_VALUE;
    s->captured = NULL;
    pthread_mutex_lock(&lock);
    live_graphs++;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static void drop_graph(void *g)
{
    pthread_mutex_lock(&lock);
    live_graphs--;
    clear((list *)g);
    pthread_mutex_unlock(&lock);
    delete (list *)g;
}

API cuGraphInstantiateWithFlags(void **ret, void *graph, unsigned long long)
{
    if (fails_now())
        return OUT_OF_MEMORY;
    list *copy = new list();
    copy->end = &copy->first;
    pthread_mutex_lock(&lock);
    for (op *o = ((list *)graph)->first; o; o = o->next)
        add(copy, *o);
    live_graphs++;
    pthread_mutex_unlock(&lock);
    *ret = copy;
    return SUCCESS;
}

API cuGraphLaunch(void *exec, void *s)
{
    if (fails_now())
        return LAUNCH_FAILED;
    pthread_mutex_lock(&lock);
    for (op *o = ((list *)exec)->first; o; o = o->next)
        add(&((stream *)s)->ops, *o);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

API cuGraphExecDestroy(void *g)
{
    drop_graph(g);
    return SUCCESS;
}

API cuGraphDestroy(void *g)
{
    drop_graph(g);
    return SUCCESS;
}

API cuGetErrorString(int error, const char **ret)
{
    *ret = error == OUT_OF_MEMORY ? "out of memory" : error == SUCCESS ? "no error" : "an error of the emulated driver";
    return SUCCESS;
}
