#include "gguf/quant.h"

#include <string.h>

#include "base/strbuf.h"
#include "tests/tap.h"

/* Bytes of 256 elements, worked out by hand from ggml's struct definitions. */
static const struct {
    uint32_t type;
    const char *name;
    uint64_t bytes_of_256;
} rows[] = {
    {0, "F32", 1024},   {1, "F16", 512},      {2, "Q4_0", 144},    {3, "Q4_1", 160},    {6, "Q5_0", 176},   {7, "Q5_1", 192},
    {8, "Q8_0", 272},   {9, "Q8_1", 288},     {10, "Q2_K", 84},    {11, "Q3_K", 110},   {12, "Q4_K", 144},  {13, "Q5_K", 176},
    {14, "Q6_K", 210},  {15, "Q8_K", 292},    {16, "IQ2_XXS", 66}, {17, "IQ2_XS", 74},  {18, "IQ3_XXS", 98}, {19, "IQ1_S", 50},
    {20, "IQ4_NL", 144}, {21, "IQ3_S", 110},  {22, "IQ2_S", 82},   {23, "IQ4_XS", 136}, {24, "I8", 256},    {25, "I16", 512},
    {26, "I32", 1024},  {27, "I64", 2048},    {28, "F64", 2048},   {29, "IQ1_M", 56},   {30, "BF16", 512},  {34, "TQ1_0", 54},
    {35, "TQ2_0", 66},  {39, "MXFP4", 136},   {40, "NVFP4", 144},  {41, "Q1_0", 36},    {42, "Q2_0", 72},
};

int main(void)
{
    struct strbuf computed;
    size_t known = 0;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct quant_traits *t = quant_traits(rows[i].type);
        if (!ok(t, "type %u is known", (unsigned)rows[i].type))
            continue;
        is_str(t->name, rows[i].name, "its name");
        is_int(quant_bytes(rows[i].type, 256), rows[i].bytes_of_256, "%s: bytes of 256", t->name);
        is_int(quant_bytes(rows[i].type, t->block), t->bytes, "%s: one block", t->name);
        if (t->block > 1)
            is_int(quant_bytes(rows[i].type, t->block + 1), 0, "%s: no part of a block", t->name);
    }
    for (uint32_t type = 0; type < 2 * QUANT_TYPES; type++)
        known += quant_traits(type) != NULL;
    is_int(known, sizeof rows / sizeof *rows, "no other types");
    ok(!quant_traits(4) && !quant_traits(31) && !quant_traits(UINT32_MAX), "removed and unknown ones give NULL");
    is_int(quant_bytes(4, 32), 0, "and have no size");
    is_int(quant_bytes(QUANT_F64, UINT64_MAX / 8 + 1), 0, "overflow gives 0");
    is_int(quant_bytes(QUANT_F32, 0), 0, "nothing takes nothing");

    strbuf_init(&computed, 1024);
    static const uint32_t order[] = {0, 1, 30, 2, 3, 6, 7, 8, 39, 10, 11, 12, 13, 14, 20, 23};
    size_t n = 0;
    for (uint32_t type = 0; type < QUANT_TYPES; type++)
        n += quant_traits(type) && quant_traits(type)->computed;
    is_int(n, sizeof order / sizeof *order, "as many are computed as listed");
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        ok(quant_traits(order[i])->computed, "%s is computed", quant_traits(order[i])->name);
        strbuf_printf(&computed, "%s%s", i ? ", " : "", quant_traits(order[i])->name);
    }
    is_str(quant_computed_names(), strbuf_str(&computed), "the list for messages");
    strbuf_fini(&computed);
    return tap_done();
}
