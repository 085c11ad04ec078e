/* The default keys' folder. */
#include "cli/keydir.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static int default_dir(char path[PATH_BYTES], struct err *err)
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
    n = snprintf(path, PATH_BYTES, "%s/%s", base, rest);
    return n > 0 && n < PATH_BYTES ? 0 : err_set(err, ERR_LIMIT, "the home folder's path is too long: give --keys DIR");
}

struct keys *keydir_open(const char *dir, const char *name, struct err *err)
{
    char path[PATH_BYTES];

    if (!dir && default_dir(path, err) != 0)
        return NULL;
    return keys_open(dir ? dir : path, name, err);
}
