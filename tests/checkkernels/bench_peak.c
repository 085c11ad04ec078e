/* The two limits that kernels live under, measured: reading memory in order, and the rate of the instruction that multiplies bytes,
 * with its operands in registers. The loops are written in assembly: no compiler may move them, and no file needs a level's flags. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sysinfo.h"
#include "tests/checkkernels/bench.h"

enum { PEAK_STEPS = 20000, READ_PIECE = 1 << 20, PEAK_RUNS = 3 };

/* What the read is summed up to: else the compiler leaves it out. */
static volatile uint64_t sink;

/* --- bytes multiplied --------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)

#define SIXTEEN "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
/* n rounds of twelve independent steps, each on its own sum (registers 0 to 11): more than any processor's latency. */
#define PEAK_LOOP(n, step, last)                                                                                                                   \
    __asm__ volatile("1:\n" step("0") step("1") step("2") step("3") step("4") step("5") step("6") step("7") step("8") step("9") step("10")       \
                         step("11") "sub $1, %0\n\tjnz 1b\n\t" last                                                                               \
                     : "+r"(n)                                                                                                                     \
                     :                                                                                                                             \
                     : "cc", SIXTEEN)

/* Plain C becomes 128-bit products of 16-bit numbers at best. */
#define STEP_SSE2(i) "movdqa %%xmm12, %%xmm14\n\tpmaddwd %%xmm13, %%xmm14\n\tpaddd %%xmm14, %%xmm" i "\n\t"
/* Products of pairs, summed in 16 bits: no kernel can stay there for ever, so none is above. */
#define STEP_AVX2(i) "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\tvpaddw %%ymm14, %%ymm" i ", %%ymm" i "\n\t"
#define STEP_VNNI(i) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" i "\n\t"
#define STEP_VNNI512(i) "vpdpbusd %%zmm12, %%zmm13, %%zmm" i "\n\t"

static void loop_scalar(uint64_t n)
{
    PEAK_LOOP(n, STEP_SSE2, "");
}

static void loop_avx2(uint64_t n)
{
    PEAK_LOOP(n, STEP_AVX2, "vzeroupper");
}

static void loop_avxvnni(uint64_t n)
{
    PEAK_LOOP(n, STEP_VNNI, "vzeroupper");
}

static void loop_avx512vnni(uint64_t n)
{
    PEAK_LOOP(n, STEP_VNNI512, "vzeroupper");
}

/* Tiles of 16 x 64 bytes: four sums, two of each operand. The level's presence has asked the system for them. */
static void loop_amx(uint64_t n)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = 64;
        shape.rows[i] = 16;
    }
    __asm__ volatile("ldtilecfg %1\n\ttilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7\n"
                     "1:\ttdpbusd %%tmm6, %%tmm4, %%tmm0\n\ttdpbusd %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbusd %%tmm6, %%tmm5, %%tmm2\n\ttdpbusd %%tmm7, %%tmm5, %%tmm3\n\t"
                     "sub $1, %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(n)
                     : "m"(shape)
                     : "cc");
}

#elif defined(__aarch64__)

#define PEAK_LOOP(n, step)                                                                                                                         \
    __asm__ volatile("1:\n" step("0") step("1") step("2") step("3") step("4") step("5") step("6") step("7") step("8") step("9") step("10")  \
                         step("11") "subs %0, %0, #1\n\tb.ne 1b\n\t"                                                                              \
                     : "+r"(n)                                                                                                                     \
                     :                                                                                                                             \
                     : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14")

#define STEP_NEON(i) "smull v14.8h, v12.8b, v13.8b\n\tsadalp v" i ".4s, v14.8h\n\t"
/* By number: assemblers want to be told in ways that differ that the processor may have these. */
#define STEP_DOTPROD(i) ".inst 0x4e8d9580 + " i "\n\t" /* sdot vI.4s, v12.16b, v13.16b */
#define STEP_I8MM(i) ".inst 0x4e8da580 + " i "\n\t"    /* smmla vI.4s, v12.16b, v13.16b */

static void loop_neon(uint64_t n)
{
    PEAK_LOOP(n, STEP_NEON);
}

static void loop_dotprod(uint64_t n)
{
    PEAK_LOOP(n, STEP_DOTPROD);
}

static void loop_i8mm(uint64_t n)
{
    PEAK_LOOP(n, STEP_I8MM);
}

#endif

/* By level; macs: of a round of the loop. */
static const struct peak {
    const char *level;
    void (*loop)(uint64_t n);
    double macs;
} peaks[] = {
#if defined(__x86_64__)
    {"scalar", loop_scalar, 12 * 8},
    {"avx2", loop_avx2, 12 * 32},
    {"avxvnni", loop_avxvnni, 12 * 32},
    {"avx512vnni", loop_avx512vnni, 12 * 64},
    {"amx", loop_amx, 4 * 16 * 16 * 64},
#elif defined(__aarch64__)
    {"scalar", loop_neon, 12 * 8}, /* compilers use NEON */
    {"neon", loop_neon, 12 * 8},
    {"dotprod", loop_dotprod, 12 * 16},
    {"i8mm", loop_i8mm, 12 * 32},
#endif
    {NULL, NULL, 0},
};

static void peak_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct peak *p = arg;
    (void)unit;
    (void)thread;
    p->loop(PEAK_STEPS);
}

double bench_dot_peak(const char *level, struct threadpool *pool)
{
    for (const struct peak *p = peaks; p->level; p++)
        if (strcmp(p->level, level) == 0) {
            struct bench_work work = {.fn = peak_unit, .arg = (void *)(uintptr_t)p, .n = 1};
            double best = 0;
            for (int i = 0; i < PEAK_RUNS; i++)
                best = fmax(best, p->macs * PEAK_STEPS / bench_seconds(&work, pool));
            return best;
        }
    return 0;
}

/* --- bytes read --------------------------------------------------------------------------------------------------------- */

#define VEC uint64_t __attribute__((vector_size(16)))

enum { AHEAD = 4096, STREAMS = 2 };

/* Processors differ in what lets one core read fastest: plainly, asking for lines ahead, or two places in turn. */
static inline __attribute__((always_inline)) void read_piece(const char *from, uint32_t unit, int streams, bool ahead)
{
    const size_t each = READ_PIECE / (size_t)streams;
    const char *p = from + (size_t)unit * READ_PIECE;
    VEC sum[4] = {{0}};
    for (size_t at = 0; at < each; at += 64)
        for (int s = 0; s < streams; s++) {
            const VEC *line = (const VEC *)(p + (size_t)s * each + at);
            if (ahead)
                __builtin_prefetch((const char *)line + AHEAD, 0, 3);
            for (int j = 0; j < 4; j++)
                sum[j] ^= line[j];
        }
    sum[0] ^= sum[1] ^ sum[2] ^ sum[3];
    if (sum[0][0] ^ sum[0][1])
        sink = sum[0][0];
}

#define READER(name, streams, ahead)                               \
    static void name(void *arg, uint32_t unit, uint32_t thread)    \
    {                                                              \
        (void)thread;                                              \
        read_piece(arg, unit, streams, ahead);                     \
    }
READER(read_plainly, 1, false)
READER(read_ahead, 1, true)
READER(read_twice, STREAMS, false)
READER(read_twice_ahead, STREAMS, true)

double bench_read_peak(struct threadpool *pool)
{
    void (*const readers[])(void *, uint32_t, uint32_t) = {read_plainly, read_ahead, read_twice, read_twice_ahead};
    struct err err;
    size_t bytes = sysinfo_beyond_caches((size_t)512 << 20) / READ_PIECE * READ_PIECE;
    char *p = mem_pages_alloc(bytes, &err);
    if (!p)
        return 0;
    memset(p, 1, bytes); /* pages that were never written are all one and the same */
    double best = 0; /* every share is of this: more runs than a kernel gets */
    for (int i = 0; i < PEAK_RUNS; i++)
        for (size_t r = 0; r < sizeof readers / sizeof *readers; r++) {
            struct bench_work work = {.fn = readers[r], .arg = p, .n = (uint32_t)(bytes / READ_PIECE)};
            double rate = READ_PIECE / bench_seconds(&work, pool);
            best = fmax(best, rate);
        }
    mem_pages_free(p, bytes);
    return best;
}
