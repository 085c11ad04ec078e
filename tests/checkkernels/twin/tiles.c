/* The tile instructions of AMX, after Intel's manual (volume 1, chapter "Programming with Intel AMX"; volume 2, LDTILECFG to
 * TILEZERO), for palette 1: eight tiles of up to 16 rows of 64 bytes. See twin.h. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/checkkernels/twin/checktwins.h"

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

static _Thread_local struct {
    uint8_t palette;
    uint8_t rows[TILES];
    uint16_t bytes[TILES]; /* of a row */
    uint8_t data[TILES][ROWS][ROW_BYTES];
} state;

struct twin_count twin_count;

__attribute__((format(printf, 1, 2))) _Noreturn static void fault(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("Bail out! ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    fflush(stdout);
    abort();
}

bool twin_tiles_in_use(void)
{
    return state.palette != 0;
}

void twin_tile_release(void)
{
    memset(&state, 0, sizeof state);
    twin_count.releases++;
}

/* Bytes 0: palette, 1: start row, 2-15: zero, 16-47: bytes of a row by tile, 48-63: rows. Sixteen places, eight tiles. */
void twin_tile_loadconfig(const void *config)
{
    uint8_t c[64];
    memcpy(c, config, sizeof c);
    memset(&state, 0, sizeof state); /* all tiles are zeroed */
    if (c[0] != 1)
        fault("ldtilecfg: palette %u", c[0]);
    if (c[1] != 0)
        fault("ldtilecfg: start row %u", c[1]);
    for (int i = 2; i < 16; i++)
        if (c[i] != 0)
            fault("ldtilecfg: reserved byte %d is %u", i, c[i]);
    for (int t = 0; t < 16; t++) {
        unsigned bytes = c[16 + 2 * t] | (unsigned)c[17 + 2 * t] << 8, rows = c[48 + t];
        if (t >= TILES ? bytes || rows : bytes > ROW_BYTES || rows > ROWS || (bytes == 0) != (rows == 0))
            fault("ldtilecfg: tile %d of %u rows of %u bytes", t, rows, bytes);
        if (t < TILES) {
            state.rows[t] = (uint8_t)rows;
            state.bytes[t] = (uint16_t)bytes;
        }
    }
    state.palette = 1;
    twin_count.configs++;
}

static void must_be_shaped(const char *what, int t)
{
    if (t < 0 || t >= TILES || state.palette == 0 || state.rows[t] == 0)
        fault("%s: tile %d is not configured", what, t);
}

void twin_tile_zero(int t)
{
    must_be_shaped("tilezero", t);
    memset(state.data[t], 0, sizeof state.data[t]);
}

void twin_tile_loadd(int t, const void *base, size_t stride)
{
    must_be_shaped("tileloadd", t);
    memset(state.data[t], 0, sizeof state.data[t]);
    for (unsigned r = 0; r < state.rows[t]; r++)
        memcpy(state.data[t][r], (const char *)base + r * stride, state.bytes[t]);
}

void twin_tile_stored(int t, void *base, size_t stride)
{
    must_be_shaped("tilestored", t);
    for (unsigned r = 0; r < state.rows[t]; r++)
        memcpy((char *)base + r * stride, state.data[t][r], state.bytes[t]);
}

static int32_t dword(int t, unsigned row, unsigned i)
{
    int32_t v;
    memcpy(&v, &state.data[t][row][4 * i], sizeof v);
    return v;
}

static int32_t products(int a, unsigned row, int b, unsigned k, unsigned column)
{
    int32_t sum = 0;
    for (unsigned i = 0; i < 4; i++)
        sum += (int8_t)state.data[a][row][4 * k + i] * (int8_t)state.data[b][k][4 * column + i];
    return sum;
}

/* c[m][n] += sum over k of the four products of dwords a[m][k] and b[k][n]. */
void twin_tile_dpbssd(int c, int a, int b)
{
    must_be_shaped("tdpbssd", c);
    must_be_shaped("tdpbssd", a);
    must_be_shaped("tdpbssd", b);
    if (c == a || c == b || a == b)
        fault("tdpbssd: tiles %d, %d, %d are not three", c, a, b);
    if (state.rows[c] != state.rows[a] || state.bytes[c] != state.bytes[b] || state.bytes[a] != 4 * state.rows[b] || state.bytes[c] % 4 ||
        state.bytes[a] % 4)
        fault("tdpbssd: %u x %u, %u x %u and %u x %u bytes do not fit", state.rows[c], state.bytes[c], state.rows[a], state.bytes[a], state.rows[b],
              state.bytes[b]);
    for (unsigned m = 0; m < state.rows[a]; m++)
        for (unsigned n = 0; n < state.bytes[b] / 4; n++) {
            uint32_t sum = (uint32_t)dword(c, m, n);
            for (unsigned k = 0; k < state.rows[b]; k++)
                sum += (uint32_t)products(a, m, b, k, n);
            memcpy(&state.data[c][m][4 * n], &sum, sizeof sum);
        }
    twin_count.products++;
}
