/* Hashes of chunks, in memory and kept in a folder: for the files that they were made of, and no others. */
#include "bulk/hashes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/gguf/gguf_build.h"
#include "tests/tap.h"

enum { FLOATS = 1200000 /* two chunks */ };
static struct err err;
static char room[96], dir[128];

/* The header depends on the name, the data on the value. */
static struct gguf *model(const char *path, const char *tensor, float value)
{
    struct gguf_build b;
    float *data = malloc(FLOATS * sizeof *data);
    for (int i = 0; i < FLOATS; i++)
        data[i] = value;
    gguf_build_init(&b, 3, 0);
    gguf_build_str(&b, "general.architecture", "llama");
    gguf_build_tensor(&b, tensor, QUANT_F32, 1, (uint64_t[]){FLOATS}, data);
    unlink(path); /* a file of another inode: clocks may be coarse */
    gguf_build_write(&b, path, true);
    gguf_build_fini(&b);
    free(data);
    struct gguf *g = gguf_open(path, true, &err);
    if (!g) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    return g;
}

static bool has(const struct hashes *h, const struct gguf *g, enum manifest_kind kind, uint32_t chunk, uint8_t value)
{
    uint8_t id[GGUF_ID_BYTES], hash[MANIFEST_HASH_BYTES] = {0};
    gguf_model_id(g, id);
    return hashes_get(h, id, kind, 0, chunk, hash) && hash[0] == value;
}

/* With its id, as the server has it at hand. */
static void put(struct hashes *h, const struct gguf *g)
{
    uint8_t id[GGUF_ID_BYTES];
    gguf_model_id(g, id);
    hashes_put(h, id, g, hashes_read(h, id, g));
}

static bool of(struct hashes *h, const struct gguf *g)
{
    uint8_t id[GGUF_ID_BYTES];
    gguf_model_id(g, id);
    return hashes_of(h, id, g, MANIFEST_BLAKE3, &err);
}

static int set(struct hashes *h, const struct gguf *g, enum manifest_kind kind, uint32_t chunk, uint8_t value)
{
    uint8_t id[GGUF_ID_BYTES];
    gguf_model_id(g, id);
    return hashes_set(h, id, g, kind, 0, chunk, (uint8_t[MANIFEST_HASH_BYTES]){value}, &err);
}

static void start_with(struct hashes *h, const struct gguf *g)
{
    hashes_init(h, dir, &err);
    put(h, g);
}

static bool wrote(struct hashes *h, const struct gguf *g)
{
    struct hashes_model copy;
    return hashes_unwritten(h, &copy) && hashes_write(h, &copy, g, &err) == 0;
}

static void test_memory(const char *path, struct gguf *g)
{
    struct hashes h;
    struct hashes_model copy;
    hashes_init(&h, NULL, &err);
    ok(!has(&h, g, MANIFEST_BLAKE3, 0, 1), "nothing is known");
    ok(of(&h, g) && !has(&h, g, MANIFEST_BLAKE3, 0, 1), "nor of a model that was asked about");
    is_int(set(&h, g, MANIFEST_BLAKE3, 1, 7), 0, "one is set");
    ok(has(&h, g, MANIFEST_BLAKE3, 1, 7) && !has(&h, g, MANIFEST_BLAKE3, 0, 7) && !has(&h, g, MANIFEST_BLAKE2B, 1, 7), "it, of that kind, is known");
    is_int(set(&h, g, MANIFEST_BLAKE3, 1, 8), -1, "another for the same chunk is refused: %s", err.text);
    is_int(set(&h, g, MANIFEST_BLAKE3, 2, 8), -1, "so is one for no chunk: %s", err.text);
    ok(!hashes_unwritten(&h, &copy), "without a folder nothing is to be written");
    for (int i = 0; i < HASHES_MODELS; i++) {
        char name[8], other_path[128];
        snprintf(name, sizeof name, "t%d", i);
        snprintf(other_path, sizeof other_path, "%s.%d", path, i);
        struct gguf *other = model(other_path, name, 1);
        set(&h, other, MANIFEST_BLAKE3, 0, 1);
        gguf_close(other);
        unlink(other_path);
    }
    ok(!has(&h, g, MANIFEST_BLAKE3, 1, 7), "of so many models the oldest is forgotten");
    hashes_fini(&h);
}

static void test_folder(const char *path, struct gguf *g)
{
    struct hashes h;
    struct hashes_model copy;
    struct stat st;
    hashes_init(&h, dir, &err);
    set(&h, g, MANIFEST_BLAKE2B, 0, 3);
    ok(!hashes_unwritten(&h, &copy) && stat(dir, &st) != 0, "the older kind is not kept");
    set(&h, g, MANIFEST_BLAKE3, 1, 7);
    ok(wrote(&h, g), "written: %s", err.text);
    ok(stat(dir, &st) == 0 && (st.st_mode & 0777) == 0700, "into a folder of the user's own");
    ok(!hashes_unwritten(&h, &copy), "once");
    hashes_fini(&h);

    start_with(&h, g);
    ok(has(&h, g, MANIFEST_BLAKE3, 1, 7), "the next start knows it");
    put(&h, g);
    ok(has(&h, g, MANIFEST_BLAKE3, 1, 7), "and reading it again changes nothing");
    struct gguf *later = model(path, "t", 5);
    put(&h, later);
    ok(of(&h, later) && !has(&h, later, MANIFEST_BLAKE3, 1, 7), "but not for a file that was replaced by a like one");
    set(&h, later, MANIFEST_BLAKE3, 0, 9);
    ok(hashes_unwritten(&h, &copy), "what is known of that is to be written");
    struct gguf *last = model(path, "t", 6);
    is_int(hashes_write(&h, &copy, last, &err), 0, "it is replaced again");
    hashes_fini(&h);
    start_with(&h, last);
    ok(of(&h, last) && !has(&h, last, MANIFEST_BLAKE3, 0, 9), "and nothing counts for the last one");
    hashes_fini(&h);
    gguf_close(later);
    gguf_close(last);
}

int main(void)
{
    char path[112], command[160];
    snprintf(room, sizeof room, "/tmp/test_hashes-XXXXXX");
    if (!mkdtemp(room))
        tap_skip_all("no folder");
    snprintf(path, sizeof path, "%s/m.gguf", room);
    snprintf(dir, sizeof dir, "%s/hashes", room);
    struct gguf *g = model(path, "t", 1);
    test_memory(path, g);
    test_folder(path, g);
    gguf_close(g);
    snprintf(command, sizeof command, "rm -rf %s", room);
    ok(system(command) == 0, "cleaned up");
    return tap_done();
}
