/* See hashes.h. Files: DIR/MODEL-ID, as manifest_save writes them: with the stamps of the files that were read. BLAKE3 only: whoever
 * asks for the other kind is old, and becomes rare. */
#include "bulk/hashes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

int hashes_init(struct hashes *h, const char *dir, struct err *err)
{
    *h = (struct hashes){0};
    if (dir && !(h->dir = strdup(dir)))
        return err_set(err, ERR_MEMORY, "out of memory");
    return 0;
}

void hashes_drop(struct hashes_model *m)
{
    manifest_destroy(m->manifest);
    free(m->stamps);
    *m = (struct hashes_model){0};
}

void hashes_fini(struct hashes *h)
{
    for (unsigned i = 0; i < HASHES_MODELS; i++)
        hashes_drop(&h->models[i]);
    free(h->dir);
}

static char *path_of(const struct hashes *h, const unsigned char *model, struct err *err)
{
    size_t dir = strlen(h->dir), size = dir + 2 + 2 * GGUF_ID_BYTES;
    char *path = mem_new(size, 1, err);
    for (size_t i = 0; path && i < GGUF_ID_BYTES; i++)
        snprintf(path + dir + 1 + 2 * i, 3, "%02x", model[i]);
    if (path) {
        memcpy(path, h->dir, dir);
        path[dir] = '/';
    }
    return path;
}

static const struct hashes_model *find(const struct hashes *h, const uint8_t *model, enum manifest_kind kind)
{
    for (unsigned i = 0; i < HASHES_MODELS; i++) {
        const struct manifest *m = h->models[i].manifest;
        if (m && manifest_kind(m) == kind && memcmp(manifest_model_id(m), model, GGUF_ID_BYTES) == 0)
            return &h->models[i];
    }
    return NULL;
}

bool hashes_get(const struct hashes *h, const uint8_t *model, enum manifest_kind kind, uint32_t split, uint32_t chunk, uint8_t *ret)
{
    const struct hashes_model *m = find(h, model, kind);
    const unsigned char *hash = m ? manifest_hash(m->manifest, split, chunk) : NULL;
    if (hash && ret)
        memcpy(ret, hash, MANIFEST_HASH_BYTES);
    return hash != NULL;
}

static bool same_files(const struct hashes_model *m, const struct gguf *g)
{
    for (uint32_t i = 0; i < gguf_n_splits(g); i++) {
        struct gguf_stamp now = gguf_split_stamp(g, i);
        if (!gguf_stamp_same(&m->stamps[i], &now))
            return false;
    }
    return true;
}

struct manifest *hashes_read(const struct hashes *h, const uint8_t *model, const struct gguf *g)
{
    struct manifest *m = NULL;
    char *path = h->dir ? path_of(h, model, NULL) : NULL;
    if (path)
        m = manifest_load(g, MANIFEST_BLAKE3, path, NULL);
    free(path);
    return m;
}

static int begin(struct hashes_model *m, const struct gguf *g, struct manifest *manifest, struct err *err)
{
    hashes_drop(m);
    m->manifest = manifest;
    if (!manifest || !(m->stamps = mem_new(gguf_n_splits(g), sizeof *m->stamps, err))) {
        hashes_drop(m);
        return -1;
    }
    for (uint32_t i = 0; i < gguf_n_splits(g); i++)
        m->stamps[i] = gguf_split_stamp(g, i);
    return 0;
}

/* g's, or the place where it belongs. */
static struct hashes_model *place_of(struct hashes *h, const uint8_t *model, const struct gguf *g, enum manifest_kind kind, bool *ret_there)
{
    const struct hashes_model *found = find(h, model, kind);
    *ret_there = found && same_files(found, g);
    return &h->models[found ? (unsigned)(found - h->models) : h->next++ % HASHES_MODELS];
}

void hashes_put(struct hashes *h, const uint8_t *model, const struct gguf *g, struct manifest *read)
{
    bool there = false;
    struct hashes_model *m = read ? place_of(h, model, g, MANIFEST_BLAKE3, &there) : NULL;
    if (there)
        manifest_destroy(read);
    else if (m)
        begin(m, g, read, NULL);
}

static struct hashes_model *model_of(struct hashes *h, const uint8_t *model, const struct gguf *g, enum manifest_kind kind, struct err *err)
{
    bool there;
    struct hashes_model *m = place_of(h, model, g, kind, &there);
    return there || begin(m, g, manifest_create(g, kind, err), err) == 0 ? m : NULL;
}

const struct manifest *hashes_of(struct hashes *h, const uint8_t *model, const struct gguf *g, enum manifest_kind kind, struct err *err)
{
    const struct hashes_model *m = model_of(h, model, g, kind, err);
    return m ? m->manifest : NULL;
}

int hashes_set(struct hashes *h, const uint8_t *model, const struct gguf *g, enum manifest_kind kind, uint32_t split, uint32_t chunk,
               const uint8_t *hash, struct err *err)
{
    struct hashes_model *m = model_of(h, model, g, kind, err);
    if (!m || manifest_set(m->manifest, split, chunk, hash, err) != 0)
        return -1;
    m->changed = h->dir && kind == MANIFEST_BLAKE3;
    return 0;
}

bool hashes_unwritten(struct hashes *h, struct hashes_model *ret)
{
    for (unsigned i = 0; i < HASHES_MODELS; i++) {
        struct hashes_model *m = &h->models[i];
        size_t len, stamps;
        if (!m->changed)
            continue;
        m->changed = false; /* once, also where memory is short: they can be made again */
        unsigned char *bytes = manifest_encode(m->manifest, &len, NULL);
        *ret = (struct hashes_model){.manifest = bytes ? manifest_decode(bytes, len, NULL) : NULL};
        free(bytes);
        stamps = ret->manifest ? manifest_n_splits(ret->manifest) : 0;
        if (stamps && (ret->stamps = mem_new(stamps, sizeof *ret->stamps, NULL))) {
            memcpy(ret->stamps, m->stamps, stamps * sizeof *ret->stamps);
            return true;
        }
        hashes_drop(ret);
    }
    return false;
}

int hashes_write(const struct hashes *h, struct hashes_model *copy, const struct gguf *g, struct err *err)
{
    char *path = NULL;
    int rc = 0;
    if (same_files(copy, g)) { /* of those that are gone nobody will ask */
        bool there = mkdir(h->dir, 0700) == 0 || errno == EEXIST;
        rc = !there ? err_errno(err, errno, "%s", h->dir) : (path = path_of(h, manifest_model_id(copy->manifest), err)) ? 0 : -1;
        if (rc == 0)
            rc = manifest_save(copy->manifest, g, path, err);
    }
    free(path);
    hashes_drop(copy);
    return rc;
}
