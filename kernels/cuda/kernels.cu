/* Every kernel, by the name that the host finds it by (kernels/cuda/backend.c looks them up). */
#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/mat.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"

#define MAT_KERNELS(name, TYPE)                                              \
    KERNEL(mat1_##name, CUDA_THREADS, cuda_mat)                              \
    {                                                                        \
        mat_small<TYPE, 1>(a);                                               \
    }                                                                        \
    KERNEL(mat2_##name, CUDA_THREADS, cuda_mat)                              \
    {                                                                        \
        mat_small<TYPE, 2>(a);                                               \
    }                                                                        \
    KERNEL(prompt_##name, CUDA_THREADS, cuda_mat)                            \
    {                                                                        \
        mat_prompt<TYPE>(a);                                                 \
    }
MAT_KERNELS(q2_k, T_Q2_K)
MAT_KERNELS(q4_k, T_Q4_K)
#ifndef CUDA_TWO_TYPES /* a quick compilation, for tests: all kinds of groups, but not all types */
MAT_KERNELS(q4_0, T_Q4_0)
MAT_KERNELS(q4_1, T_Q4_1)
MAT_KERNELS(q5_0, T_Q5_0)
MAT_KERNELS(q5_1, T_Q5_1)
MAT_KERNELS(q8_0, T_Q8_0)
MAT_KERNELS(q3_k, T_Q3_K)
MAT_KERNELS(q5_k, T_Q5_K)
MAT_KERNELS(q6_k, T_Q6_K)
MAT_KERNELS(iq4_nl, T_IQ4_NL)
MAT_KERNELS(iq4_xs, T_IQ4_XS)
MAT_KERNELS(mxfp4, T_MXFP4)
#endif

#define FLOAT_KERNEL(name, TYPE)                \
    KERNEL(mat_##name, CUDA_THREADS, cuda_float_mat) \
    {                                           \
        mat_floats<TYPE>(a);                    \
    }
FLOAT_KERNEL(f32, T_F32)
FLOAT_KERNEL(f16, T_F16)
FLOAT_KERNEL(bf16, T_BF16)

#define ATTEND_KERNELS(name, KV)                      \
    KERNEL(attend1_##name, CUDA_THREADS, cuda_attend) \
    {                                                 \
        attend_row<KV, 1>(a);                         \
    }                                                 \
    KERNEL(attend4_##name, CUDA_THREADS, cuda_attend) \
    {                                                 \
        attend_row<KV, 4>(a);                         \
    }                                                 \
    KERNEL(attend8_##name, CUDA_THREADS, cuda_attend) \
    {                                                 \
        attend_row<KV, 8>(a);                         \
    }
ATTEND_KERNELS(f16, KV_T_F16)
ATTEND_KERNELS(f32, KV_T_F32)
ATTEND_KERNELS(q8_0, KV_T_Q8_0)

KERNEL(attend_join, CUDA_THREADS, cuda_attend)
{
    join_tiles(a);
}

KERNEL(pack, WARP, cuda_pack)
{
    pack_matrix(a);
}

/* Blocks: x rows, y spans of columns; of packed matrices a thread has 8 of them. */
KERNEL(embed, CUDA_THREADS, cuda_embed)
{
    uint32_t row = blockIdx.x, thread = blockIdx.y * CUDA_THREADS + threadIdx.x;
    bool floats = a.type == T_F32 || a.type == T_F16 || a.type == T_BF16;
    if (row >= *a.rows || thread >= (floats ? a.cols : a.cols / 8))
        return;
    switch (a.type) {
    case T_F32: embed_floats<T_F32>(a, row, thread); break;
    case T_F16: embed_floats<T_F16>(a, row, thread); break;
    case T_BF16: embed_floats<T_BF16>(a, row, thread); break;
    case T_Q4_0: embed_packed<T_Q4_0>(a, row, thread); break;
    case T_Q4_1: embed_packed<T_Q4_1>(a, row, thread); break;
    case T_Q5_0: embed_packed<T_Q5_0>(a, row, thread); break;
    case T_Q5_1: embed_packed<T_Q5_1>(a, row, thread); break;
    case T_Q8_0: embed_packed<T_Q8_0>(a, row, thread); break;
    case T_Q2_K: embed_packed<T_Q2_K>(a, row, thread); break;
    case T_Q3_K: embed_packed<T_Q3_K>(a, row, thread); break;
    case T_Q4_K: embed_packed<T_Q4_K>(a, row, thread); break;
    case T_Q5_K: embed_packed<T_Q5_K>(a, row, thread); break;
    case T_Q6_K: embed_packed<T_Q6_K>(a, row, thread); break;
    case T_IQ4_NL: embed_packed<T_IQ4_NL>(a, row, thread); break;
    case T_IQ4_XS: embed_packed<T_IQ4_XS>(a, row, thread); break;
    case T_MXFP4: embed_packed<T_MXFP4>(a, row, thread); break;
    default: break;
    }
}

KERNEL(tables, CUDA_THREADS, cuda_tables)
{
    for (uint32_t i = threadIdx.x; i < *a.n; i += CUDA_THREADS)
        a.table[a.entry[2 * i]] = a.entry[2 * i + 1];
}

KERNEL(angles, CUDA_THREADS, cuda_angles)
{
    angle(a);
}

KERNEL(norm, CUDA_ROW_THREADS, cuda_norm)
{
    norm_row(a);
}

KERNEL(quantize, CUDA_ROW_THREADS, cuda_quantize)
{
    quantize_row(a);
}

KERNEL(heads, CUDA_THREADS, cuda_heads)
{
    head_of_row(a);
}

KERNEL(join, CUDA_ROW_THREADS, cuda_join)
{
    join_row(a);
}

KERNEL(choose, WARP, cuda_choose)
{
    choose_row(a);
}

KERNEL(group, CUDA_ROW_THREADS, cuda_group)
{
    group_rows(a);
}

KERNEL(narrow, CUDA_ROW_THREADS, cuda_narrow)
{
    for (uint64_t i = (uint64_t)blockIdx.x * CUDA_ROW_THREADS + threadIdx.x; i < a.n; i += (uint64_t)gridDim.x * CUDA_ROW_THREADS)
        a.to[i] = a.type == T_F16 ? float_to_half(within_half(a.x[i])) : float_to_bf16(a.x[i]);
}

KERNEL(bias, CUDA_ROW_THREADS, cuda_bias)
{
    uint32_t j = blockIdx.x * CUDA_ROW_THREADS + threadIdx.x;
    if (j < a.cols && blockIdx.y < a.rows)
        a.out[(uint64_t)blockIdx.y * a.cols + j] += a.bias[j];
}

KERNEL(softcap, CUDA_ROW_THREADS, cuda_softcap)
{
    softcap_row(a);
}

KERNEL(sample, CUDA_SAMPLE_THREADS, cuda_sample)
{
    sample_logits(a);
}

/* A grid that reads a buffer as fast as it can: what weights can be read with. */
KERNEL(read_all, CUDA_ROW_THREADS, cuda_read)
{
    const uint4 *from = (const uint4 *)a.from;
    uint64_t n = a.bytes / 16, stride = (uint64_t)gridDim.x * CUDA_ROW_THREADS, i = (uint64_t)blockIdx.x * CUDA_ROW_THREADS + threadIdx.x;
    uint32_t sum = 0;
#pragma unroll 8
    for (; i < n; i += stride) {
        uint4 v = __ldg(from + i);
        sum ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (sum == 0x9e3779b9u) /* so that nothing is left out */
        atomicAdd(a.to, 1);
}
