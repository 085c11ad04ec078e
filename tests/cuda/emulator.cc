/* The machine of emulator.hh: fibers, barriers, exchanges within a warp. One launch at a time; the caller holds a lock. */
#include "tests/cuda/emulator.hh"

#include <stdarg.h>
#include <sys/mman.h>

#include "tests/cuda/machine.hh"

namespace emu {

/* No power of two: else all stacks meet in the same sets of the cache, and every switch misses it. */
enum { STACK_BYTES = (128 << 10) + 17 * 64, WARPS = MAX_THREADS / WARP_LANES };

/* What a warp waits for and exchanges. An exchange uses the two places in turn: whoever comes to the next but one has passed
 * the next, and so all have read this one. */
struct warp {
    char given[2][WARP_LANES * EXCHANGE];
    const char *what;
    uint32_t arrived, live;
};

kernel *kernels;
thread *self;
block current;
uint32_t capability = 90;

static thread threads[MAX_THREADS];
static warp warps[WARPS];
static thread *runnable[MAX_THREADS], *waiting[MAX_THREADS];
static uint32_t n_runnable, n_waiting, n_live, n_threads;
static thread *warp_waiting[WARPS][WARP_LANES];
static int votes, last_votes;
static char *stacks;
static void *main_sp;
static uint64_t blocks_run, random_state = 1;
static const kernel *running;
static const void *running_args;

kernel::kernel(const char *name_, void (*call_)(const void *), size_t bytes, uint32_t most)
    : name(name_), call(call_), args_bytes(bytes), max_threads(most), launches(0), next(kernels)
{
    kernels = this;
}

void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "emulated CUDA device: kernel %s, block (%u, %u, %u): ", running ? running->name : "none", current.id.x, current.id.y, current.id.z);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * n >> 32);
}

/* --- fibers: a stack and the registers that a call must keep --------------------------------------------------------------- */

extern "C" void emu_switch(void **save_sp, void *load_sp);
extern "C" void emu_start(void);
#if defined(__x86_64__)
asm(".text\n.globl emu_switch\n.type emu_switch, @function\nemu_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size emu_switch, . - emu_switch\n");
enum { SAVED_WORDS = 7 }; /* six registers, and where to go */
#elif defined(__aarch64__)
asm(".text\n.globl emu_switch\n.type emu_switch, %function\nemu_switch:\n"
    "sub sp, sp, #176\n"
    "stp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\n"
    "stp x29, x30, [sp, #80]\nstp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\n"
    "ldp x29, x30, [sp, #80]\nldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
    "add sp, sp, #176\nret\n"
    ".size emu_switch, . - emu_switch\n");
#else
#error "fibers are written for x86-64 and arm64"
#endif

static void go_on(void **save)
{
    if (n_runnable == 0 && n_live > 0)
        die("%u threads wait at a barrier or within their warp for others that will not come (%s)", n_live,
            n_waiting ? "some are at __syncthreads" : warps[0].what ? warps[0].what : "a warp's barrier");
    if (n_live == 0) {
        emu_switch(save, main_sp);
        return;
    }
    uint32_t i = random_below(n_runnable);
    thread *next = runnable[i];
    runnable[i] = runnable[--n_runnable];
    if (next == self)
        return;
    self = next;
    emu_switch(save, next->sp);
}

static void wake_all()
{
    memcpy(runnable + n_runnable, waiting, n_waiting * sizeof *waiting);
    n_runnable += n_waiting;
    n_waiting = 0;
    last_votes = votes;
    votes = 0;
    current.epoch++;
}

/* A thread's whole life, again and again for each block. */
static void live()
{
    for (;;) {
        running->call(running_args);
        warp *w = &warps[self->warp];
        self->done = true;
        w->live--;
        n_live--;
        if (w->arrived > 0 && w->arrived == w->live)
            die("a thread of warp %u ended while others wait for all of it (%s)", self->warp, w->what);
        if (n_waiting > 0 && n_waiting == n_live)
            wake_all();
        go_on(&self->sp);
    }
}

extern "C" void emu_start(void)
{
    live();
}

static void make_fiber(thread *t)
{
    char *top = stacks + (size_t)(t->number + 1) * STACK_BYTES;
#if defined(__x86_64__)
    void **sp = (void **)top - 1; /* as after a call: 8 below a multiple of 16 */
    *sp = NULL;
    *--sp = (void *)emu_start;
    for (int i = 1; i < SAVED_WORDS; i++)
        *--sp = NULL;
    t->sp = sp;
#else
    void **sp = (void **)(top - 176);
    memset(sp, 0, 176);
    sp[11] = (void *)emu_start;
    t->sp = sp;
#endif
}

/* --- what threads call ----------------------------------------------------------------------------------------------------- */

void barrier()
{
    waiting[n_waiting++] = self;
    if (n_waiting == n_live)
        wake_all();
    go_on(&self->sp);
}

int vote_count(bool is)
{
    votes += is;
    barrier();
    return last_votes;
}

/* Waits for all lanes of the warp. */
static void meet(const char *what)
{
    warp *w = &warps[self->warp];
    if (w->arrived == 0)
        w->what = what;
    else if (w->what != what && strcmp(w->what, what) != 0)
        die("lanes of warp %u are apart: one at %s, another at %s", self->warp, w->what, what);
    warp_waiting[self->warp][w->arrived++] = self;
    uint32_t lanes = n_threads - self->warp * WARP_LANES < WARP_LANES ? n_threads - self->warp * WARP_LANES : WARP_LANES;
    if (w->live < lanes)
        die("warp %u: %s, but %u lanes have ended", self->warp, what, lanes - w->live);
    if (w->arrived == lanes) {
        memcpy(runnable + n_runnable, warp_waiting[self->warp], w->arrived * sizeof *runnable);
        n_runnable += w->arrived;
        w->arrived = 0;
    }
    go_on(&self->sp);
}

void warp_barrier()
{
    meet("syncwarp");
    self->warp_epoch++;
}

const char *exchange(const void *give, uint32_t bytes, const char *what)
{
    char *given = warps[self->warp].given[self->exchanges++ % 2];
    if (bytes > EXCHANGE)
        die("an exchange of %u bytes, there is room for %d", bytes, EXCHANGE);
    memcpy(given + self->lane * EXCHANGE, give, bytes);
    meet(what);
    return given;
}

/* --- a launch -------------------------------------------------------------------------------------------------------------- */

static void run_block(uint32_t number)
{
    current.id = index3{number % current.grid.x, number / current.grid.x % current.grid.y, number / current.grid.x / current.grid.y};
    current.number = ++blocks_run;
    current.epoch = 0;
    n_live = n_threads;
    n_runnable = n_waiting = 0;
    votes = 0;
    for (uint32_t i = 0; i < (n_threads + WARP_LANES - 1) / WARP_LANES; i++) {
        warps[i].arrived = 0;
        warps[i].what = NULL;
        warps[i].live = n_threads - i * WARP_LANES < WARP_LANES ? n_threads - i * WARP_LANES : WARP_LANES;
    }
    for (uint32_t i = 0; i < n_threads; i++) {
        thread *t = &threads[i];
        t->tid = index3{i % current.dim.x, i / current.dim.x % current.dim.y, i / current.dim.x / current.dim.y};
        t->exchanges = t->warp_epoch = 0;
        t->done = false;
        runnable[n_runnable++] = t;
    }
    self = NULL;
    go_on(&main_sp);
}

void set_seed(uint64_t seed)
{
    random_state = seed * 0x9E3779B97F4A7C15u | 1;
}

void launch(kernel *k, const uint32_t grid[3], const uint32_t dim[3], const void *args)
{
    if (!stacks) {
        stacks = (char *)mmap(NULL, (size_t)MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED)
            die("no memory for stacks");
        for (uint32_t i = 0; i < MAX_THREADS; i++) {
            threads[i].number = i;
            threads[i].lane = i % WARP_LANES;
            threads[i].warp = i / WARP_LANES;
            make_fiber(&threads[i]);
        }
    }
    running = k;
    running_args = args;
    k->launches++;
    current.grid = index3{grid[0], grid[1], grid[2]};
    current.dim = index3{dim[0], dim[1], dim[2]};
    n_threads = dim[0] * dim[1] * dim[2];
    if (n_threads == 0 || n_threads > k->max_threads)
        die("%u threads in a block, the kernel is made for %u", n_threads, k->max_threads);
    uint32_t n = grid[0] * grid[1] * grid[2], start = n ? random_below(n) : 0, step = 1;
    static const uint32_t steps[] = {7919, 104729, 31, 1};
    for (uint32_t i = 0; i < 4; i++) /* one that visits every block */
        if (n % steps[i] != 0 || steps[i] == 1) {
            step = steps[i];
            break;
        }
    for (uint32_t i = 0; i < n; i++)
        run_block((uint32_t)(((uint64_t)start + (uint64_t)i * step) % n));
    running = NULL;
}

} /* namespace emu */
