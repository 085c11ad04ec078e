/* The default keys' folder. */
#include "cli/keydir.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/wire.h"

static int default_dir(char path[KEYDIR_PATH], struct err *err)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *rest = "stagecoach";
    struct passwd *user = NULL;
    int n;

    if (!base || base[0] != '/') {
        base = getenv("HOME");
        rest = ".config/stagecoach";
        if ((!base || base[0] != '/') && (user = getpwuid(geteuid())) != NULL)
            base = user->pw_dir;
    }
    if (!base || base[0] != '/')
        return err_set(err, ERR_NOT_FOUND, "there is no home folder to keep keys in: give --keys DIR");
    n = snprintf(path, KEYDIR_PATH, "%s/%s", base, rest);
    return n > 0 && n < KEYDIR_PATH ? 0 : err_set(err, ERR_LIMIT, "the home folder's path is too long: give --keys DIR");
}

int keydir_find(const char *dir, char ret[KEYDIR_PATH], struct err *err)
{
    if (!dir)
        return default_dir(ret, err);
    if (snprintf(ret, KEYDIR_PATH, "%s", dir) >= KEYDIR_PATH)
        return err_set(err, ERR_LIMIT, "--keys: a path of %zu bytes, at most %d allowed", strlen(dir), KEYDIR_PATH - 1);
    return 0;
}

struct keys *keydir_open(const char *dir, const char *name, struct err *err)
{
    char path[KEYDIR_PATH];
    return keydir_find(dir, path, err) == 0 ? keys_open(path, name, err) : NULL;
}

struct only {
    size_t n;
    uint8_t key[KEY_BYTES];
};

static void note_key(void *arg, const char *name, const uint8_t *key)
{
    struct only *o = arg;
    (void)name;
    o->n++;
    memcpy(o->key, key, sizeof o->key);
}

const char *keydir_peer(struct keys *k, const char *option, const char *text, uint8_t key[KEY_BYTES], struct err *err)
{
    const char *at = strchr(text, '@'), *address = at ? at + 1 : text;
    char name[MSG_MAX_NAME + 1] = "";
    struct only only = {0};

    if (wire_address_check(address, false, err) != 0) {
        err_wrap(err, "%s", option);
        return NULL;
    }
    if (at && at - text <= MSG_MAX_NAME)
        memcpy(name, text, (size_t)(at - text));
    if (at && !keys_lookup(k, name, key))
        return err_set(err, ERR_NOT_FOUND, "%s %s: no key is trusted by that name; \"stagecoach keygen --trust NAME=KEY\" does it", option, text), NULL;
    if (!at) {
        keys_each(k, note_key, &only);
        if (only.n != 1)
            return err_set(err, ERR_USAGE, "%s %s: %zu nodes are trusted; %s", option, text, only.n,
                           only.n ? "say which by NAME@ADDRESS" : "\"stagecoach keygen --trust NAME=KEY\" adds one"),
                   NULL;
        memcpy(key, only.key, sizeof only.key);
    }
    return address;
}
