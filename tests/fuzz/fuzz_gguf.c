/* The GGUF reader: any bytes, as a whole file and as a header only; what opens is read to its last item and described. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/gguf/gguf_touch.h"

static volatile uint64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int header_only = 0; header_only < 2; header_only++) {
        struct err err = {0};
        struct gguf *g = gguf_open_memory(data, size, header_only, &err);
        if (g)
            sink += gguf_touch(g);
        gguf_close(g);
    }
    return 0;
}

size_t fuzz_corpus(size_t index, uint8_t *buf, size_t cap)
{
    struct gguf_build b;
    size_t len;
    if (index >= 2 * GGUF_SAMPLES)
        return 0;
    gguf_sample(&b, (unsigned)index / 2);
    unsigned char *bytes = gguf_build_finish(&b, index % 2, &len);
    gguf_build_fini(&b);
    if (len > cap)
        len = 0;
    memcpy(buf, bytes, len);
    free(bytes);
    return len;
}
