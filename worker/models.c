/* See models.h. Of a split model only the first part is an entry: it stands for all. */
#include "worker/models.h"

#include <dirent.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

enum { PATH_BYTES = 4096 };

struct entry {
    char *path;
    off_t bytes;
    struct timespec changed;
    bool good; /* a whole model; else it need not be read again until it changes */
    bool seen; /* by the scan under way */
    uint8_t id[MSG_ID_BYTES];
};

struct models {
    const char *file, *dir;
    pthread_mutex_t lock;
    struct entry *entries;
    size_t n, cap;
    unsigned n_seen;
};

static bool is_candidate(const char *name)
{
    size_t len = strlen(name);
    const char *of = strstr(name, "-of-");
    if (len < 6 || strcmp(name + len - 5, ".gguf") != 0)
        return false;
    /* NAME-00002-of-00005.gguf: a part that the first one brings along */
    return !(of && of - name >= 6 && of[-6] == '-' && strncmp(of - 5, "00001", 5) != 0 && strspn(of - 5, "0123456789") == 5);
}

static struct entry *find_path(struct models *m, const char *path)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->entries[i].path, path) == 0)
            return &m->entries[i];
    return NULL;
}

static void look_at(struct models *m, const char *path, const struct stat *st)
{
    struct entry *e = find_path(m, path);
    struct gguf *g;

    if (e && e->bytes == st->st_size && memcmp(&e->changed, &st->st_mtim, sizeof e->changed) == 0) {
        e->seen = true;
        return;
    }
    if (!e) {
        char *copy = strdup(path);
        if (!copy || mem_grow(&m->entries, &m->cap, m->n + 1, sizeof *m->entries, MODELS_MAX_SEEN, "models", NULL) != 0) {
            free(copy);
            return;
        }
        e = &m->entries[m->n++];
        *e = (struct entry){.path = copy};
    }
    e->bytes = st->st_size;
    e->changed = st->st_mtim;
    e->seen = true;
    g = gguf_open(path, false, NULL);
    e->good = g != NULL;
    if (g)
        gguf_model_id(g, e->id);
    gguf_close(g);
}

static void scan_folder(struct models *m, const char *dir, int depth)
{
    char path[PATH_BYTES];
    struct dirent *d;
    struct stat st;
    DIR *folder = opendir(dir);

    while (folder && m->n_seen < MODELS_MAX_SEEN && (d = readdir(folder))) {
        m->n_seen++;
        if (d->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s", dir, d->d_name) >= (int)sizeof path || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode)) { /* not links to folders: they could go in circles */
            if (depth < MODELS_MAX_DEPTH)
                scan_folder(m, path, depth + 1);
        } else if (is_candidate(d->d_name) && stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            look_at(m, path, &st);
        }
    }
    if (folder)
        closedir(folder);
}

static void scan(struct models *m)
{
    struct stat st;
    size_t kept = 0;

    m->n_seen = 0;
    for (size_t i = 0; i < m->n; i++)
        m->entries[i].seen = false;
    if (m->file && stat(m->file, &st) == 0)
        look_at(m, m->file, &st);
    if (m->dir)
        scan_folder(m, m->dir, 1);
    for (size_t i = 0; i < m->n; i++) {
        if (m->entries[i].seen)
            m->entries[kept++] = m->entries[i];
        else
            free(m->entries[i].path);
    }
    m->n = kept;
}

struct models *models_create(const char *file, const char *dir, struct err *err)
{
    struct models *m = mem_new(1, sizeof *m, err);
    struct stat st;

    if (!m)
        return NULL;
    pthread_mutex_init(&m->lock, NULL);
    m->file = file;
    m->dir = dir;
    if (dir && (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))) {
        err_set(err, ERR_NOT_FOUND, "--model-dir %s: there is no such folder", dir);
        models_destroy(m);
        return NULL;
    }
    scan(m);
    return m;
}

void models_destroy(struct models *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n; i++)
        free(m->entries[i].path);
    free(m->entries);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

size_t models_ids(struct models *m, uint8_t (*ret)[MSG_ID_BYTES], size_t max)
{
    size_t n = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n && n < max; i++)
        if (m->entries[i].good)
            memcpy(ret[n++], m->entries[i].id, MSG_ID_BYTES);
    pthread_mutex_unlock(&m->lock);
    return n;
}

static struct gguf *open_known(struct models *m, const uint8_t *id, struct err *err)
{
    uint8_t now[GGUF_ID_BYTES];
    for (size_t i = 0; i < m->n; i++) {
        if (!m->entries[i].good || memcmp(m->entries[i].id, id, MSG_ID_BYTES) != 0)
            continue;
        struct gguf *g = gguf_open(m->entries[i].path, false, err);
        if (!g)
            continue;
        gguf_model_id(g, now);
        if (memcmp(now, id, sizeof now) == 0)
            return g;
        gguf_close(g); /* another file has taken its name */
    }
    return NULL;
}

/* Of the file that was named, where there is no folder: it was cut, replaced, removed. */
static void say_of_file(const struct models *m, const uint8_t *id, struct err *err)
{
    struct err why;
    struct gguf *g = gguf_open(m->file, false, &why);
    if (!g)
        err_set(err, why.kind, "model %02x%02x%02x%02x… cannot be had: %s", id[0], id[1], id[2], id[3], why.text);
    else
        err_set(err, ERR_NOT_FOUND, "%s is another model now than %02x%02x%02x%02x…, which is asked for", m->file, id[0], id[1], id[2], id[3]);
    gguf_close(g);
}

struct gguf *models_open(struct models *m, const uint8_t *id, struct err *err)
{
    struct gguf *g;
    pthread_mutex_lock(&m->lock);
    if (!(g = open_known(m, id, err))) {
        scan(m);
        if (!(g = open_known(m, id, err)) && m->file && !m->dir)
            say_of_file(m, id, err);
        else if (!g)
            err_set(err, ERR_NOT_FOUND, "no file of model %02x%02x%02x%02x… among the %zu looked at (%s%s%s)", id[0], id[1], id[2], id[3], m->n,
                    m->file ? m->file : "", m->file && m->dir ? ", " : "", m->dir ? m->dir : "there is no --model-dir");
    }
    pthread_mutex_unlock(&m->lock);
    return g;
}
