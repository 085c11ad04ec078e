/* Choosing kernels: see kernels.h. One row a level, ascending; a level that the processor lacks is passed over. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <string.h>

#include "base/strbuf.h"
#include "kernels/attend_blocks.h"
#include "kernels/kernels.h"
#include "kernels/scalar/scalar.h"
#if defined(__x86_64__)
#include "kernels/x86/x86.h"
#elif defined(__aarch64__)
#include "kernels/arm/arm.h"
#endif

static bool always(void)
{
    return true;
}

static const struct {
    const char *name;
    bool (*present)(void);
    void (*init)(struct kernels *k);
} levels[] = {
    {"scalar", always, kernels_init_scalar},
#if defined(__x86_64__)
    {"avx2", x86_has_avx2, x86_init_avx2},
    {"avxvnni", x86_has_avxvnni, x86_init_avxvnni},
    {"avx512vnni", x86_has_avx512vnni, x86_init_avx512vnni},
#ifdef HAVE_AMX
    {"amx", x86_has_amx, x86_init_amx},
#endif
#elif defined(__aarch64__)
    {"neon", arm_has_neon, arm_init_neon},
    {"dotprod", arm_has_dotprod, arm_init_dotprod},
    {"i8mm", arm_has_i8mm, arm_init_i8mm},
#endif
};

enum { N_LEVELS = sizeof levels / sizeof *levels };

void kernels_init_scalar(struct kernels *k)
{
    scalar_init_mat(k);
    scalar_init_vector(k);
    scalar_init_attention(k);
}

const char *kernels_level(unsigned i)
{
    return i < N_LEVELS ? levels[i].name : NULL;
}

void kernels_present(struct strbuf *ret)
{
    for (int i = 0; i < N_LEVELS; i++)
        if (levels[i].present())
            strbuf_printf(ret, "%s%s", i ? ", " : "", levels[i].name);
}

static int unknown_level(const char *isa_cap, struct err *err)
{
    struct strbuf known;
    strbuf_init(&known, 256);
    for (int i = 0; i < N_LEVELS; i++)
        strbuf_printf(&known, "%s%s", i ? ", " : "", levels[i].name);
    char shown[64];
    err_set(err, ERR_USAGE, "--isa %s: unknown; known here: %s", err_printable(shown, sizeof shown, isa_cap, strlen(isa_cap)),
            strbuf_str(&known));
    strbuf_fini(&known);
    return -1;
}

int kernels_select(const char *isa_cap, struct kernels *ret, struct err *err)
{
    int cap = N_LEVELS - 1;
    if (isa_cap) {
        for (cap = 0; cap < N_LEVELS && strcmp(levels[cap].name, isa_cap) != 0; cap++)
            ;
        if (cap == N_LEVELS)
            return unknown_level(isa_cap, err);
    }
    memset(ret, 0, sizeof *ret);
    for (int i = 0; i <= cap; i++) {
        if (!levels[i].present())
            continue;
        levels[i].init(ret);
        ret->isa = levels[i].name;
    }
    return 0;
}

struct kv_layout kv_layout_of(const struct attention *a, enum kv_type type)
{
    static const size_t element[KV_TYPES] = {[KV_F16] = 2, [KV_F32] = 4, [KV_Q8_0] = 1};
    struct kv_layout l = {.k_groups = (a->head_dim_k + 31) / 32, .v_groups = (a->head_dim_v + 31) / 32};
    size_t at = 0;
    l.k = at;
    at += element[type] * a->head_dim_k * KV_BLOCK;
    l.v = at;
    at += element[type] * a->head_dim_v * KV_BLOCK;
    if (type == KV_Q8_0) {
        l.k_scale = at;
        at += 2 * (size_t)l.k_groups * KV_BLOCK;
        l.v_scale = at;
        at += 2 * (size_t)l.v_groups * KV_BLOCK;
    }
    if (a->head_dim_v % LANES != 0)
        at += 64; /* the last position's vectors may be read whole */
    l.head_bytes = (at + 63) / 64 * 64;
    return l;
}

size_t attend_scratch_floats(uint32_t head_dim_k, uint32_t head_dim_v)
{
    uint32_t widest = head_dim_k > head_dim_v ? head_dim_k : head_dim_v;
    return (size_t)ATTEND_QUERIES * (ATTENTION_TILE + attend_stride(head_dim_v)) + (size_t)KV_BLOCK * widest + ATTEND_PADDING;
}
