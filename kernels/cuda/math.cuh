#ifndef KERNELS_CUDA_MATH_CUH
#define KERNELS_CUDA_MATH_CUH

/* Numbers on the device: the functions of kernels/fmath.h themselves, conversions by the device's instructions. */

#include "kernels/cuda/device.cuh"
#include "kernels/fmath.h"

DEVICE float half_to_float(uint16_t h)
{
#ifdef __CUDACC__
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#else
    return sc_f16_to_f32(h);
#endif
}

DEVICE uint16_t float_to_half(float f)
{
#ifdef __CUDACC__
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
#else
    return sc_f32_to_f16(f);
#endif
}

/* The nearest that a half can be; what is no number stays none. */
DEVICE float within_half(float f)
{
    return f > 65504.0f ? 65504.0f : f < -65504.0f ? -65504.0f : f;
}

DEVICE uint16_t float_to_bf16(float f)
{
    uint32_t bits = (uint32_t)__float_as_int(f);
    if (f != f)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Integers below 2^22 in magnitude as floats, without the slow conversion: an integer product that starts at MAGIC ends as the
 * bits of 1.5 * 2^23 + the integer. */
#define MAGIC 0x4b400000

DEVICE float from_magic(int32_t v)
{
    return __int_as_float(v) - 12582912.0f;
}

/* The integer nearest to x, |x| below 2^22, ties to even; of what is no number, something. */
DEVICE int32_t nearest(float x)
{
    return __float_as_int(x + 12582912.0f) - MAGIC;
}

/* Joins (i, i + 8), (i, i + 4), (i, i + 2), (i, i + 1) of 16 lanes, in either half of a warp. Whole warps. */
DEVICE float join_lanes(float v)
{
    v = v + __shfl_xor_sync(FULL_WARP, v, 8);
    v = v + __shfl_xor_sync(FULL_WARP, v, 4);
    v = v + __shfl_xor_sync(FULL_WARP, v, 2);
    return v + __shfl_xor_sync(FULL_WARP, v, 1);
}

#endif
