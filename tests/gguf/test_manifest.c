/* Manifests: hashes of chunks, their form as bytes (foreign ones, too), their file; models found by id; headers that came over
 * the wire. */
#include "gguf/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gguf/find.h"
#include "tests/gguf/gguf_build.h"
#include "tests/tap.h"

static struct err err;
static char dir[96], path[160];

/* A model of one tensor of n floats, all `value`. */
static void write_model(const char *to, uint64_t n, float value)
{
    struct gguf_build b;
    float *data = malloc(n * sizeof *data);
    for (uint64_t i = 0; i < n; i++)
        data[i] = value + (float)i;
    gguf_build_init(&b, 3, 0);
    gguf_build_str(&b, "general.architecture", "llama");
    gguf_build_tensor(&b, "a", QUANT_F32, 1, (uint64_t[]){n}, data);
    gguf_build_write(&b, to, true);
    gguf_build_fini(&b);
    free(data);
}

static struct gguf *open_or_die(const char *from)
{
    struct gguf *g = gguf_open(from, true, &err);
    if (!g) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    return g;
}

static struct manifest *whole(const struct gguf *g, enum manifest_kind kind)
{
    static char chunk[MANIFEST_CHUNK_BYTES];
    struct manifest *m = manifest_create(g, kind, &err);
    for (uint32_t c = 0; c < manifest_n_chunks(m, 0); c++) {
        unsigned char hash[MANIFEST_HASH_BYTES];
        uint32_t len = 0;
        is_int(manifest_read_chunk(g, 0, c, chunk, &len, &err), 0, "chunk %u is read", c);
        is_int(len, manifest_chunk_bytes(m, 0, c), "its length");
        manifest_hash_bytes(kind, chunk, len, hash);
        is_int(manifest_set(m, 0, c, hash, &err), 0, "its hash is set");
        ok(manifest_matches(m, 0, c, chunk, len), "and matches");
        chunk[len / 2] ^= 1;
        ok(!manifest_matches(m, 0, c, chunk, len), "but not with one bit changed");
        ok(!manifest_matches(m, 0, c, chunk, len - 1), "nor cut");
    }
    return m;
}

static void same_manifest(const struct manifest *a, const struct manifest *b, const char *name)
{
    bool same = manifest_kind(a) == manifest_kind(b) && manifest_n_splits(a) == manifest_n_splits(b) && memcmp(manifest_model_id(a), manifest_model_id(b), GGUF_ID_BYTES) == 0 &&
                manifest_n_chunks(a, 0) == manifest_n_chunks(b, 0);
    for (uint32_t c = 0; same && c < manifest_n_chunks(a, 0); c++) {
        const unsigned char *x = manifest_hash(a, 0, c), *y = manifest_hash(b, 0, c);
        same = !x == !y && (!x || memcmp(x, y, MANIFEST_HASH_BYTES) == 0);
    }
    ok(same, "%s", name);
}

static void test_bytes(struct manifest *m)
{
    size_t len;
    unsigned char *bytes = manifest_encode(m, &len, &err), hash[MANIFEST_HASH_BYTES] = {1};
    struct manifest *back = manifest_decode(bytes, len, &err);
    ok(back, "bytes and back");
    same_manifest(m, back, "the same");
    manifest_destroy(back);
    int taken = 0;
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x10;
        taken += (back = manifest_decode(bytes, len, &err)) != NULL;
        manifest_destroy(back);
        bytes[i] ^= 0x10;
        taken += (back = manifest_decode(bytes, i, &err)) != NULL;
        manifest_destroy(back);
    }
    is_int(taken, 0, "no changed byte, no shorter end is taken");
    has_str(err.text, "manifest", "the message says what it is about: %s", err.text);
    /* with a right checksum: what a hostile server can send */
    for (size_t i = 0; i + MANIFEST_HASH_BYTES < len; i++) {
        unsigned char old = bytes[i];
        bytes[i] = (unsigned char)(old ^ 0xFF);
        manifest_hash_bytes(MANIFEST_BLAKE2B, bytes, len - MANIFEST_HASH_BYTES, bytes + len - MANIFEST_HASH_BYTES);
        back = manifest_decode(bytes, len, &err);
        manifest_destroy(back);
        bytes[i] = old;
    }
    ok(true, "none of %zu hostile ones does harm", len);
    free(bytes);
    is_int(manifest_set(m, 0, 0, hash, &err), -1, "another hash for a chunk is refused");
    has_str(err.text, "two hashes", "it says so");
    is_int(manifest_set(m, 0, 1000, hash, &err), -1, "so is a chunk that there is not");
    is_int(manifest_set(m, 1, 0, hash, &err), -1, "and a split");
    ok(!manifest_hash(m, 0, 1000) && !manifest_hash(m, 9, 0) && manifest_chunk_bytes(m, 0, 1000) == 0, "they have no hash, and no bytes");
}

static void test_file(const struct manifest *m, struct gguf *g)
{
    char file[200];
    snprintf(file, sizeof file, "%s/manifest", dir);
    enum manifest_kind kind = manifest_kind(m);
    ok(!manifest_load(g, kind, file, &err) && err.kind == ERR_NOT_FOUND, "no file yet");
    is_int(manifest_save(m, g, file, &err), 0, "saved");
    ok(!manifest_load(g, MANIFEST_KINDS - 1 - kind, file, &err) && err.kind == ERR_NOT_FOUND, "hashes of another kind do not count: %s", err.text);
    struct manifest *back = manifest_load(g, kind, file, &err);
    ok(back, "loaded");
    same_manifest(m, back, "the same");
    manifest_destroy(back);
    ok(truncate(file, 100) == 0, "cut");
    ok(!manifest_load(g, kind, file, &err), "is refused: %s", err.text);
    manifest_save(m, g, file, &err);
    write_model(path, 3000000, 7); /* same size and header, other data */
    struct gguf *other = open_or_die(path);
    ok(!manifest_load(other, kind, file, &err) && err.kind == ERR_NOT_FOUND, "files that changed since: %s", err.text);
    char chunk[1];
    uint32_t len;
    is_int(manifest_read_chunk(g, 0, 1000, chunk, &len, &err), -1, "a chunk that there is not");
    static char room[MANIFEST_CHUNK_BYTES];
    is_int(manifest_read_chunk(g, 0, 0, room, &len, &err), -1, "the old header does not serve the new file");
    has_str(err.text, "changed", "it says so");
    gguf_close(other);
}

static void test_find(void)
{
    char folder[160], name[220];
    unsigned char id[GGUF_ID_BYTES], other[GGUF_ID_BYTES];
    snprintf(folder, sizeof folder, "%s/models", dir);
    mkdir(folder, 0700);
    snprintf(name, sizeof name, "%s/deep", folder);
    mkdir(name, 0700);
    snprintf(name, sizeof name, "%s/a.gguf", folder);
    write_model(name, 1000, 1);
    struct gguf *g = open_or_die(name);
    gguf_model_id(g, id);
    gguf_close(g);
    snprintf(name, sizeof name, "%s/deep/b.gguf", folder);
    write_model(name, 2000, 1);
    g = open_or_die(name);
    gguf_model_id(g, other);
    gguf_close(g);
    snprintf(name, sizeof name, "%s/broken.gguf", folder);
    FILE *f = fopen(name, "w");
    fputs("GGUF, but not really", f);
    fclose(f);
    snprintf(name, sizeof name, "%s/loop", folder);
    ok(symlink(folder, name) == 0, "a link to itself");
    g = gguf_find_model(folder, id, &err);
    ok(g && strstr(gguf_split_path(g, 0), "/a.gguf"), "found by id");
    gguf_close(g);
    g = gguf_find_model(folder, other, &err);
    ok(g && strstr(gguf_split_path(g, 0), "/deep/b.gguf"), "in a folder, too");
    gguf_close(g);
    id[0] ^= 1;
    ok(!gguf_find_model(folder, id, &err) && err.kind == ERR_NOT_FOUND, "another id: %s", err.text);
    snprintf(name, sizeof name, "%s/deep/b.gguf", folder);
    ok(truncate(name, 4000) == 0 && !gguf_find_model(folder, other, &err), "half a file is not the model");
    ok(!gguf_find_model("/no/such/folder", id, &err) && strstr(err.text, "/no/such/folder"), "no folder: %s", err.text);
}

static void test_headers(const struct gguf *g)
{
    struct gguf_bytes header[2];
    unsigned char a[GGUF_ID_BYTES], b[GGUF_ID_BYTES];
    header[0].data = gguf_split_header(g, 0, &header[0].len);
    header[1] = header[0];
    struct gguf *copy = gguf_open_headers(header, 1, &err);
    ok(copy && gguf_from_memory(copy) && !gguf_from_memory(g), "a model from its header");
    if (copy) {
        gguf_model_id(g, a);
        gguf_model_id(copy, b);
        is_mem(b, a, sizeof a, "has the same id");
        is_int(gguf_split_implied_bytes(copy, 0), gguf_split_implied_bytes(g, 0), "and the same size");
        ok(gguf_split_stamp(copy, 0).inode == 0, "but no file");
    }
    gguf_close(copy);
    ok(!gguf_open_headers(header, 2, &err), "a second header that is no split: %s", err.text);
    ok(!gguf_open_headers(header, 0, &err), "none at all: %s", err.text);
    header[0].len -= 3;
    ok(!gguf_open_headers(header, 1, &err), "a cut one: %s", err.text);
}

int main(void)
{
    char command[160];
    snprintf(dir, sizeof dir, "/tmp/sc-manifest-XXXXXX");
    if (!mkdtemp(dir))
        tap_skip_all("no temporary folder");
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    write_model(path, 3000000, 1);
    struct gguf *g = open_or_die(path);
    struct manifest *old = whole(g, MANIFEST_BLAKE2B), *m = whole(g, MANIFEST_BLAKE3);
    is_int(manifest_n_chunks(m, 0), 3, "12 MB are three chunks");
    ok(memcmp(manifest_hash(old, 0, 0), manifest_hash(m, 0, 0), MANIFEST_HASH_BYTES) != 0, "each kind has its own hashes");
    test_bytes(old);
    test_bytes(m);
    test_headers(g);
    test_file(m, g);
    manifest_destroy(old);
    manifest_destroy(m);
    gguf_close(g);
    test_find();
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? tap_done() : 1;
}
