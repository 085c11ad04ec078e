/* Any bytes as a topology file; what is read can be written and is read again as the same. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "topology/topology.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    struct strbuf once, twice;
    struct topology *again, *t = topology_parse("fuzz", (const char *)data, size, &err);
    if (!t)
        return 0;
    strbuf_init(&once, 4 << 20);
    strbuf_init(&twice, 4 << 20);
    if (topology_write(t, &once, &err) == 0 && once.len <= TOPOLOGY_MAX_BYTES) {
        again = topology_parse("again", strbuf_str(&once), once.len, &err);
        if (!again || again->n_nodes != t->n_nodes || again->n_links != t->n_links || again->n_pins != t->n_pins ||
            topology_write(again, &twice, &err) != 0 || twice.len != once.len || memcmp(once.data, twice.data, once.len) != 0)
            abort();
        topology_destroy(again);
    }
    strbuf_fini(&once);
    strbuf_fini(&twice);
    topology_destroy(t);
    return 0;
}
