/* The default keys' folder. */
#include "cli/keydir.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
