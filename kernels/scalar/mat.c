/* Matrix products, scalar. A weight row is unfolded 256 elements at a time and meets all rows of the batch before the next
 * 256, so that the unfolding is paid once for up to TILE rows. */
#include "kernels/fmath.h"
#include "kernels/scalar/scalar.h"

enum { TILE = 64, CHUNK = 256 };

static int32_t dot16(const int8_t *a, const int8_t *b)
{
    int32_t sum = 0;
    for (int i = 0; i < 16; i++)
        sum += a[i] * b[i];
    return sum;
}

static int32_t dot32(const int8_t *a, const int8_t *b)
{
    int32_t sum = 0;
    for (int i = 0; i < 32; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The 16 or 32 weights at q against activations from byte i on: 8-bit ones, or both parts of 16-bit ones. */
static int32_t products16(const int8_t *q, const struct acts *x, size_t i)
{
    int32_t sum = dot16(q, x->q + i);
    return x->low ? 255 * sum + dot16(q, x->low + i) : sum;
}

static int32_t products32(const int8_t *q, const struct acts *x, size_t i)
{
    int32_t sum = dot32(q, x->q + i);
    return x->low ? 255 * sum + dot32(q, x->low + i) : sum;
}

/* 32 unfolded weights against one group of activations. */
static float step32(const int8_t *q, const float *scale, const float *min, const struct acts *x, size_t at, float acc)
{
    acc = fmaf((float)products32(q, x, 32 * at), scale[0] * x->scale[at], acc);
    return min ? fmaf(min[0], x->sum[at], acc) : acc;
}

static float step16(const int8_t *q, const float *scale, const float *min, const struct acts *x, size_t at, float acc)
{
    for (int h = 0; h < 2; h++) {
        acc = fmaf((float)products16(q + 16 * h, x, 32 * at + 16 * (size_t)h), scale[h] * x->scale[at], acc);
        if (min)
            acc = fmaf(min[h], x->sum16[2 * at + h], acc);
    }
    return acc;
}

static void mat_quantized(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                          size_t out_stride)
{
    const struct quant_decoder *dec = &quant_decoders[w->type];
    const struct quant_traits *traits = quant_traits(w->type);
    int8_t q[CHUNK];
    float scale[CHUNK / 16], min[CHUNK / 16], acc[TILE];

    for (uint32_t j = row0; j < row1; j++) {
        const uint8_t *row = (const uint8_t *)w->data + mat * w->mat_bytes + j * w->row_bytes;
        for (uint32_t r0 = 0; r0 < x->rows; r0 += TILE) {
            uint32_t rows = x->rows - r0 < TILE ? x->rows - r0 : TILE;
            memset(acc, 0, sizeof acc);
            for (uint32_t k = 0; k < w->cols; k += CHUNK) {
                uint32_t n = w->cols - k < CHUNK ? w->cols - k : CHUNK;
                dec->decode(row + (size_t)(k / traits->block) * traits->bytes, n / traits->block, q, scale, min);
                for (uint32_t g = 0; g < n / 32; g++) {
                    uint32_t at_scale = dec->group == 32 ? g : 2 * g;
                    const float *m = dec->has_min ? min + at_scale : NULL;
                    for (uint32_t r = 0; r < rows; r++) {
                        size_t at = act_at(x, r0 + r, k / 32 + g);
                        acc[r] = dec->group == 32 ? step32(q + 32 * g, scale + at_scale, m, x, at, acc[r])
                                                  : step16(q + 32 * g, scale + at_scale, m, x, at, acc[r]);
                    }
                }
            }
            for (uint32_t r = 0; r < rows; r++)
                out[(r0 + r) * out_stride + j] = acc[r];
        }
    }
}

float scalar_join_lanes(const float lanes[LANES])
{
    float s[LANES];
    memcpy(s, lanes, sizeof s);
    for (int half = LANES / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; i++)
            s[i] = s[i] + s[i + half];
    return s[0];
}

/* Sixteen lanes of a float row against a row of activations. */
static float dot_floats(const float *a, const float *b, uint32_t n)
{
    float lanes[LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % LANES] = fmaf(a[i], b[i], lanes[i % LANES]);
    return scalar_join_lanes(lanes);
}

/* Elements [k, k + n) of a float row of any width. */
static void widen(enum quant_type type, const uint8_t *row, uint32_t k, uint32_t n, float *out)
{
    if (type == QUANT_F32) {
        memcpy(out, row + 4 * (size_t)k, 4 * (size_t)n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, row + 2 * (size_t)(k + i), 2);
        out[i] = type == QUANT_F16 ? sc_f16_to_f32(h) : sc_bf16_to_f32(h);
    }
}

/* F32, F16, BF16: lanes of a tile of activation rows are kept while a weight row passes once. */
static void mat_floats(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                       size_t out_stride)
{
    float wide[CHUNK], lanes[TILE][LANES];
    for (uint32_t j = row0; j < row1; j++) {
        const uint8_t *row = (const uint8_t *)w->data + mat * w->mat_bytes + j * w->row_bytes;
        for (uint32_t r0 = 0; r0 < x->rows; r0 += TILE) {
            uint32_t rows = x->rows - r0 < TILE ? x->rows - r0 : TILE;
            memset(lanes, 0, sizeof lanes);
            for (uint32_t k = 0; k < w->cols; k += CHUNK) {
                uint32_t n = w->cols - k < CHUNK ? w->cols - k : CHUNK;
                widen(w->type, row, k, n, wide);
                for (uint32_t r = 0; r < rows; r++) {
                    const float *a = x->f + (r0 + r) * x->f_stride + k;
                    for (uint32_t i = 0; i < n; i++)
                        lanes[r][i % LANES] = fmaf(wide[i], a[i], lanes[r][i % LANES]);
                }
            }
            for (uint32_t r = 0; r < rows; r++)
                out[(r0 + r) * out_stride + j] = scalar_join_lanes(lanes[r]);
        }
    }
}

/* value = scale * q + min, each operation rounded: what other readers of these formats compute. */
static void row_of_matrix(const struct weight *w, uint32_t j, float *out)
{
    const struct quant_decoder *dec = &quant_decoders[w->type];
    const struct quant_traits *traits = quant_traits(w->type);
    const uint8_t *row = (const uint8_t *)w->data + j * w->row_bytes;
    int8_t q[CHUNK];
    float scale[CHUNK / 16], min[CHUNK / 16];

    if (!dec->group) {
        widen(w->type, row, 0, w->cols, out);
        return;
    }
    for (uint32_t k = 0; k < w->cols; k += CHUNK) {
        uint32_t n = w->cols - k < CHUNK ? w->cols - k : CHUNK;
        dec->decode(row + (size_t)(k / traits->block) * traits->bytes, n / traits->block, q, scale, min);
        for (uint32_t i = 0; i < n; i++) {
            float v = scale[i / dec->group] * (float)q[i];
            out[k + i] = dec->has_min ? v + min[i / dec->group] : v;
        }
    }
}

/* The largest magnitude; NaN where one is no number: as integers magnitudes order like floats, with inf and NaN on top. */
static float largest_of_group(const float *f)
{
    uint32_t most = 0, bits;
    float ret;
    for (int i = 0; i < ACT_GROUP; i++) {
        memcpy(&bits, &f[i], sizeof bits);
        bits &= 0x7FFFFFFF;
        most = bits > most ? bits : most;
    }
    memcpy(&ret, &most, sizeof ret);
    return ret;
}

/* The integer nearest to x, |x| below 2^22, ties to even; of what is no number, something. */
static int32_t nearest(float x)
{
    float t = x + 12582912.0f; /* its low bits hold the integer */
    int32_t bits;
    memcpy(&bits, &t, sizeof bits);
    return bits - 0x4B400000;
}

/* Scale amax / 127 (16 bits: 32512), integers to nearest even. Groups so small that 127 / amax would overflow count as zeros. What is no
 * number makes the scale none, so that a broken model's logits show it. */
static void quantize(struct acts *x, uint32_t r)
{
    const float *f = x->f + r * x->f_stride;
    for (uint32_t g = 0; g < x->k / ACT_GROUP; g++, f += ACT_GROUP) {
        size_t at = act_at(x, r, g);
        int8_t *q = x->q + ACT_GROUP * at;
        float amax = largest_of_group(f);
        int32_t sum[2] = {0, 0};
        float most = x->low ? 32512.0f : 127.0f;
        float scale = amax < 0x1p-100f ? 0.0f : amax / most, inverse = amax < 0x1p-100f ? 0.0f : most / amax;
        for (int i = 0; i < ACT_GROUP; i++) {
            int32_t v = nearest(f[i] * inverse);
            if (x->low) { /* 255: so that either part stays within 127 */
                int32_t high = (int8_t)(nearest((float)v * (1.0f / 255.0f)) & 0xFF), low = (int8_t)((v - 255 * high) & 0xFF);
                x->low[ACT_GROUP * at + (size_t)i] = (int8_t)low;
                q[i] = (int8_t)high;
                v = 255 * high + low; /* v itself, if it was a number */
            } else {
                v = (int8_t)(v & 0xFF);
                q[i] = (int8_t)v;
            }
            sum[i / 16] += v;
        }
        x->scale[at] = scale;
        x->sum[at] = scale * (float)(sum[0] + sum[1]);
        x->sum16[2 * at] = scale * (float)sum[0];
        x->sum16[2 * at + 1] = scale * (float)sum[1];
        x->isum[2 * at] = sum[0];
        x->isum[2 * at + 1] = sum[1];
        x->isum32[at] = sum[0] + sum[1];
    }
}

void scalar_init_mat(struct kernels *k)
{
    k->act_tile = k->act_tile16 = TILE;
    k->quantize = quantize;
    k->dot = dot_floats;
    mat_fn *mat = k->mat[LAYOUT_FILE];
    for (int t = 0; t < QUANT_TYPES; t++)
        if (quant_decoders[t].group)
            mat[t] = mat_quantized;
    mat[QUANT_F32] = mat[QUANT_F16] = mat[QUANT_BF16] = mat_floats;
    for (int t = 0; t < QUANT_TYPES; t++)
        if (mat[t])
            k->row[LAYOUT_FILE][t] = row_of_matrix;
}
