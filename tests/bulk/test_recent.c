/* Chunks kept between their hash and their bytes: what is found is what was filled, nothing that is held is overwritten. */
#include "bulk/recent.h"

#include <string.h>

#include "tests/tap.h"

static const uint8_t model[GGUF_ID_BYTES] = {1}, other[GGUF_ID_BYTES] = {2};
static struct recent r;

static struct recent_chunk *fill(uint32_t chunk, uint32_t len)
{
    struct recent_chunk *c = recent_claim(&r);
    if (!c)
        return NULL;
    memset(c->data, (int)chunk, len);
    recent_filled(&r, c, model, 0, chunk, len);
    return c;
}

static const uint8_t *hold(const uint8_t *id, uint32_t split, uint64_t offset, uint32_t bytes)
{
    struct recent_chunk *c;
    const uint8_t *data = recent_hold(&r, id, split, offset, bytes, &c);
    if (data)
        recent_release(c);
    return data;
}

int main(void)
{
    const uint64_t chunk = MANIFEST_CHUNK_BYTES;
    struct recent_chunk *held, *claimed[RECENT_CHUNKS];

    ok(!hold(model, 0, 0, 1), "nothing is there yet");
    for (uint32_t i = 0; i < RECENT_CHUNKS; i++)
        fill(i, i == 3 ? 1000 : MANIFEST_CHUNK_BYTES);
    const uint8_t *data = hold(model, 0, 2 * chunk + 100, 50);
    ok(data && data[0] == 2 && data[49] == 2, "a part of a chunk");
    ok(hold(model, 0, 3 * chunk, 1000) && !hold(model, 0, 3 * chunk, 1001), "of a short one no more than it has");
    ok(!hold(model, 0, 2 * chunk - 1, 2), "what spans two is not there");
    ok(!hold(model, 1, 0, 1) && !hold(other, 0, 0, 1) && !hold(model, 0, RECENT_CHUNKS * chunk, 1), "nor is another split, model or chunk");
    ok(!hold(model, 0, UINT64_MAX, UINT32_MAX), "nor the end of the world");

    data = recent_hold(&r, model, 0, 5 * chunk, 10, &held);
    hold(model, 0, 6 * chunk, MANIFEST_CHUNK_BYTES); /* 6 goes out to its end; 3 did so above */
    fill(20, 10);
    fill(21, 10);
    fill(22, 10);
    ok(!hold(model, 0, 3 * chunk, 1) && !hold(model, 0, 6 * chunk, 1), "those that went out to their end make room first");
    ok(!hold(model, 0, 0, 1) && hold(model, 0, chunk, 1), "then the oldest");
    for (uint32_t i = 0; i < 3 * RECENT_CHUNKS; i++)
        fill(30 + i, 10);
    ok(data[0] == 5 && data[9] == 5, "one that is held stays");
    recent_release(held);

    for (int i = 0; i < RECENT_CHUNKS; i++)
        ok((claimed[i] = recent_claim(&r)), "all places can be claimed");
    ok(!recent_claim(&r), "and then no more");
    recent_filled(&r, claimed[0], model, 0, 77, 0);
    ok(!hold(model, 0, 77 * chunk, 1), "one that could not be filled holds nothing");
    for (int i = 1; i < RECENT_CHUNKS; i++)
        recent_filled(&r, claimed[i], model, 0, 77, 5);
    ok(hold(model, 0, 77 * chunk, 5), "one that was does");
    recent_free(&r);
    ok(!hold(model, 0, 77 * chunk, 5), "all are gone");
    return tap_done();
}
