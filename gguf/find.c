/* See find.h. Files that cannot be opened are passed over: a folder may hold anything, half downloads among it. */
#include "gguf/find.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "gguf/split.h"

struct search {
    const unsigned char *id;
    unsigned seen;
    struct gguf *found;
};

static bool has_suffix(const char *name)
{
    size_t len = strlen(name);
    return len > 5 && strcmp(name + len - 5, ".gguf") == 0;
}

/* Of a set of splits the first stands for all. */
static bool is_first(const char *path)
{
    uint32_t split, count;
    size_t prefix;
    return !gguf_split_parse(path, &split, &count, &prefix) || split == 0;
}

static void try_file(struct search *s, const char *path)
{
    unsigned char id[GGUF_ID_BYTES];
    struct err ignored;
    s->seen++;
    struct gguf *g = gguf_open(path, false, &ignored);
    if (!g)
        return;
    gguf_model_id(g, id);
    if (memcmp(id, s->id, sizeof id) == 0)
        s->found = g;
    else
        gguf_close(g);
}

static int search_folder(struct search *s, const char *dir, int depth, struct err *err)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int rc = 0;
    if (!d)
        return depth ? 0 : err_errno(err, errno, "%s", dir);
    while (rc == 0 && !s->found && s->seen < GGUF_FIND_MAX_FILES && (e = readdir(d))) {
        struct stat st;
        size_t len = strlen(dir) + strlen(e->d_name) + 2;
        if (e->d_name[0] == '.')
            continue;
        char *path = mem_new(len, 1, err);
        if (!path) {
            rc = -1;
            break;
        }
        snprintf(path, len, "%s/%s", dir, e->d_name);
        bool folder = lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
        if (folder && depth < GGUF_FIND_MAX_DEPTH)
            rc = search_folder(s, path, depth + 1, err);
        else if (!folder && has_suffix(path) && is_first(path))
            try_file(s, path);
        free(path);
    }
    closedir(d);
    return rc;
}

struct gguf *gguf_find_model(const char *dir, const unsigned char id[GGUF_ID_BYTES], struct err *err)
{
    struct search s = {.id = id};
    if (search_folder(&s, dir, 0, err) != 0) {
        gguf_close(s.found);
        return NULL;
    }
    if (!s.found)
        err_set(err, ERR_NOT_FOUND, "%s: of its %u GGUF files none is this model in this quantization, whole", dir, s.seen);
    return s.found;
}
