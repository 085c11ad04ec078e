#ifndef TESTS_CUDA_EMULATOR_H
#define TESTS_CUDA_EMULATOR_H

/* The execution model of a CUDA device on the host, for kernels/cuda/ compiled by a C++ compiler. Threads of a block are
 * fibers; one runs at a time until it comes to a barrier or an exchange within its warp, and which one runs next is drawn by a
 * seeded generator, so that what depends on an order does not stay hidden. Blocks run one after another, in random order as
 * well. Shared memory is an array of cells that know who wrote and read them since the last barrier: two accesses of different
 * threads, one of them a write, with no barrier between, end the program with a sentence; so does reading what was never
 * written. Barriers and exchanges that not all threads reach end it, too.
 *
 * Not here: clocks, caches, bank conflicts, memory order between blocks. emulator.cc has the machine, driver.cc the driver's
 * functions over it. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE static inline
#define SHARED(type, name, n) static emu::cell<type> name[n]
#define DEVICE_TABLE static const
#define SC_MATH static inline
#define __restrict__

/* A kernel and its row in the table that the driver finds it by. */
#define KERNEL(name, threads, args)                                                                                              \
    static void sc_##name(const args a);                                                                                              \
    static void sc_##name##_call(const void *a)                                                                                       \
    {                                                                                                                            \
        args copy;                                                                                                               \
        memcpy(&copy, a, sizeof copy);                                                                                           \
        sc_##name(copy);                                                                                                          \
    }                                                                                                                            \
    static emu::kernel sc_##name##_registered("sc_" #name, sc_##name##_call, sizeof(args), threads);                                                    \
    static void sc_##name(const args a)

struct uint2 {
    uint32_t x, y;
};
struct uint4 {
    uint32_t x, y, z, w;
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};

static inline uint2 make_uint2(uint32_t x, uint32_t y)
{
    return uint2{x, y};
}

static inline float2 make_float2(float x, float y)
{
    return float2{x, y};
}

namespace emu {

enum { WARP_LANES = 32, MAX_THREADS = 1024, EXCHANGE = 32, NOBODY = 1 << 20 };

struct index3 {
    uint32_t x, y, z;
};

struct kernel {
    const char *name;
    void (*call)(const void *args);
    size_t args_bytes;
    uint32_t max_threads;
    uint64_t launches;
    kernel *next;
    kernel(const char *name_, void (*call_)(const void *), size_t bytes, uint32_t threads);
};
extern kernel *kernels;

/* Of the thread that runs. */
struct thread {
    index3 tid;
    uint32_t number, lane, warp;
    uint32_t exchanges;  /* of its warp that it took part in */
    uint32_t warp_epoch; /* barriers of its warp passed */
    void *sp;            /* of its fiber, while another runs */
    bool done;
};
struct block {
    index3 grid, dim, id;
    uint64_t number; /* counts blocks of all launches */
    uint32_t epoch;  /* barriers passed */
};
extern thread *self;
extern block current;
extern uint32_t capability; /* 61, 75, 80, …: which way products of matrices are made */

[[noreturn]] void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void barrier();
void warp_barrier();
/* Every lane gives `bytes` (up to EXCHANGE) and sees what all gave: lane l's at ret + l * EXCHANGE, until its next exchange. All
 * lanes must come to the same `what`. */
const char *exchange(const void *give, uint32_t bytes, const char *what);
int vote_count(bool is);

/* Who touched a cell, and when. */
struct trace {
    uint64_t block; /* 0: nobody */
    uint32_t epoch, warp_epoch, thread;
};

/* A cell of shared memory. */
template <class T> struct cell {
    T value;
    trace writer, reader;
    bool readers_of_many_warps, adding; /* adding: the writers since the last barrier only add */

    /* Whether what `t` tells of is behind a barrier for the thread that runs, or its own. */
    static bool settled(const trace &t)
    {
        if (t.block != current.number || t.epoch != current.epoch || t.thread == self->number)
            return true;
        return t.thread / WARP_LANES == self->warp && t.warp_epoch != self->warp_epoch;
    }
    static trace now()
    {
        return trace{current.number, current.epoch, self->warp_epoch, self->number};
    }
    void read()
    {
        if (writer.block != current.number)
            die("shared memory: thread %u reads what no thread of its block has written", self->number);
        if (!settled(writer))
            die("shared memory: thread %u reads what thread %u wrote without a barrier between", self->number, writer.thread);
        bool fresh = reader.block == current.number && reader.epoch == current.epoch;
        readers_of_many_warps = fresh && (readers_of_many_warps || reader.thread / WARP_LANES != self->warp);
        if (!fresh || reader.thread == self->number || reader.warp_epoch != self->warp_epoch)
            reader = now();
        else
            reader.thread = self->warp * WARP_LANES + (reader.thread + 1) % WARP_LANES; /* several of this warp: nobody's own */
    }
    void write()
    {
        if (writer.block == current.number && !settled(writer))
            die("shared memory: threads %u and %u write the same place without a barrier between", writer.thread, self->number);
        if (reader.block == current.number && reader.epoch == current.epoch && (readers_of_many_warps || !settled(reader)))
            die("shared memory: thread %u writes what thread %u or another reads without a barrier between", self->number, reader.thread);
        writer = now();
        adding = false;
    }
    operator T()
    {
        read();
        return value;
    }
    cell &operator=(const T &v)
    {
        write();
        value = v;
        return *this;
    }
    cell &operator=(cell &other)
    {
        return *this = (T)other;
    }
    /* An addition that others may make at the same time, but nobody reads or writes without a barrier between. */
    T add(const T &v)
    {
        bool others = writer.block == current.number && !settled(writer);
        if (writer.block != current.number)
            die("shared memory: thread %u adds to what no thread of its block has written", self->number);
        if (others && !adding)
            die("shared memory: thread %u adds to what thread %u writes without a barrier between", self->number, writer.thread);
        if (reader.block == current.number && reader.epoch == current.epoch && (readers_of_many_warps || !settled(reader)))
            die("shared memory: thread %u adds to what thread %u or another reads without a barrier between", self->number, reader.thread);
        writer = now();
        if (others)
            writer.thread = NOBODY;
        adding = true;
        T old = value;
        value += v;
        return old;
    }
};

} /* namespace emu */

#define threadIdx (emu::self->tid)
#define blockIdx (emu::current.id)
#define blockDim (emu::current.dim)
#define gridDim (emu::current.grid)

static inline void __syncthreads()
{
    emu::barrier();
}

static inline void __syncwarp()
{
    emu::warp_barrier();
}

template <class T> static inline T __shfl_sync(uint32_t, T v, uint32_t lane)
{
    T ret;
    memcpy(&ret, emu::exchange(&v, sizeof v, "shfl") + (lane % 32) * emu::EXCHANGE, sizeof ret);
    return ret;
}

template <class T> static inline T __shfl_xor_sync(uint32_t mask, T v, uint32_t with)
{
    return __shfl_sync(mask, v, emu::self->lane ^ with);
}

static inline uint32_t __ballot_sync(uint32_t, bool is)
{
    const char *all = emu::exchange(&is, sizeof is, "ballot");
    uint32_t ret = 0;
    for (uint32_t l = 0; l < 32; l++)
        ret |= (uint32_t)(all[l * emu::EXCHANGE] != 0) << l;
    return ret;
}

static inline int __syncthreads_count(bool is)
{
    return emu::vote_count(is);
}

static inline int __popc(uint32_t v)
{
    return __builtin_popcount(v);
}

static inline int __dp4a(int32_t a, int32_t b, int32_t c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i));
    return c;
}

static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t select)
{
    uint64_t both = (uint64_t)y << 32 | x;
    uint32_t ret = 0;
    for (int i = 0; i < 4; i++)
        ret |= (uint32_t)(both >> (8 * (select >> (4 * i) & 7)) & 0xFF) << (8 * i);
    return ret;
}

static inline float __int2float_rn(int32_t v)
{
    return (float)v;
}

static inline float __int_as_float(int32_t v)
{
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}

static inline int32_t __float_as_int(float f)
{
    int32_t v;
    memcpy(&v, &f, sizeof v);
    return v;
}

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

static inline uint32_t atomicAdd(uint32_t *p, uint32_t v)
{
    uint32_t old = *p;
    *p += v;
    return old;
}

template <class T> static inline T add_at(emu::cell<T> *p, T v)
{
    return p->add(v);
}

namespace emu {

/* What a tensor core does with its operands' fragments, element by element (kernels/cuda/device.cuh). */
static inline void mma_k16(int32_t d[4], uint32_t a0, uint32_t a1, uint32_t b)
{
    uint32_t mine[3] = {a0, a1, b}, t = emu::self->lane % 4, g = emu::self->lane / 4;
    const char *all = emu::exchange(mine, sizeof mine, "mma");
    for (uint32_t k4 = 0; k4 < 4; k4++) {
        uint32_t of_row[3], of_col[3];
        memcpy(of_row, all + (4 * g + k4) * emu::EXCHANGE, sizeof of_row);
        for (uint32_t c = 0; c < 2; c++) {
            memcpy(of_col, all + (4 * (2 * t + c) + k4) * emu::EXCHANGE, sizeof of_col);
            d[c] = ::__dp4a((int32_t)of_row[0], (int32_t)of_col[2], d[c]);
            d[2 + c] = ::__dp4a((int32_t)of_row[1], (int32_t)of_col[2], d[2 + c]);
        }
    }
}

/* In one exchange, since fibers cost more than products. */
static inline void mma_k32(int32_t d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1}, t = emu::self->lane % 4, g = emu::self->lane / 4;
    const char *all = emu::exchange(mine, sizeof mine, "mma");
    for (uint32_t k4 = 0; k4 < 4; k4++) {
        uint32_t of_row[6], of_col[6];
        memcpy(of_row, all + (4 * g + k4) * emu::EXCHANGE, sizeof of_row);
        for (uint32_t c = 0; c < 2; c++) {
            memcpy(of_col, all + (4 * (2 * t + c) + k4) * emu::EXCHANGE, sizeof of_col);
            d[c] = ::__dp4a((int32_t)of_row[2], (int32_t)of_col[5], ::__dp4a((int32_t)of_row[0], (int32_t)of_col[4], d[c]));
            d[2 + c] = ::__dp4a((int32_t)of_row[3], (int32_t)of_col[5], ::__dp4a((int32_t)of_row[1], (int32_t)of_col[4], d[2 + c]));
        }
    }
}

} /* namespace emu */

#endif
