/* See manifest.h. Encoded, all little-endian: "SCMANIF1" (BLAKE2b) or "SCMANIF2" (BLAKE3), model id, splits (u32), for each split its size (u64), how many of its
 * chunks are known (u32) and these in ascending order (number u32, hash); last the BLAKE2b-256 of all before it. */
#include "gguf/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/blake3.h"
#include "base/mem.h"

_Static_assert((int)MANIFEST_HASH_BYTES == (int)crypto_generichash_BYTES && (int)MANIFEST_HASH_BYTES == (int)BLAKE3_BYTES, "all hashes have one size");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they lie");

enum { MAGIC_BYTES = 8 };
static const char magic[MANIFEST_KINDS][MAGIC_BYTES + 1] = {[MANIFEST_BLAKE2B] = "SCMANIF1", [MANIFEST_BLAKE3] = "SCMANIF2"};
enum { HEAD_BYTES = MAGIC_BYTES + GGUF_ID_BYTES + 4, SPLIT_BYTES = 12, ENTRY_BYTES = 4 + MANIFEST_HASH_BYTES };
#define FILE_MAX_BYTES ((size_t)1 << 30)

struct manifest_split {
    uint64_t bytes;
    uint32_t n_chunks, n_known;
    unsigned char *hashes; /* n_chunks */
    bool *known;
};

struct manifest {
    enum manifest_kind kind;
    unsigned char id[GGUF_ID_BYTES];
    uint32_t n_splits;
    uint64_t n_chunks; /* of all splits */
    struct manifest_split *splits;
};

/* --- making --------------------------------------------------------------------------------------------------------------- */

static int init_split(struct manifest *m, uint32_t split, uint64_t bytes, struct err *err)
{
    struct manifest_split *s = &m->splits[split];
    uint64_t n = bytes / MANIFEST_CHUNK_BYTES + (bytes % MANIFEST_CHUNK_BYTES != 0);
    if (n > MANIFEST_MAX_CHUNKS - m->n_chunks)
        return err_set(err, ERR_LIMIT, "split %" PRIu32 " has %" PRIu64 " bytes; a model of more than %d chunks of 4 MiB is not allowed", split,
                       bytes, MANIFEST_MAX_CHUNKS);
    m->n_chunks += n;
    s->bytes = bytes;
    s->n_chunks = (uint32_t)n;
    if (!(s->hashes = mem_new(s->n_chunks, MANIFEST_HASH_BYTES, err)) || !(s->known = mem_new(s->n_chunks, sizeof *s->known, err)))
        return -1;
    return 0;
}

static struct manifest *create(enum manifest_kind kind, const unsigned char *id, uint32_t n_splits, struct err *err)
{
    struct manifest *m = mem_new(1, sizeof *m, err);
    if (!m)
        return NULL;
    m->kind = kind;
    memcpy(m->id, id, GGUF_ID_BYTES);
    if (!(m->splits = mem_new(n_splits, sizeof *m->splits, err))) {
        free(m);
        return NULL;
    }
    m->n_splits = n_splits;
    return m;
}

struct manifest *manifest_create(const struct gguf *g, enum manifest_kind kind, struct err *err)
{
    unsigned char id[GGUF_ID_BYTES];
    gguf_model_id(g, id);
    struct manifest *m = create(kind, id, gguf_n_splits(g), err);
    for (uint32_t i = 0; m && i < m->n_splits; i++)
        if (init_split(m, i, gguf_split_implied_bytes(g, i), err) != 0) {
            manifest_destroy(m);
            return NULL;
        }
    return m;
}

void manifest_destroy(struct manifest *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; i < m->n_splits; i++) {
        free(m->splits[i].hashes);
        free(m->splits[i].known);
    }
    free(m->splits);
    free(m);
}

/* --- asking --------------------------------------------------------------------------------------------------------------- */

enum manifest_kind manifest_kind(const struct manifest *m)
{
    return m->kind;
}

const unsigned char *manifest_model_id(const struct manifest *m)
{
    return m->id;
}

uint32_t manifest_n_splits(const struct manifest *m)
{
    return m->n_splits;
}

uint32_t manifest_n_chunks(const struct manifest *m, uint32_t split)
{
    return split < m->n_splits ? m->splits[split].n_chunks : 0;
}

uint32_t manifest_chunk_bytes(const struct manifest *m, uint32_t split, uint32_t chunk)
{
    if (chunk >= manifest_n_chunks(m, split))
        return 0;
    uint64_t left = m->splits[split].bytes - (uint64_t)chunk * MANIFEST_CHUNK_BYTES;
    return left < MANIFEST_CHUNK_BYTES ? (uint32_t)left : MANIFEST_CHUNK_BYTES;
}

const unsigned char *manifest_hash(const struct manifest *m, uint32_t split, uint32_t chunk)
{
    if (chunk >= manifest_n_chunks(m, split) || !m->splits[split].known[chunk])
        return NULL;
    return m->splits[split].hashes + (size_t)chunk * MANIFEST_HASH_BYTES;
}

int manifest_set(struct manifest *m, uint32_t split, uint32_t chunk, const unsigned char hash[MANIFEST_HASH_BYTES], struct err *err)
{
    if (chunk >= manifest_n_chunks(m, split))
        return err_set(err, ERR_INPUT, "chunk %" PRIu32 " of split %" PRIu32 ": the model has %" PRIu32 " splits, this one %" PRIu32 " chunks", chunk,
                       split, m->n_splits, manifest_n_chunks(m, split));
    const unsigned char *old = manifest_hash(m, split, chunk);
    if (old && memcmp(old, hash, MANIFEST_HASH_BYTES) != 0)
        return err_set(err, ERR_INPUT, "chunk %" PRIu32 " of split %" PRIu32 " has two hashes: two servers have different files of this name and size",
                       chunk, split);
    if (!old) {
        memcpy(m->splits[split].hashes + (size_t)chunk * MANIFEST_HASH_BYTES, hash, MANIFEST_HASH_BYTES);
        m->splits[split].known[chunk] = true;
        m->splits[split].n_known++;
    }
    return 0;
}

void manifest_hash_bytes(enum manifest_kind kind, const void *data, size_t len, unsigned char ret[MANIFEST_HASH_BYTES])
{
    if (kind == MANIFEST_BLAKE3)
        blake3(data, len, ret);
    else
        crypto_generichash(ret, MANIFEST_HASH_BYTES, data, len, NULL, 0);
}

bool manifest_matches(const struct manifest *m, uint32_t split, uint32_t chunk, const void *data, size_t len)
{
    unsigned char hash[MANIFEST_HASH_BYTES];
    const unsigned char *want = manifest_hash(m, split, chunk);
    if (!want || len != manifest_chunk_bytes(m, split, chunk))
        return false;
    manifest_hash_bytes(m->kind, data, len, hash);
    return memcmp(hash, want, sizeof hash) == 0;
}

/* --- serving -------------------------------------------------------------------------------------------------------------- */

static int read_at(int fd, char *to, size_t bytes, uint64_t offset, struct err *err)
{
    while (bytes > 0) {
        ssize_t n = pread(fd, to, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "reading at byte %" PRIu64, offset);
        if (n == 0)
            return err_set(err, ERR_INPUT, "the file ends at byte %" PRIu64 ", it was cut meanwhile", offset);
        to += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* The file's stamp is looked at after the reading: what it says then holds for what was read. */
static int read_unchanged(const struct gguf *g, uint32_t split, void *to, uint32_t bytes, uint64_t offset, struct err *err)
{
    struct gguf_stamp now, then = gguf_split_stamp(g, split);
    const char *path = gguf_split_path(g, split);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "%s", path);
    int rc = read_at(fd, to, bytes, offset, err);
    if (rc == 0)
        rc = gguf_stamp_of(fd, &now, err);
    if (rc == 0 && !gguf_stamp_same(&now, &then))
        rc = err_set(err, ERR_INPUT, "it was changed since its header was read");
    close(fd);
    return rc == 0 ? 0 : err_wrap(err, "%s", path);
}

int manifest_read_chunk(const struct gguf *g, uint32_t split, uint32_t chunk, void *to, uint32_t *ret_bytes, struct err *err)
{
    uint64_t from = (uint64_t)chunk * MANIFEST_CHUNK_BYTES, end = split < gguf_n_splits(g) ? gguf_split_implied_bytes(g, split) : 0;
    if (from >= end)
        return err_set(err, ERR_INPUT, "chunk %" PRIu32 " of split %" PRIu32 ": the model has %" PRIu32 " splits, this one %" PRIu64 " bytes", chunk,
                       split, gguf_n_splits(g), end);
    uint32_t bytes = end - from < MANIFEST_CHUNK_BYTES ? (uint32_t)(end - from) : MANIFEST_CHUNK_BYTES;
    if (gguf_from_memory(g))
        return err_set(err, ERR_NOT_FOUND, "the model's header came from memory: there is no file to serve chunks of");
    if (read_unchanged(g, split, to, bytes, from, err) != 0)
        return -1;
    *ret_bytes = bytes;
    return 0;
}

/* --- as bytes ------------------------------------------------------------------------------------------------------------- */

static unsigned char *put(unsigned char *at, const void *data, size_t len)
{
    memcpy(at, data, len);
    return at + len;
}

unsigned char *manifest_encode(const struct manifest *m, size_t *ret_len, struct err *err)
{
    size_t len = HEAD_BYTES + MANIFEST_HASH_BYTES;
    for (uint32_t i = 0; i < m->n_splits; i++)
        len += SPLIT_BYTES + (size_t)m->splits[i].n_known * ENTRY_BYTES;
    unsigned char *bytes = mem_new(len, 1, err), *at = bytes;
    if (!bytes)
        return NULL;
    at = put(at, magic[m->kind], MAGIC_BYTES);
    at = put(at, m->id, sizeof m->id);
    at = put(at, &m->n_splits, 4);
    for (uint32_t i = 0; i < m->n_splits; i++) {
        const struct manifest_split *s = &m->splits[i];
        at = put(at, &s->bytes, 8);
        at = put(at, &s->n_known, 4);
        for (uint32_t c = 0; c < s->n_chunks; c++)
            if (s->known[c]) {
                at = put(at, &c, 4);
                at = put(at, s->hashes + (size_t)c * MANIFEST_HASH_BYTES, MANIFEST_HASH_BYTES);
            }
    }
    manifest_hash_bytes(MANIFEST_BLAKE2B, bytes, (size_t)(at - bytes), at);
    *ret_len = len;
    return bytes;
}

struct cursor {
    const unsigned char *at, *end;
};

static int get(struct cursor *c, void *ret, size_t len, struct err *err)
{
    if ((size_t)(c->end - c->at) < len) {
        memset(ret, 0, len);
        err_set(err, ERR_INPUT, "it ends too early");
        return -1;
    }
    memcpy(ret, c->at, len);
    c->at += len;
    return 0;
}

static int decode_split(struct manifest *m, uint32_t split, struct cursor *c, struct err *err)
{
    unsigned char hash[MANIFEST_HASH_BYTES];
    uint64_t bytes;
    uint32_t known, chunk, after = 0;
    if (get(c, &bytes, sizeof bytes, err) != 0 || get(c, &known, sizeof known, err) != 0)
        return -1;
    if (known > (size_t)(c->end - c->at) / ENTRY_BYTES)
        return err_set(err, ERR_INPUT, "split %" PRIu32 " names %" PRIu32 " chunks, more than follow", split, known);
    if (init_split(m, split, bytes, err) != 0)
        return -1;
    for (uint32_t i = 0; i < known; i++) {
        if (get(c, &chunk, sizeof chunk, err) != 0 || get(c, hash, sizeof hash, err) != 0)
            return -1;
        if (chunk < after)
            return err_set(err, ERR_INPUT, "split %" PRIu32 ": chunk %" PRIu32 " is out of order", split, chunk);
        if (manifest_set(m, split, chunk, hash, err) != 0)
            return -1;
        after = chunk + 1;
    }
    return 0;
}

static struct manifest *decode(struct cursor *c, struct err *err)
{
    unsigned char id[GGUF_ID_BYTES];
    char found[MAGIC_BYTES];
    uint32_t n, kind = 0;
    if (get(c, found, sizeof found, err) != 0 || get(c, id, sizeof id, err) != 0 || get(c, &n, sizeof n, err) != 0)
        return NULL;
    while (kind < MANIFEST_KINDS && memcmp(found, magic[kind], MAGIC_BYTES) != 0)
        kind++;
    if (kind == MANIFEST_KINDS || n == 0 || n > GGUF_MAX_SPLITS) {
        err_set(err, ERR_INPUT, "it is no manifest of 1 to %d splits", GGUF_MAX_SPLITS);
        return NULL;
    }
    struct manifest *m = create((enum manifest_kind)kind, id, n, err);
    for (uint32_t i = 0; m && i < n; i++)
        if (decode_split(m, i, c, err) != 0) {
            manifest_destroy(m);
            return NULL;
        }
    return m;
}

struct manifest *manifest_decode(const void *data, size_t len, struct err *err)
{
    unsigned char sum[MANIFEST_HASH_BYTES];
    struct cursor c = {data, data};
    struct manifest *m = NULL;
    if (len < HEAD_BYTES + MANIFEST_HASH_BYTES || len > FILE_MAX_BYTES) {
        err_set(err, ERR_INPUT, "manifest: %zu bytes, allowed are %d to %zu", len, HEAD_BYTES + MANIFEST_HASH_BYTES, FILE_MAX_BYTES);
        return NULL;
    }
    c.end += len - MANIFEST_HASH_BYTES;
    manifest_hash_bytes(MANIFEST_BLAKE2B, data, len - MANIFEST_HASH_BYTES, sum);
    if (memcmp(sum, c.end, sizeof sum) != 0)
        err_set(err, ERR_INPUT, "its checksum is wrong");
    else if ((m = decode(&c, err)) && c.at != c.end) {
        err_set(err, ERR_INPUT, "%zu bytes follow its end", (size_t)(c.end - c.at));
        manifest_destroy(m);
        m = NULL;
    }
    if (!m)
        err_wrap(err, "manifest");
    return m;
}

/* --- kept in a file ------------------------------------------------------------------------------------------------------- */

/* The stamps of all splits stand before the manifest, so that it counts for these files only. */
static size_t stamps_bytes(const struct gguf *g)
{
    return gguf_n_splits(g) * sizeof(struct gguf_stamp);
}

static int write_all(int fd, const unsigned char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int manifest_save(const struct manifest *m, const struct gguf *g, const char *path, struct err *err)
{
    size_t len, path_len = strlen(path);
    unsigned char *bytes = manifest_encode(m, &len, err);
    char *fresh = bytes ? mem_new(path_len + 8, 1, err) : NULL;
    int fd = -1, rc = -1;
    if (!fresh)
        goto done;
    memcpy(fresh, path, path_len);
    memcpy(fresh + path_len, ".XXXXXX", 8);
    if ((fd = mkostemp(fresh, O_CLOEXEC)) < 0) {
        err_errno(err, errno, "%s", fresh);
        goto done;
    }
    rc = 0;
    for (uint32_t i = 0; i < gguf_n_splits(g) && rc == 0; i++) {
        struct gguf_stamp stamp = gguf_split_stamp(g, i);
        rc = write_all(fd, (const unsigned char *)&stamp, sizeof stamp);
    }
    if (rc != 0 || write_all(fd, bytes, len) != 0 || fsync(fd) != 0 || rename(fresh, path) != 0) {
        rc = err_errno(err, errno, "%s", path);
        unlink(fresh);
    }
done:
    if (fd >= 0)
        close(fd);
    free(fresh);
    free(bytes);
    return rc;
}

static unsigned char *read_file(const char *path, size_t *ret_len, struct err *err)
{
    struct stat st;
    unsigned char *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_errno(err, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > FILE_MAX_BYTES) {
        err_set(err, ERR_INPUT, "%s: no file of at most %zu bytes", path, FILE_MAX_BYTES);
    } else if ((bytes = mem_new((size_t)st.st_size, 1, err)) && read_at(fd, (char *)bytes, (size_t)st.st_size, 0, err) != 0) {
        err_wrap(err, "%s", path);
        free(bytes);
        bytes = NULL;
    }
    if (bytes)
        *ret_len = (size_t)st.st_size;
    if (fd >= 0)
        close(fd);
    return bytes;
}

struct manifest *manifest_load(const struct gguf *g, enum manifest_kind kind, const char *path, struct err *err)
{
    unsigned char id[GGUF_ID_BYTES], *bytes;
    size_t len, stamps = stamps_bytes(g);
    struct manifest *m = NULL;
    if (!(bytes = read_file(path, &len, err)))
        return NULL;
    bool same = len > stamps;
    for (uint32_t i = 0; same && i < gguf_n_splits(g); i++) {
        struct gguf_stamp kept, now = gguf_split_stamp(g, i);
        memcpy(&kept, bytes + i * sizeof kept, sizeof kept);
        same = gguf_stamp_same(&kept, &now);
    }
    gguf_model_id(g, id);
    if (same)
        m = manifest_decode(bytes + stamps, len - stamps, err);
    if (m && (m->kind != kind || memcmp(m->id, id, sizeof id) != 0)) {
        manifest_destroy(m);
        m = NULL;
        same = false;
    }
    if (!same)
        err_set(err, ERR_NOT_FOUND, "%s: it is about other files than these, or these as they were before, or holds hashes of another kind", path);
    free(bytes);
    return m;
}
