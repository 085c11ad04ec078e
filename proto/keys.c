/* Keys and the allow-list: see keys.h. The list is small and read whole whenever the folder's look (names, times, sizes of
 * its files) has changed; who removes a file by hand needs to tell nobody. */
#include "proto/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "proto/files.h"

enum { KEY_FILE_BYTES = 256, TRUSTED_SUFFIX = 4 /* ".pub" */ };

struct trusted {
    char name[MSG_MAX_NAME + 1];
    uint8_t key[KEY_BYTES];
};

struct keys {
    char *dir, *trusted_dir;
    char name[MSG_MAX_NAME + 1];
    uint8_t public_key[KEY_BYTES], secret_key[KEY_BYTES];
    pthread_mutex_t lock; /* for what follows */
    struct trusted *list; /* sorted by name */
    size_t len, cap;
    uint64_t look; /* of trusted/ when the list was read */
    uint64_t version;
};

/* --- keys as text ------------------------------------------------------------------------------------------------------ */
const char *key_format(const uint8_t *key, char buf[KEY_TEXT])
{
    return sodium_bin2hex(buf, KEY_TEXT, key, KEY_BYTES);
}

int key_parse(const char *text, uint8_t *ret_key, struct err *err)
{
    static const char space[] = " \t\r\n";
    const char *start = text + strspn(text, space), *end;
    uint8_t key[KEY_BYTES];
    size_t digits = strspn(start, "0123456789abcdefABCDEF"), len;

    if (digits != 2 * KEY_BYTES || start[digits + strspn(start + digits, space)] != '\0')
        return err_set(err, ERR_INPUT, "a key is %d hexadecimal digits; these are %zu", 2 * KEY_BYTES, digits);
    if (sodium_hex2bin(key, sizeof key, start, digits, NULL, &len, &end) != 0 || len != KEY_BYTES)
        return err_set(err, ERR_INPUT, "a key is %d hexadecimal digits", 2 * KEY_BYTES);
    if (sodium_is_zero(key, sizeof key))
        return err_set(err, ERR_INPUT, "a key of nothing but zeros is none");
    memcpy(ret_key, key, KEY_BYTES);
    return 0;
}

/* As it stands in files. */
static void key_line(const uint8_t *key, char buf[KEY_TEXT + 1])
{
    key_format(key, buf);
    buf[KEY_TEXT - 1] = '\n';
    buf[KEY_TEXT] = '\0';
}

/* --- this node's own --------------------------------------------------------------------------------------------------- */
/* A host's name as a node's: what a node's name may not have becomes a dash; the domain goes. */
static void host_name(char name[MSG_MAX_NAME + 1])
{
    char host[256] = "";

    if (gethostname(host, sizeof host - 1) != 0 || !host[0])
        snprintf(host, sizeof host, "node");
    host[strcspn(host, ".")] = '\0';
    snprintf(name, MSG_MAX_NAME + 1, "%.*s", MSG_MAX_NAME, host);
    for (char *p = name; *p; p++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", *p))
            *p = '-';
    if (!msg_name_valid(name))
        snprintf(name, MSG_MAX_NAME + 1, "node");
}

static int bad_name(const char *name, struct err *err)
{
    char shown[MSG_MAX_NAME + 16];

    return err_set(err, ERR_USAGE, "\"%s\" is no name for a node: 1 to %d letters, digits, dots, dashes or underscores, the first a letter or digit",
                   err_printable(shown, sizeof shown, name, strlen(name)), MSG_MAX_NAME);
}

static int load_name(struct keys *k, const char *name, struct err *err)
{
    char path[FILES_MAX_PATH], text[KEY_FILE_BYTES];
    struct stat st;

    if (name) {
        if (!msg_name_valid(name))
            return bad_name(name, err);
        snprintf(k->name, sizeof k->name, "%s", name);
        return 0;
    }
    if (files_path(path, k->dir, NULL, "node.name", err) != 0)
        return -1;
    if (stat(path, &st) != 0 && errno == ENOENT) {
        host_name(k->name);
        return 0;
    }
    if (files_read(path, text, sizeof text, err) != 0)
        return -1;
    text[strcspn(text, "\r\n")] = '\0';
    if (!msg_name_valid(text)) {
        bad_name(text, err);
        return err_wrap(err, "%s", path);
    }
    snprintf(k->name, sizeof k->name, "%.*s", MSG_MAX_NAME, text);
    return 0;
}

static int make_pair(struct keys *k, const char *path, struct err *err)
{
    char text[KEY_TEXT + 1];
    struct err ignored = {0};
    int rc;

    crypto_box_keypair(k->public_key, k->secret_key);
    key_line(k->secret_key, text);
    rc = files_write(path, text, 0, 1, &ignored);
    sodium_memzero(text, sizeof text);
    if (rc != 0 && ignored.kind != ERR_BUSY) /* busy: another process has just made it; what it made is read */
        return err_set(err, ignored.kind, "%s", ignored.text);
    return 0;
}

static int load_secret(struct keys *k, struct err *err)
{
    char path[FILES_MAX_PATH], text[KEY_FILE_BYTES];
    struct stat st;
    int rc = -1;

    if (files_path(path, k->dir, NULL, "node.secret", err) != 0)
        return -1;
    if (lstat(path, &st) != 0) {
        if (errno != ENOENT)
            return err_errno(err, errno, "%s", path);
        if (make_pair(k, path, err) != 0)
            return -1;
        if (lstat(path, &st) != 0)
            return err_errno(err, errno, "%s", path);
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return err_set(err, ERR_INPUT, "%s is no file of this user's", path);
    if (st.st_mode & 077)
        return err_set(err, ERR_INPUT, "%s can be read by others (mode %04o), so it is no secret: chmod 600 %s, or remove it to get a new one",
                       path, (unsigned)(st.st_mode & 07777), path);
    if (files_read(path, text, sizeof text, err) == 0 && key_parse(text, k->secret_key, err) == 0) {
        crypto_scalarmult_base(k->public_key, k->secret_key);
        rc = 0;
    } else {
        err_wrap(err, "%s", path);
    }
    sodium_memzero(text, sizeof text);
    return rc;
}

/* For people: the program does not read it. */
static int show_public(struct keys *k, struct err *err)
{
    char path[FILES_MAX_PATH], text[KEY_TEXT + 1], found[KEY_FILE_BYTES];
    struct err ignored;

    if (files_path(path, k->dir, NULL, "node.public", err) != 0)
        return -1;
    key_line(k->public_key, text);
    if (files_read(path, found, sizeof found, &ignored) == 0 && strcmp(found, text) == 0)
        return 0;
    return files_write(path, text, 1, 0, err);
}

struct keys *keys_open(const char *dir, const char *name, struct err *err)
{
    struct keys *k;
    size_t bytes;

    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium does not start"), NULL;
    if (!(k = mem_new(1, sizeof *k, err)))
        return NULL;
    pthread_mutex_init(&k->lock, NULL);
    sodium_mlock(k->secret_key, sizeof k->secret_key); /* not to be swapped out; a wish */
    if (!(k->dir = strdup(dir))) {
        err_set(err, ERR_MEMORY, "out of memory");
        goto failed;
    }
    bytes = strlen(k->dir) + sizeof "/trusted";
    if (!(k->trusted_dir = mem_new(1, bytes, err)))
        goto failed;
    snprintf(k->trusted_dir, bytes, "%s/trusted", k->dir);
    if (files_private_folder(k->dir, err) != 0 || files_private_folder(k->trusted_dir, err) != 0 || load_secret(k, err) != 0 ||
        show_public(k, err) != 0 || load_name(k, name, err) != 0)
        goto failed;
    keys_reload(k, NULL, NULL);
    return k;
failed:
    err_wrap(err, "keys");
    keys_close(k);
    return NULL;
}

void keys_close(struct keys *k)
{
    if (!k)
        return;
    sodium_munlock(k->secret_key, sizeof k->secret_key); /* wipes, too */
    pthread_mutex_destroy(&k->lock);
    free(k->dir);
    free(k->trusted_dir);
    free(k->list);
    free(k);
}

const char *keys_dir(const struct keys *k)
{
    return k->dir;
}

const char *keys_name(const struct keys *k)
{
    return k->name;
}

const uint8_t *keys_public(const struct keys *k)
{
    return k->public_key;
}

const uint8_t *keys_secret(const struct keys *k)
{
    return k->secret_key;
}

int keys_set_name(struct keys *k, const char *name, struct err *err)
{
    char path[FILES_MAX_PATH], text[MSG_MAX_NAME + 2];

    if (!msg_name_valid(name))
        return bad_name(name, err);
    snprintf(text, sizeof text, "%s\n", name);
    if (files_path(path, k->dir, NULL, "node.name", err) != 0 || files_write(path, text, 1, 0, err) != 0)
        return -1;
    snprintf(k->name, sizeof k->name, "%s", name);
    return 0;
}

/* --- whom it knows ----------------------------------------------------------------------------------------------------- */
static bool is_key_file(const char *file)
{
    size_t len = strlen(file);

    return file[0] != '.' && len > TRUSTED_SUFFIX && strcmp(file + len - TRUSTED_SUFFIX, ".pub") == 0;
}

/* A number that is another one when a key file came, went or was written. */
static uint64_t look_of(const char *dir)
{
    DIR *d = opendir(dir);
    uint64_t sum = 1;

    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        uint64_t h = 1469598103934665603u; /* FNV-1a; the sum does not depend on the folder's order */
        if (!is_key_file(e->d_name) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        uint64_t facts[] = {st.st_ino, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec, (uint64_t)st.st_ctim.tv_nsec,
                            (uint64_t)st.st_size, st.st_mode};
        for (const char *p = e->d_name; *p; p++)
            h = (h ^ (unsigned char)*p) * 1099511628211u;
        for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
            h = (h ^ facts[i]) * 1099511628211u;
        sum += h;
    }
    closedir(d);
    return sum;
}

static int read_trusted(const char *dir, const char *file, struct trusted *ret, struct err *err)
{
    char path[FILES_MAX_PATH], text[KEY_FILE_BYTES];
    size_t len = strlen(file) - TRUSTED_SUFFIX;
    struct stat st;

    if (files_path(path, dir, NULL, file, err) != 0)
        return -1;
    if (len > MSG_MAX_NAME)
        return err_set(err, ERR_INPUT, "%s: a name has at most %d characters", path, MSG_MAX_NAME);
    memcpy(ret->name, file, len);
    ret->name[len] = '\0';
    if (!msg_name_valid(ret->name)) {
        bad_name(ret->name, err);
        return err_wrap(err, "%s", path);
    }
    if (lstat(path, &st) != 0)
        return err_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return err_set(err, ERR_INPUT, "%s is no file of this user's, so it is passed over", path);
    if (st.st_mode & 022)
        return err_set(err, ERR_INPUT, "%s can be written by others (mode %04o), so it is passed over: chmod 600 %s", path,
                       (unsigned)(st.st_mode & 07777), path);
    if (files_read(path, text, sizeof text, err) != 0)
        return -1;
    return key_parse(text, ret->key, err) == 0 ? 0 : err_wrap(err, "%s", path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct trusted *)a)->name, ((const struct trusted *)b)->name);
}

/* The whole list anew; the first file that is none is told. */
static int read_list(const char *dir, struct trusted **ret_list, size_t *ret_len, struct err *err)
{
    struct trusted *list = NULL, one;
    size_t len = 0, cap = 0;
    struct err first = {0}, now;
    DIR *d = opendir(dir);

    if (!d)
        return err_errno(err, errno, "%s", dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (!is_key_file(e->d_name))
            continue;
        if (read_trusted(dir, e->d_name, &one, &now) != 0 ||
            mem_grow(&list, &cap, len + 1, sizeof *list, KEYS_MAX_TRUSTED, "trusted keys", &now) != 0) {
            if (!first.kind)
                first = now;
            continue;
        }
        list[len++] = one;
    }
    closedir(d);
    if (len)
        qsort(list, len, sizeof *list, by_name);
    *ret_list = list;
    *ret_len = len;
    return first.kind ? err_set(err, first.kind, "%s", first.text) : 0;
}

int keys_reload(struct keys *k, bool *ret_changed, struct err *err)
{
    uint64_t look = look_of(k->trusted_dir);
    struct trusted *list = NULL;
    size_t len = 0;
    bool changed;
    int rc;

    if (ret_changed)
        *ret_changed = false;
    pthread_mutex_lock(&k->lock);
    changed = look != k->look;
    pthread_mutex_unlock(&k->lock);
    if (!changed)
        return 0;
    rc = read_list(k->trusted_dir, &list, &len, err);
    pthread_mutex_lock(&k->lock);
    changed = len != k->len || (len && memcmp(list, k->list, len * sizeof *list) != 0);
    free(k->list);
    k->list = list;
    k->len = len;
    k->look = look;
    k->version += changed;
    pthread_mutex_unlock(&k->lock);
    if (ret_changed)
        *ret_changed = changed;
    return rc;
}

bool keys_find(struct keys *k, const uint8_t *key, char *ret_name)
{
    bool found = false;

    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->len && !found; i++)
        if (sodium_memcmp(k->list[i].key, key, KEY_BYTES) == 0) {
            memcpy(ret_name, k->list[i].name, MSG_MAX_NAME + 1);
            found = true;
        }
    pthread_mutex_unlock(&k->lock);
    return found;
}

bool keys_lookup(struct keys *k, const char *name, uint8_t *ret_key)
{
    bool found = false;

    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->len && !found; i++)
        if (strcmp(k->list[i].name, name) == 0) {
            memcpy(ret_key, k->list[i].key, KEY_BYTES);
            found = true;
        }
    pthread_mutex_unlock(&k->lock);
    return found;
}

size_t keys_count(struct keys *k)
{
    size_t n;

    pthread_mutex_lock(&k->lock);
    n = k->len;
    pthread_mutex_unlock(&k->lock);
    return n;
}

void keys_each(struct keys *k, void (*fn)(void *arg, const char *name, const uint8_t *key), void *arg)
{
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->len; i++)
        fn(arg, k->list[i].name, k->list[i].key);
    pthread_mutex_unlock(&k->lock);
}

int keys_check(struct keys *k, struct err *err)
{
    pthread_mutex_lock(&k->lock);
    k->look = 0;
    pthread_mutex_unlock(&k->lock);
    return keys_reload(k, NULL, err);
}

uint64_t keys_version(struct keys *k)
{
    uint64_t version;

    pthread_mutex_lock(&k->lock);
    version = k->version;
    pthread_mutex_unlock(&k->lock);
    return version;
}

int keys_trust(struct keys *k, const char *name, const uint8_t *key, struct err *err)
{
    char path[FILES_MAX_PATH], file[MSG_MAX_NAME + 8], text[KEY_TEXT + 1], known[MSG_MAX_NAME + 1];
    uint8_t other[KEY_BYTES];

    if (!msg_name_valid(name))
        return bad_name(name, err);
    keys_reload(k, NULL, NULL);
    if (keys_lookup(k, name, other)) {
        if (memcmp(other, key, KEY_BYTES) == 0)
            return 0;
        return err_set(err, ERR_BUSY, "another key is known as \"%s\": choose another name, or remove %s/%s.pub", name, k->trusted_dir, name);
    }
    if (keys_find(k, key, known))
        return err_set(err, ERR_BUSY, "this key is known as \"%s\" already", known);
    snprintf(file, sizeof file, "%s.pub", name);
    key_line(key, text);
    if (files_path(path, k->trusted_dir, NULL, file, err) != 0 || files_write(path, text, 0, 0, err) != 0)
        return -1;
    keys_reload(k, NULL, NULL);
    return 0;
}

/* "a, b, c" for a message. */
static void known_names(struct keys *k, char *buf, size_t cap)
{
    size_t at = 0;

    buf[0] = '\0';
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->len && at + MSG_MAX_NAME + 8 < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", k->list[i].name);
    pthread_mutex_unlock(&k->lock);
}

int keys_distrust(struct keys *k, const char *name, struct err *err)
{
    char path[FILES_MAX_PATH], file[MSG_MAX_NAME + 8], known[300];

    if (!msg_name_valid(name))
        return bad_name(name, err);
    snprintf(file, sizeof file, "%s.pub", name);
    if (files_path(path, k->trusted_dir, NULL, file, err) != 0)
        return -1;
    if (unlink(path) != 0) {
        if (errno != ENOENT)
            return err_errno(err, errno, "removing %s", path);
        known_names(k, known, sizeof known);
        return err_set(err, ERR_NOT_FOUND, "no node is known as \"%s\"; known are: %s", name, known[0] ? known : "none");
    }
    keys_reload(k, NULL, NULL);
    return 0;
}
