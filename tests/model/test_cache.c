/* The cache of chunks: what was put comes back, nothing wrong ever does, it stays within its bytes, and belongs to one process. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/cache.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

static struct err err;
static char dir[512];

/* A model of its own quantization, its manifest complete. */
struct sample {
    struct gguf *g;
    struct manifest *m;
    char *bytes;
};

static void sample_init(struct sample *s, uint32_t big)
{
    struct model_spec spec = *model_spec_of("llama");
    char path[600];
    uint32_t len = 0, n = 0;
    spec.big = big;
    snprintf(path, sizeof path, "%s/%u.gguf", model_folder(), big);
    model_write(&spec, QUANT_Q8_0, path);
    s->g = gguf_open(path, false, &err);
    s->m = manifest_create(s->g, MANIFEST_BLAKE3, &err);
    s->bytes = malloc(gguf_split_bytes(s->g, 0) + MANIFEST_CHUNK_BYTES);
    for (uint32_t c = 0; c < manifest_n_chunks(s->m, 0); c++, n += len) {
        unsigned char hash[MANIFEST_HASH_BYTES];
        if (manifest_read_chunk(s->g, 0, c, s->bytes + n, &len, &err) != 0) {
            printf("Bail out! %s\n", err.text);
            exit(1);
        }
        manifest_hash_bytes(MANIFEST_BLAKE3, s->bytes + n, len, hash);
        manifest_set(s->m, 0, c, hash, &err);
    }
}

static void sample_fini(struct sample *s)
{
    manifest_destroy(s->m);
    gguf_close(s->g);
    free(s->bytes);
}

static const char *chunk(const struct sample *s, uint32_t c)
{
    return s->bytes + (size_t)c * MANIFEST_CHUNK_BYTES;
}

static struct chunk_cache *open_or_die(uint64_t most)
{
    struct chunk_cache *c = cache_open(dir, most, &err);
    if (!c) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    return c;
}

static void fresh_dir(const char *name)
{
    snprintf(dir, sizeof dir, "%s/cache-%s", model_folder(), name);
}

static void model_file(const struct sample *s, const char *name, char *ret, size_t size)
{
    int n = snprintf(ret, size, "%s/", dir);
    for (int i = 0; i < GGUF_ID_BYTES; i++)
        n += snprintf(ret + n, size - (size_t)n, "%02x", manifest_model_id(s->m)[i]);
    snprintf(ret + n, size - (size_t)n, "/%s", name);
}

static bool comes_back(struct chunk_cache *c, const struct sample *s, uint32_t n, char *to)
{
    memset(to, 0, MANIFEST_CHUNK_BYTES);
    return cache_get(c, s->m, 0, n, to) && memcmp(to, chunk(s, n), manifest_chunk_bytes(s->m, 0, n)) == 0;
}

static void test_keeps(const struct sample *s, char *to)
{
    fresh_dir("keeps");
    struct chunk_cache *c = open_or_die(1 << 30);
    uint32_t n = manifest_n_chunks(s->m, 0);
    ok(n >= 3, "%u chunks", n);
    is_int(cache_use(c, s->m, &err), 0, "a model");
    ok(!cache_has(c, 0, 0) && !cache_get(c, s->m, 0, 0, to), "is not there at first");
    for (uint32_t i = 0; i < n; i++)
        is_int(cache_put(c, s->m, 0, i, chunk(s, i), &err), 1, "chunk %u is kept", i);
    is_int(cache_put(c, s->m, 0, 0, chunk(s, 0), &err), 1, "one that is there already, too");
    is_int(cache_put(c, s->m, 0, n, chunk(s, 0), &err), 0, "there is no chunk behind the last");
    is_int(cache_put(c, s->m, 1, 0, chunk(s, 0), &err), 0, "nor another split");
    for (uint32_t i = 0; i < n; i++)
        ok(comes_back(c, s, i, to), "chunk %u comes back", i);
    uint64_t bytes = cache_bytes(c);
    cache_close(c);
    c = open_or_die(1 << 30);
    ok(cache_bytes(c) >= bytes, "opened again: %llu bytes", (unsigned long long)cache_bytes(c));
    is_int(cache_use(c, s->m, &err), 0, "the same model");
    for (uint32_t i = 0; i < n; i++)
        ok(cache_has(c, 0, i) && comes_back(c, s, i, to), "chunk %u is still there", i);
    cache_close(c);
}

/* What a crash, a disk or a stranger may leave. */
static void test_wrong(const struct sample *s, char *to)
{
    char data[1024], journal[1024];
    struct stat st;
    fresh_dir("wrong");
    struct chunk_cache *c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    for (uint32_t i = 0; i < 3; i++)
        cache_put(c, s->m, 0, i, chunk(s, i), &err);
    cache_close(c);
    model_file(s, "00000.data", data, sizeof data);
    model_file(s, "journal", journal, sizeof journal);

    int fd = open(data, O_WRONLY); /* the half that a power cut left */
    ok(pwrite(fd, chunk(s, 0), 4096, MANIFEST_CHUNK_BYTES + (2 << 20)) == 4096, "half of a chunk is overwritten");
    close(fd);
    c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    ok(cache_has(c, 0, 1) && !comes_back(c, s, 1, to), "it does not come back");
    ok(!cache_has(c, 0, 1), "and is dropped");
    ok(comes_back(c, s, 0, to) && comes_back(c, s, 2, to), "its neighbours do");
    cache_close(c);
    c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    ok(!cache_has(c, 0, 1), "it stays dropped");
    is_int(cache_put(c, s->m, 0, 1, chunk(s, 1), &err), 1, "and may be put again");
    ok(comes_back(c, s, 1, to), "right this time");
    cache_close(c);

    ok(stat(journal, &st) == 0 && truncate(journal, st.st_size - 5) == 0, "the journal's last record is torn");
    c = open_or_die(1 << 30);
    is_int(cache_use(c, s->m, &err), 0, "it is read up to there");
    ok(cache_has(c, 0, 0) && !cache_has(c, 0, 1) && cache_has(c, 0, 2), "what it said last is forgotten");
    cache_put(c, s->m, 0, 1, chunk(s, 1), &err);
    cache_close(c);
    c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    ok(cache_has(c, 0, 1) && comes_back(c, s, 1, to), "what was written after it counts");
    cache_close(c);

    fd = open(journal, O_WRONLY);
    ok(pwrite(fd, "garbage", 7, 0) == 7, "the journal begins with garbage");
    close(fd);
    c = open_or_die(1 << 30);
    is_int(cache_use(c, s->m, &err), 0, "it still opens");
    ok(!cache_has(c, 0, 0) && !cache_has(c, 0, 2), "and knows nothing");
    cache_close(c);

    ok(truncate(data, 100) == 0, "the data are cut");
    c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    cache_put(c, s->m, 0, 2, chunk(s, 2), &err);
    ok(comes_back(c, s, 2, to) && !comes_back(c, s, 0, to), "the rest goes on working");
    cache_close(c);
}

static void test_bound(const struct sample *a, const struct sample *b, const struct sample *d, char *to)
{
    char name[1024];
    uint64_t chunk_bytes = MANIFEST_CHUNK_BYTES, most = 5 * chunk_bytes;
    fresh_dir("bound");
    struct chunk_cache *c = open_or_die(most);
    const struct sample *in_turn[] = {a, b};
    for (int k = 0; k < 2; k++) {
        cache_use(c, in_turn[k]->m, &err);
        for (uint32_t i = 0; i < 2; i++)
            is_int(cache_put(c, in_turn[k]->m, 0, i, chunk(in_turn[k], i), &err), 1, "model %d, chunk %u", k, i);
        cache_leave(c);
        usleep(20000); /* the time of the last use tells them apart */
    }
    cache_use(c, a->m, &err); /* now b is the one that was not used for longest */
    cache_leave(c);
    usleep(20000);
    cache_use(c, d->m, &err);
    for (uint32_t i = 0; i < 2; i++)
        is_int(cache_put(c, d->m, 0, i, chunk(d, i), &err), 1, "a third model, chunk %u", i);
    ok(cache_bytes(c) <= most, "%llu of %llu bytes", (unsigned long long)cache_bytes(c), (unsigned long long)most);
    cache_leave(c);
    cache_use(c, a->m, &err);
    ok(comes_back(c, a, 0, to), "the one used last is there");
    model_file(b, "journal", name, sizeof name);
    ok(access(name, F_OK) != 0, "the one that was not used for longest is gone");
    int kept = 0;
    for (uint32_t i = 0; i < manifest_n_chunks(a->m, 0); i++)
        kept += cache_put(c, a->m, 0, i, chunk(a, i), &err);
    ok(cache_bytes(c) <= most, "a model that fills it: %llu of %llu bytes", (unsigned long long)cache_bytes(c), (unsigned long long)most);
    ok(comes_back(c, a, 0, to), "never itself removed");
    cache_close(c);
    c = open_or_die(chunk_bytes);
    ok(cache_bytes(c) <= chunk_bytes, "opened with less room: it shrinks");
    cache_use(c, a->m, &err);
    ok(cache_put(c, a->m, 0, 0, chunk(a, 0), &err) >= 0, "one fits at most");
    is_int(cache_put(c, a->m, 0, 1, chunk(a, 1), &err), 0, "a second does not");
    cache_close(c);
    (void)kept;
}

/* A node with several devices loads for each of them at once. */
static void test_together(const struct sample *s, const struct sample *other, char *to)
{
    fresh_dir("together");
    struct chunk_cache *c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    cache_put(c, s->m, 0, 0, chunk(s, 0), &err);
    is_int(cache_use(c, s->m, &err), 0, "a second load of the model");
    ok(comes_back(c, s, 0, to), "what the first put is there");
    ok(cache_use(c, other->m, &err) != 0 && err.kind == ERR_BUSY, "another model meanwhile is not");
    cache_leave(c);
    ok(cache_use(c, other->m, &err) != 0, "nor when one of the two has ended");
    ok(cache_put(c, s->m, 0, 1, chunk(s, 1), &err) == 1 && comes_back(c, s, 1, to), "the other goes on");
    cache_leave(c);
    is_int(cache_use(c, other->m, &err), 0, "then it is");
    cache_close(c);
}

static void remove_all(void)
{
    char command[1100];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    if (system(command) != 0)
        printf("# %s failed\n", command);
}

/* Somebody wanted room on the disk. */
static void test_removed(const struct sample *s, char *to)
{
    fresh_dir("removed");
    struct chunk_cache *c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    cache_put(c, s->m, 0, 0, chunk(s, 0), &err);
    remove_all();
    ok(comes_back(c, s, 0, to), "a folder that is removed while a model is in use: the model stays");
    cache_leave(c);
    is_int(cache_use(c, s->m, &err), 0, "the next load makes it anew");
    ok(!cache_has(c, 0, 0) && cache_bytes(c) == 0, "empty");
    ok(cache_put(c, s->m, 0, 0, chunk(s, 0), &err) == 1 && comes_back(c, s, 0, to), "and keeps what comes");
    cache_leave(c);
    remove_all();
    int fd = open(dir, O_WRONLY | O_CREAT, 0600);
    close(fd);
    for (int i = 0; i < 2; i++) {
        ok(cache_use(c, s->m, &err) != 0, "where it cannot be made, that is an error");
        has_str(err.text, dir, "which names it");
    }
    unlink(dir);
    is_int(cache_use(c, s->m, &err), 0, "until it can");
    cache_close(c);
}

/* The disk is full in the middle of a record: those that come later count all the same. */
static void test_full(const struct sample *s, char *to)
{
    char data[1024], journal[1024];
    struct rlimit before, little;
    struct stat st;
    fresh_dir("full");
    struct chunk_cache *c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    cache_put(c, s->m, 0, 0, chunk(s, 0), &err);
    cache_put(c, s->m, 0, 1, chunk(s, 1), &err);
    model_file(s, "00000.data", data, sizeof data);
    model_file(s, "journal", journal, sizeof journal);
    int fd = open(data, O_WRONLY);
    ok(pwrite(fd, "?", 1, MANIFEST_CHUNK_BYTES + 1) == 1 && stat(journal, &st) == 0, "a chunk with a wrong byte");
    close(fd);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    little = before;
    little.rlim_cur = (rlim_t)st.st_size + 5;
    setrlimit(RLIMIT_FSIZE, &little);
    ok(!comes_back(c, s, 1, to), "is dropped while the journal may not grow");
    is_int(cache_put(c, s->m, 0, 2, chunk(s, 2), &err), -1, "a chunk that has no room");
    has_str(err.text, "large", "and why");
    setrlimit(RLIMIT_FSIZE, &before);
    is_int(cache_put(c, s->m, 0, 2, chunk(s, 2), &err), 1, "there is room again");
    cache_close(c);
    c = open_or_die(1 << 30);
    cache_use(c, s->m, &err);
    ok(cache_has(c, 0, 0) && cache_has(c, 0, 2) && comes_back(c, s, 2, to), "what was kept then is found");
    cache_close(c);
}

static void test_lock(void)
{
    fresh_dir("lock");
    struct chunk_cache *c = open_or_die(1 << 20);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct chunk_cache *second = cache_open(dir, 1 << 20, &err);
        _exit(second ? 1 : err.kind == ERR_BUSY && strstr(err.text, dir) ? 0 : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    is_int(WEXITSTATUS(status), 0, "a second process is told that the folder is in use");
    ok(!cache_open(dir, 1 << 20, &err) && err.kind == ERR_BUSY, "a second cache of this process, too");
    cache_close(c);
    c = cache_open(dir, 1 << 20, &err);
    ok(c, "free again");
    cache_close(c);
    snprintf(dir, sizeof dir, "%s/no/such/folder", model_folder());
    ok(!cache_open(dir, 1 << 20, &err), "a folder that cannot be made");
    has_str(err.text, dir, "is named");
}

int main(void)
{
    struct sample a, b, d;
    char *to = malloc(MANIFEST_CHUNK_BYTES);
    sample_init(&a, 256);
    sample_init(&b, 230);
    sample_init(&d, 210);
    test_keeps(&a, to);
    test_wrong(&a, to);
    test_bound(&a, &b, &d, to);
    test_together(&a, &b, to);
    test_removed(&a, to);
    test_full(&a, to);
    test_lock();
    sample_fini(&a);
    sample_fini(&b);
    sample_fini(&d);
    free(to);
    return tap_done();
}
