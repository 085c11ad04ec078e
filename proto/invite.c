/* Invitations: see invite.h.
 *
 * Token: base64url, without padding, of
 *     u8 version, u64 expiry (little-endian, seconds since 1970), key[32], secret[32], u8 n, n × (u8 length, address),
 *     check[4] (BLAKE2b of all before it: tells a slip of the mouse from an attack)
 * Folder: invites/HASH while open, holding the expiry; renamed to invites/used-HASH by the one process that takes it up. */
#include "proto/invite.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/files.h"

enum {
    TOKEN_VERSION = 1,
    CHECK_BYTES = 4,
    TOKEN_FIXED = 1 + 8 + KEY_BYTES + INVITE_SECRET_BYTES + 1,
    TOKEN_MAX_BYTES = TOKEN_FIXED + INVITE_MAX_ADDRESSES * (1 + MSG_MAX_ADDRESS) + CHECK_BYTES,
    HASH_TEXT = 2 * crypto_generichash_BYTES + 1,
    FILE_BYTES = 64,
    USED_KEPT_S = 30 * 86400,
};
_Static_assert(MSG_MAX_ADDRESS <= 256, "its length stands in a byte");

static void hash_secret(const uint8_t *secret, char ret[HASH_TEXT])
{
    uint8_t hash[crypto_generichash_BYTES];

    crypto_generichash(hash, sizeof hash, secret, INVITE_SECRET_BYTES, (const uint8_t *)"stagecoach invite", 17);
    sodium_bin2hex(ret, HASH_TEXT, hash, sizeof hash);
}

static void check_bytes(const uint8_t *bytes, size_t len, uint8_t ret[CHECK_BYTES])
{
    uint8_t hash[crypto_generichash_BYTES];

    crypto_generichash(hash, sizeof hash, bytes, len, NULL, 0);
    memcpy(ret, hash, CHECK_BYTES);
}

static int invites_folder(struct keys *k, char path[FILES_MAX_PATH], struct err *err)
{
    if (files_path(path, keys_dir(k), NULL, "invites", err) != 0)
        return -1;
    return files_private_folder(path, err);
}

/* --- the coordinator's side -------------------------------------------------------------------------------------------- */
static bool is_open(const char *file)
{
    return strlen(file) == HASH_TEXT - 1 && strspn(file, "0123456789abcdef") == HASH_TEXT - 1;
}

static int read_expiry(const char *path, uint64_t *ret, struct err *err)
{
    char text[FILE_BYTES];

    if (files_read(path, text, sizeof text, err) != 0)
        return -1;
    if (sscanf(text, "expires %" SCNu64, ret) != 1)
        return err_set(err, ERR_INPUT, "%s is no invitation", path);
    return 0;
}

size_t invite_count(struct keys *k, uint64_t now_s)
{
    char folder[FILES_MAX_PATH], path[FILES_MAX_PATH];
    struct err ignored;
    size_t n = 0;
    DIR *d = files_path(folder, keys_dir(k), NULL, "invites", &ignored) == 0 ? opendir(folder) : NULL;

    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        uint64_t expires;
        struct stat st;
        if (files_path(path, folder, NULL, e->d_name, &ignored) != 0)
            continue;
        if (is_open(e->d_name)) {
            /* Expired ones stay a while, so that whoever comes late is told so. */
            if (read_expiry(path, &expires, &ignored) == 0 && now_s < expires)
                n++;
            else if (ignored.kind == ERR_NONE && now_s >= expires + USED_KEPT_S)
                unlink(path);
        } else if (strncmp(e->d_name, "used-", 5) == 0 && stat(path, &st) == 0 && now_s >= (uint64_t)st.st_ctime + USED_KEPT_S) {
            unlink(path);
        }
    }
    closedir(d);
    return n;
}

static int pack_token(const struct invite *in, char ret[INVITE_MAX_TOKEN])
{
    uint8_t bytes[TOKEN_MAX_BYTES], *p = bytes;

    *p++ = TOKEN_VERSION;
    for (int i = 0; i < 8; i++)
        *p++ = (uint8_t)(in->expires_s >> (8 * i));
    memcpy(p, in->key, KEY_BYTES);
    memcpy(p + KEY_BYTES, in->secret, INVITE_SECRET_BYTES);
    p += KEY_BYTES + INVITE_SECRET_BYTES;
    *p++ = (uint8_t)in->n_addresses;
    for (size_t i = 0; i < in->n_addresses; i++) {
        size_t len = strlen(in->addresses[i]);
        *p++ = (uint8_t)len;
        memcpy(p, in->addresses[i], len);
        p += len;
    }
    check_bytes(bytes, (size_t)(p - bytes), p);
    p += CHECK_BYTES;
    sodium_bin2base64(ret, INVITE_MAX_TOKEN, bytes, (size_t)(p - bytes), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(bytes, sizeof bytes);
    return 0;
}

static int take_addresses(const char *const *addresses, size_t n, struct invite *in, struct err *err)
{
    if (n == 0 || n > INVITE_MAX_ADDRESSES)
        return err_set(err, ERR_USAGE, "an invitation names 1 to %d addresses, not %zu", INVITE_MAX_ADDRESSES, n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(addresses[i]);
        if (strncmp(addresses[i], "tcp://", 6) != 0 || len >= MSG_MAX_ADDRESS)
            return err_set(err, ERR_USAGE, "\"%.100s\" cannot be joined from elsewhere: tcp://HOST:PORT is needed", addresses[i]);
        memcpy(in->addresses[i], addresses[i], len + 1);
    }
    in->n_addresses = n;
    return 0;
}

int invite_create(struct keys *k, const char *const *addresses, size_t n_addresses, uint64_t seconds, char ret_token[INVITE_MAX_TOKEN],
                  struct err *err)
{
    char folder[FILES_MAX_PATH], path[FILES_MAX_PATH], hash[HASH_TEXT], text[FILE_BYTES];
    struct invite in = {0};
    uint64_t now_s = (uint64_t)time(NULL);
    size_t n_open;

    if (seconds < 1 || seconds > INVITE_MAX_SECONDS)
        return err_set(err, ERR_USAGE, "an invitation lasts 1 s to %d days", INVITE_MAX_SECONDS / 86400);
    if (take_addresses(addresses, n_addresses, &in, err) != 0 || invites_folder(k, folder, err) != 0)
        return -1;
    n_open = invite_count(k, now_s);
    if (n_open >= INVITE_MAX_OPEN)
        return err_set(err, ERR_LIMIT, "%zu invitations are open, at most %d may be; remove some of %s", n_open, INVITE_MAX_OPEN, folder);
    in.expires_s = now_s + seconds;
    memcpy(in.key, keys_public(k), KEY_BYTES);
    randombytes_buf(in.secret, sizeof in.secret);
    hash_secret(in.secret, hash);
    snprintf(text, sizeof text, "expires %" PRIu64 "\n", in.expires_s);
    if (files_path(path, folder, NULL, hash, err) != 0 || files_write(path, text, 0, 0, err) != 0)
        return -1;
    pack_token(&in, ret_token);
    sodium_memzero(&in, sizeof in);
    return 0;
}

int invite_redeem(struct keys *k, const uint8_t *secret, const char *name, const uint8_t *key, uint64_t now_s, struct err *err)
{
    char folder[FILES_MAX_PATH], open_path[FILES_MAX_PATH], used_path[FILES_MAX_PATH], hash[HASH_TEXT], used[HASH_TEXT + 8];
    struct err ignored = {0};
    uint64_t expires;

    hash_secret(secret, hash);
    snprintf(used, sizeof used, "used-%s", hash);
    if (invites_folder(k, folder, err) != 0 || files_path(open_path, folder, NULL, hash, err) != 0 ||
        files_path(used_path, folder, NULL, used, err) != 0)
        return -1;
    if (read_expiry(open_path, &expires, &ignored) != 0)
        return err_set(err, ERR_INPUT, access(used_path, F_OK) == 0 ? "this invitation was used already: ask for another one"
                                                                    : "this invitation is not known here: ask for another one");
    if (now_s >= expires)
        return err_set(err, ERR_INPUT, "this invitation expired %" PRIu64 " s ago: ask for another one", now_s - expires);
    if (msg_name_reserved(name))
        return err_set(err, ERR_INPUT, "no worker can be called \"%s\", since topology files mean something else by it: choose another name (worker --name NAME)", name);
    /* Whoever renames it has it; the name is settled after that, and a name that cannot be had gives it back. */
    if (rename(open_path, used_path) != 0)
        return err_set(err, ERR_INPUT, "this invitation was used already: ask for another one");
    if (keys_trust(k, name, key, err) != 0) {
        rename(used_path, open_path);
        return -1;
    }
    return 0;
}

/* --- the joining side -------------------------------------------------------------------------------------------------- */
static int mistyped(struct err *err)
{
    return err_set(err, ERR_USAGE, "this is no invitation, or not all of it: copy the whole line that `stagecoach invite` printed");
}

static int unpack_addresses(const uint8_t *p, const uint8_t *end, struct invite *in)
{
    in->n_addresses = *p++;
    if (in->n_addresses == 0 || in->n_addresses > INVITE_MAX_ADDRESSES)
        return -1;
    for (size_t i = 0; i < in->n_addresses; i++) {
        size_t len = p < end ? *p++ : 0;
        if (len < 7 || len > (size_t)(end - p) || memchr(p, 0, len))
            return -1;
        memcpy(in->addresses[i], p, len);
        in->addresses[i][len] = '\0';
        p += len;
    }
    return p == end ? 0 : -1;
}

int invite_parse(const char *token, uint64_t now_s, struct invite *ret, struct err *err)
{
    uint8_t bytes[TOKEN_MAX_BYTES], check[CHECK_BYTES];
    struct invite in = {0};
    const char *end;
    size_t len, length = strnlen(token, INVITE_MAX_TOKEN);

    if (length == INVITE_MAX_TOKEN ||
        sodium_base642bin(bytes, sizeof bytes, token, length, " \r\n\t", &len, &end, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
        end != token + length || len < TOKEN_FIXED + CHECK_BYTES)
        return mistyped(err);
    check_bytes(bytes, len - CHECK_BYTES, check);
    if (memcmp(check, bytes + len - CHECK_BYTES, CHECK_BYTES) != 0)
        return mistyped(err);
    if (bytes[0] != TOKEN_VERSION)
        return err_set(err, ERR_USAGE, "this invitation is of version %d, here %d is known: the two programs' versions differ too much",
                       bytes[0], TOKEN_VERSION);
    for (int i = 0; i < 8; i++)
        in.expires_s |= (uint64_t)bytes[1 + i] << (8 * i);
    memcpy(in.key, bytes + 9, KEY_BYTES);
    memcpy(in.secret, bytes + 9 + KEY_BYTES, INVITE_SECRET_BYTES);
    if (unpack_addresses(bytes + TOKEN_FIXED - 1, bytes + len - CHECK_BYTES, &in) != 0)
        return mistyped(err);
    if (now_s >= in.expires_s)
        return err_set(err, ERR_USAGE, "this invitation expired %" PRIu64 " s ago: ask for another one (and is this machine's clock right?)",
                       now_s - in.expires_s);
    *ret = in;
    return 0;
}
