#ifndef KERNELS_CUDA_DEVICE_CUH
#define KERNELS_CUDA_DEVICE_CUH

/* The language that the kernels are written in: CUDA's C++, a small part of it, so that the same text is compiled by nvcc for a
 * device and, behind tests/cuda/emulator.hh, for the host that emulates one. What differs between the two stands here and there.
 *
 * Compiled with -fmad=false and without fast math: every operation is rounded as IEEE 754 says, fma is written where it is
 * meant, and so a device gives the CPU's bits (docs/numerics.md). */

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
/* Three blocks on a multiprocessor (of large blocks one) leave enough registers for everything to stay in them. A kernel takes one
 * struct; its name, behind "sc_", is how the host finds it. */
#define KERNEL(name, threads, args) extern "C" __global__ void __launch_bounds__(threads, (threads) > 256 ? 1 : 3) sc_##name(const args a)
#define SHARED(type, name, n) __shared__ type name[n]
#define DEVICE_TABLE static __constant__ const
#define SC_MATH static __host__ __device__ __forceinline__

/* Adds to a place in shared memory that others add to at the same time; the emulator's is over its cells. */
DEVICE uint32_t add_at(uint32_t *p, uint32_t v)
{
    return atomicAdd(p, v);
}

DEVICE void add_at(uint64_t *p, uint64_t v)
{
    atomicAdd((unsigned long long *)p, (unsigned long long)v);
}
#endif

#define FULL_WARP 0xffffffffu
enum { WARP = 32 };

/* d = a b + d on tensor cores: 16 rows × 16 k (8-bit, signed) by 16 k × 8 columns. Lane 4g + t holds of a rows g (a0) and g + 8
 * (a1), k = 4t … 4t + 3; of b column g, the same k; of d row g, columns 2t and 2t + 1 (d0, d1), and row g + 8 (d2, d3). Whole
 * warps only. Sums are exact, so that what computes them is free. */

/* Without tensor cores: every lane multiplies its own k of both rows by each column, which the column's lane hands round, and
 * the four lanes of a row add up. */
DEVICE void mma_by_dp4a(int32_t d[4], uint32_t a0, uint32_t a1, uint32_t b)
{
    uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (uint32_t n = 0; n < 8; n++) {
        int32_t bn = (int32_t)__shfl_sync(FULL_WARP, b, 4 * n + t);
        int32_t low = __dp4a((int32_t)a0, bn, 0), high = __dp4a((int32_t)a1, bn, 0);
        low += __shfl_xor_sync(FULL_WARP, low, 1);
        high += __shfl_xor_sync(FULL_WARP, high, 1);
        low += __shfl_xor_sync(FULL_WARP, low, 2);
        high += __shfl_xor_sync(FULL_WARP, high, 2);
        if (n / 2 == t) {
            d[n % 2] += low;
            d[2 + n % 2] += high;
        }
    }
}

DEVICE void mma_k16(int32_t d[4], uint32_t a0, uint32_t a1, uint32_t b)
{
#ifndef __CUDACC__
    if (emu::capability >= 75)
        emu::mma_k16(d, a0, a1, b);
    else
        mma_by_dp4a(d, a0, a1, b);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b));
#elif __CUDA_ARCH__ >= 750
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+r"(d[0]), "+r"(d[1]) : "r"(a0), "r"(b));
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+r"(d[2]), "+r"(d[3]) : "r"(a1), "r"(b));
#else
    mma_by_dp4a(d, a0, a1, b);
#endif
}

/* The same over 32 k: a2, a3, b1 hold k = 16 + 4t …. */
DEVICE void mma_k32(int32_t d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
#ifndef __CUDACC__
    if (emu::capability >= 80) {
        emu::mma_k32(d, a, b0, b1);
        return;
    }
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    return;
#endif
    mma_k16(d, a[0], a[1], b0);
    mma_k16(d, a[2], a[3], b1);
}

#endif
