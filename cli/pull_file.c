/* See pull_inner.h: one file by libcurl. A try asks for what is missing, if the server still has the same file (If-Range), else for
 * all of it; the SHA-256 is reckoned as bytes come. Everything the server says is foreign: lengths and ranges are held against each
 * other, and against the disk. */
#include "config.h"

#include "cli/pull_inner.h"

#ifdef HAVE_LIBCURL
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "cli/ui.h"

enum { CONNECT_S = 30, STALL_S = 60, REDIRECTS_MAX = 10, RESERVE_BYTES = 64 << 20, READ_BYTES = 1 << 20, WAIT_MAX_S = 16 };
#define FILE_MAX_BYTES ((uint64_t)1 << 46)

struct fetch {
    const struct pull_file *file;
    struct err *err;
    CURL *curl;
    char part[PULL_PATH + 8], about[PULL_PATH + 16];
    int fd;
    /* of what is there */
    uint64_t have;
    crypto_hash_sha256_state hash;
    char tag[PULL_TAG]; /* what If-Range may say; "": nothing */
    /* of the answer at hand */
    char new_tag[PULL_TAG], date[PULL_TAG], sha256[PULL_SHA_TEXT]; /* sha256: stays from earlier answers, such as a redirect's */
    uint64_t range_from, range_total, length;
    bool has_range, has_length, checked, failed;
    uint64_t total; /* 0: not known */
    struct ui_progress bar;
};

static int give_up(struct fetch *f)
{
    f->failed = true;
    return -1;
}

/* --- what is there ------------------------------------------------------- */

static void hash_begin(struct fetch *f)
{
    crypto_hash_sha256_init(&f->hash);
}

/* Hashes what an earlier run left. */
static int hash_part(struct fetch *f)
{
    unsigned char *buf = malloc(READ_BYTES);
    uint64_t at = 0;
    ssize_t n = 1;

    if (!buf)
        return err_set(f->err, ERR_MEMORY, "out of memory");
    hash_begin(f);
    while (at < f->have && n > 0 && !ui_interrupted()) {
        n = pread(f->fd, buf, f->have - at < READ_BYTES ? (size_t)(f->have - at) : READ_BYTES, (off_t)at);
        if (n > 0) {
            crypto_hash_sha256_update(&f->hash, buf, (unsigned long long)n);
            at += (uint64_t)n;
            ui_progress(&f->bar, at, f->have);
        }
    }
    free(buf);
    if (n < 0)
        return err_errno(f->err, errno, "%s", f->part);
    return at == f->have ? 0 : err_set(f->err, ERR_CANCELLED, "interrupted");
}

static void read_about(struct fetch *f)
{
    json_t *o = json_load_file(f->about, 0, NULL);
    const char *url = json_string_value(json_object_get(o, "url")), *tag = json_string_value(json_object_get(o, "tag")),
               *sha256 = json_string_value(json_object_get(o, "sha256"));

    if (url && strcmp(url, f->file->url) == 0) {
        snprintf(f->tag, sizeof f->tag, "%s", tag ? tag : "");
        if (sha256 && strlen(sha256) == PULL_SHA_TEXT - 1)
            snprintf(f->sha256, sizeof f->sha256, "%s", sha256);
    }
    json_decref(o);
}

static int write_about(struct fetch *f)
{
    json_t *o = json_pack("{s:s, s:s, s:s}", "url", f->file->url, "tag", f->tag, "sha256", f->sha256);
    int rc = o ? json_dump_file(o, f->about, JSON_INDENT(1)) : -1;

    json_decref(o);
    return rc == 0 ? 0 : err_errno(f->err, errno, "writing %s", f->about);
}

static int start_over(struct fetch *f)
{
    f->have = 0;
    hash_begin(f);
    return ftruncate(f->fd, 0) == 0 ? 0 : err_errno(f->err, errno, "%s", f->part);
}

static int open_part(struct fetch *f)
{
    struct stat st;

    snprintf(f->part, sizeof f->part, "%s.part", f->file->path);
    snprintf(f->about, sizeof f->about, "%s.part.json", f->file->path);
    if ((f->fd = open(f->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) < 0)
        return err_errno(f->err, errno, "%s", f->part);
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(f->err, ERR_BUSY, "%s: another process is fetching it already", f->part);
    if (fstat(f->fd, &st) != 0)
        return err_errno(f->err, errno, "%s", f->part);
    read_about(f);
    f->have = (uint64_t)st.st_size;
    /* Without a tag nobody can say whether the rest would fit, but the hash will tell. */
    if (f->have && !f->tag[0] && !f->sha256[0] && !f->file->sha256)
        return start_over(f);
    return hash_part(f);
}

/* --- the answer's head --------------------------------------------------- */

static bool is_sha256(const char *s, size_t len)
{
    return len == PULL_SHA_TEXT - 1 && strspn(s, "0123456789abcdef") >= len;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct fetch *f = arg;
    char line[1024], *value;
    size_t len = size * n < sizeof line - 1 ? size * n : sizeof line - 1;

    memcpy(line, data, len);
    line[len] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    if (strncmp(line, "HTTP/", 5) == 0) { /* of another answer, behind a redirect */
        f->new_tag[0] = f->date[0] = '\0';
        f->has_range = f->has_length = false;
    }
    if (!(value = strchr(line, ':')))
        return size * n;
    *value++ = '\0';
    value += strspn(value, " \t");
    if (strcasecmp(line, "etag") == 0 && value[0] == '"' && strlen(value) < PULL_TAG)
        snprintf(f->new_tag, sizeof f->new_tag, "%.*s", PULL_TAG - 1, value);
    else if (strcasecmp(line, "last-modified") == 0 && strlen(value) < PULL_TAG)
        snprintf(f->date, sizeof f->date, "%.*s", PULL_TAG - 1, value);
    else if (strcasecmp(line, "x-linked-etag") == 0 && value[0] == '"' && is_sha256(value + 1, strcspn(value + 1, "\"")))
        snprintf(f->sha256, sizeof f->sha256, "%.64s", value + 1);
    else if (strcasecmp(line, "content-range") == 0)
        f->has_range = sscanf(value, "bytes %" SCNu64 "-%*u/%" SCNu64, &f->range_from, &f->range_total) == 2;
    else if (strcasecmp(line, "content-length") == 0)
        f->has_length = sscanf(value, "%" SCNu64, &f->length) == 1;
    return size * n;
}

static int check_room(struct fetch *f)
{
    struct statvfs st;
    char more[32], free_bytes[32];

    if (f->total > FILE_MAX_BYTES)
        return err_set(f->err, ERR_LIMIT, "%s: the server speaks of %" PRIu64 " bytes; at most %" PRIu64 " are allowed", f->file->url, f->total, FILE_MAX_BYTES);
    if (!f->total || fstatvfs(f->fd, &st) != 0)
        return 0;
    uint64_t room = (uint64_t)st.f_bavail * st.f_frsize;
    if (f->total - f->have + RESERVE_BYTES <= room)
        return 0;
    return err_set(f->err, ERR_LIMIT, "%s: %s more are to come, %s are free in its folder; make room, or choose another place with --dir", f->file->path,
                   ui_bytes(more, sizeof more, f->total - f->have), ui_bytes(free_bytes, sizeof free_bytes, room));
}

/* Before the first byte of a body: where it belongs. */
static int check_head(struct fetch *f, long status)
{
    f->checked = true;
    if (status == 206) {
        if (!f->has_range || f->range_from != f->have || f->range_total < f->have)
            return err_set(f->err, ERR_IO, "%s: bytes from %" PRIu64 " on were asked for, and others came", f->file->url, f->have);
        f->total = f->range_total;
    } else {
        if (f->have && start_over(f) != 0)
            return give_up(f);
        f->total = f->has_length ? f->length : 0;
    }
    snprintf(f->tag, sizeof f->tag, "%s", f->new_tag[0] ? f->new_tag : f->date);
    if (check_room(f) != 0 || write_about(f) != 0)
        return give_up(f);
    return 0;
}

/* --- the body ------------------------------------------------------------ */

static int take(struct fetch *f, const char *data, size_t len)
{
    if (f->have == 0 && len >= 4 && memcmp(data, "GGUF", 4) != 0) {
        err_set(f->err, ERR_INPUT, "%s: what is there is no GGUF file", f->file->url);
        return give_up(f);
    }
    if (f->have + len > (f->total ? f->total : FILE_MAX_BYTES))
        return err_set(f->err, ERR_IO, "%s: more came than the %" PRIu64 " bytes announced", f->file->url, f->total);
    for (size_t at = 0; at < len;) {
        ssize_t n = pwrite(f->fd, data + at, len - at, (off_t)(f->have + at));
        if (n <= 0 && errno != EINTR) {
            err_errno(f->err, errno, "writing %s", f->part);
            return give_up(f);
        }
        at += n > 0 ? (size_t)n : 0;
    }
    crypto_hash_sha256_update(&f->hash, (const unsigned char *)data, len);
    f->have += len;
    ui_progress(&f->bar, f->have, f->total);
    return 0;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct fetch *f = arg;
    long status = 0;

    curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206)
        return size * n; /* words about an error: the status says enough */
    if (!f->checked && check_head(f, status) != 0)
        return 0;
    return take(f, data, size * n) == 0 ? size * n : 0;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)arg, (void)a, (void)b, (void)c, (void)d;
    return ui_interrupted();
}

/* --- one try ------------------------------------------------------------- */

static void set_options(struct fetch *f, struct curl_slist *headers, char *words)
{
    bool https = strncmp(f->file->url, "https://", 8) == 0;

    curl_easy_setopt(f->curl, CURLOPT_URL, f->file->url);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(f->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(f->curl, CURLOPT_REDIR_PROTOCOLS_STR, https ? "https" : "http,https");
#else
    curl_easy_setopt(f->curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(f->curl, CURLOPT_REDIR_PROTOCOLS, (long)(https ? CURLPROTO_HTTPS : CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(f->curl, CURLOPT_USERAGENT, "stagecoach/" PACKAGE_VERSION);
    curl_easy_setopt(f->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(f->curl, CURLOPT_ERRORBUFFER, words);
    curl_easy_setopt(f->curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(f->curl, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(f->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(f->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(f->curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    curl_easy_setopt(f->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(f->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(f->curl, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(f->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(f->curl, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(f->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(f->curl, CURLOPT_NOPROGRESS, 0L);
    if (f->file->ca_file)
        curl_easy_setopt(f->curl, CURLOPT_CAINFO, f->file->ca_file);
}

static struct curl_slist *headers_of(const struct fetch *f)
{
    struct curl_slist *list = curl_slist_append(NULL, "Accept-Encoding: identity");
    char line[PULL_TAG + 64], bearer[600];

    if (f->have) {
        snprintf(line, sizeof line, "Range: bytes=%" PRIu64 "-", f->have);
        list = curl_slist_append(list, line);
        snprintf(line, sizeof line, "If-Range: %s", f->tag);
        if (f->tag[0])
            list = curl_slist_append(list, line);
    }
    if (f->file->token) {
        snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", f->file->token); /* libcurl keeps it from other hosts */
        list = curl_slist_append(list, bearer);
    }
    return list;
}

enum outcome { FETCH_DONE, FETCH_AGAIN, FETCH_FAILED };

/* What the status and the bytes came to. */
static enum outcome judge(struct fetch *f, CURLcode code, long status, const char *words)
{
    if (f->failed)
        return FETCH_FAILED;
    if (ui_interrupted()) {
        err_set(f->err, ERR_CANCELLED, "interrupted");
        return FETCH_FAILED;
    }
    if (status == 416 && f->have) { /* there is nothing behind what we have: it may be all, or another file */
        if (f->has_range || start_over(f) == 0) {
            err_set(f->err, ERR_IO, "%s: no bytes from %" PRIu64 " on", f->file->url, f->have);
            return FETCH_AGAIN;
        }
        return FETCH_FAILED;
    }
    if (status >= 400) {
        err_set(f->err, status == 404 ? ERR_NOT_FOUND : ERR_IO, "%s: the server answers %ld%s", f->file->url, status,
                status == 401 || status == 403 ? " (a token may be needed: HF_TOKEN)" : "");
        return status >= 500 || status == 408 || status == 429 ? FETCH_AGAIN : FETCH_FAILED;
    }
    if (code == CURLE_WRITE_ERROR)
        return FETCH_AGAIN; /* a wrong range: err says so */
    if (code != CURLE_OK) {
        err_set(f->err, ERR_IO, "%s: %.200s", f->file->url, words[0] ? words : curl_easy_strerror(code));
        bool hopeless = code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT || code == CURLE_PEER_FAILED_VERIFICATION ||
                        code == CURLE_SSL_CACERT_BADFILE || code == CURLE_TOO_MANY_REDIRECTS;
        return hopeless ? FETCH_FAILED : FETCH_AGAIN;
    }
    if (!f->checked || (f->total && f->have < f->total)) {
        err_set(f->err, ERR_IO, "%s: %" PRIu64 " of %" PRIu64 " bytes came", f->file->url, f->have, f->total);
        return FETCH_AGAIN;
    }
    return FETCH_DONE;
}

static enum outcome try_once(struct fetch *f)
{
    char words[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = headers_of(f);
    long status = 0;

    f->checked = f->has_range = f->has_length = false;
    err_clear(f->err);
    if (!headers || !(f->curl = curl_easy_init())) {
        curl_slist_free_all(headers);
        err_set(f->err, ERR_MEMORY, "out of memory");
        return FETCH_FAILED;
    }
    set_options(f, headers, words);
    CURLcode code = curl_easy_perform(f->curl);
    curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(f->curl);
    curl_slist_free_all(headers);
    return judge(f, code, status, words);
}

/* Again and again, as long as it gets on now and then. */
static int fetch(struct fetch *f)
{
    unsigned tries = 0, wait_s = 1;

    for (;;) {
        uint64_t before = f->have;
        enum outcome outcome = try_once(f);
        if (outcome == FETCH_DONE)
            return 0;
        if (outcome == FETCH_FAILED)
            return -1;
        if (f->have > before)
            tries = 0, wait_s = 1;
        if (++tries >= PULL_TRIES)
            return err_wrap(f->err, "after %u tries", tries);
        if (tries > 1) {
            ui_say("%s; trying again in %u s", f->err->text, wait_s);
            for (double until = ui_seconds() + wait_s; ui_seconds() < until && !ui_interrupted();)
                nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
            wait_s = wait_s * 2 < WAIT_MAX_S ? wait_s * 2 : WAIT_MAX_S;
        }
    }
}

/* --- the end ------------------------------------------------------------- */

/* The hash is right, the name is its own. */
static int finish(struct fetch *f)
{
    unsigned char hash[crypto_hash_sha256_BYTES];
    char text[PULL_SHA_TEXT];
    const char *want = f->file->sha256 ? f->file->sha256 : f->sha256[0] ? f->sha256 : NULL;

    crypto_hash_sha256_final(&f->hash, hash);
    for (size_t i = 0; i < sizeof hash; i++)
        snprintf(text + 2 * i, 3, "%02x", hash[i]);
    if (want && strcasecmp(want, text) != 0) {
        unlink(f->part);
        unlink(f->about);
        return err_set(f->err, ERR_INPUT, "%s: its SHA-256 is %s, expected was %s; what came is thrown away", f->file->url, text, want);
    }
    if (fsync(f->fd) != 0 || rename(f->part, f->file->path) != 0)
        return err_errno(f->err, errno, "%s", f->file->path);
    unlink(f->about);
    if (!want)
        ui_say("%s: SHA-256 %s (nobody said what it should be)", f->file->path, text);
    return 0;
}

/* A file that is there is hashed where somebody says what it should be: 1 it is right, 0 it is not there. */
static int already(const struct pull_file *file, struct err *err)
{
    struct fetch f = {.file = file, .err = err, .fd = open(file->path, O_RDONLY | O_CLOEXEC)};
    unsigned char hash[crypto_hash_sha256_BYTES];
    char text[PULL_SHA_TEXT];
    struct stat st;

    if (f.fd < 0)
        return errno == ENOENT ? 0 : err_errno(err, errno, "%s", file->path);
    ui_progress_begin(&f.bar, "checking", true);
    f.have = fstat(f.fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    snprintf(f.part, sizeof f.part, "%s", file->path);
    int rc = hash_part(&f);
    ui_progress_end(&f.bar);
    close(f.fd);
    if (rc != 0)
        return -1;
    crypto_hash_sha256_final(&f.hash, hash);
    for (size_t i = 0; i < sizeof hash; i++)
        snprintf(text + 2 * i, 3, "%02x", hash[i]);
    return strcasecmp(text, file->sha256) == 0 ? 1
                                               : err_set(err, ERR_INPUT, "%s is there already, and its SHA-256 is %s; remove it to fetch it anew", file->path, text);
}

int pull_file(const struct pull_file *file, struct err *err)
{
    struct fetch f = {.file = file, .err = err, .fd = -1};
    const char *slash = strrchr(file->path, '/');
    char what[300];
    int rc;

    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium cannot begin");
    if (file->sha256 && (rc = already(file, err)) != 0)
        return rc < 0 ? -1 : 0;
    snprintf(what, sizeof what, "fetching %.280s", slash ? slash + 1 : file->path);
    ui_progress_begin(&f.bar, what, true);
    rc = open_part(&f);
    if (rc == 0)
        rc = fetch(&f);
    ui_progress_end(&f.bar);
    if (rc == 0)
        rc = finish(&f);
    if (rc != 0 && f.fd >= 0 && f.have == 0 && err->kind != ERR_BUSY) { /* nothing to go on with */
        unlink(f.part);
        unlink(f.about);
    }
    if (f.fd >= 0)
        close(f.fd);
    return rc;
}

#else

int pull_file(const struct pull_file *file, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "%s: this program was built without libcurl, which fetches files", file->url);
}

#endif
