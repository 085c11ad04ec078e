/* See pull.h: what is fetched, from where, to where. */
#include "config.h"

#include "cli/pull_inner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/ui.h"

bool pull_is_remote(const char *model)
{
    return strncmp(model, "hf:", 3) == 0 || strncmp(model, "http://", 7) == 0 || strncmp(model, "https://", 8) == 0;
}

/* What a name holds: "a-00002-of-00005.gguf" has a place for a number and a total; others are one file. */
struct source {
    char before[PULL_URL], after[128]; /* of the URL, around a part's number; after "": one file */
    char folder[PULL_PATH / 2];        /* under the models' folder */
    char name[256];                    /* the first part's */
    unsigned parts, digits_at;
    const char *token;
};

/* Nothing that leads out of a folder, or looks odd in one. */
static bool is_plain(const char *s, size_t len)
{
    if (len == 0 || len > 200 || s[0] == '.' || s[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9') || strchr("._-+", s[i])))
            return false;
    return true;
}

/* The token goes over the net in the clear to nobody but this machine. */
static bool may_show_token(const char *endpoint)
{
    return strncmp(endpoint, "https://", 8) == 0 || strncmp(endpoint, "http://127.0.0.1:", 17) == 0;
}

/* hf:OWNER/REPO:FILE, FILE perhaps in a folder of the repository */
static int parse_hub(const char *from, struct source *s, char url[PULL_URL], struct err *err)
{
    const char *endpoint = getenv("HF_ENDPOINT"), *token = getenv("HF_TOKEN");
    const char *owner = from + 3, *slash = strchr(owner, '/'), *colon = slash ? strchr(slash, ':') : NULL;
    const char *file = colon ? colon + 1 : "";

    if (!colon || !is_plain(owner, (size_t)(slash - owner)) || !is_plain(slash + 1, (size_t)(colon - slash - 1)))
        return err_set(err, ERR_USAGE, "\"%.200s\": hf:OWNER/REPO:FILE is expected, such as hf:someone/some-model-GGUF:some-model-Q4_K_M.gguf", from);
    for (const char *at = file; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        if (!is_plain(at, strcspn(at, "/")))
            return err_set(err, ERR_USAGE, "\"%.200s\": \"%.100s\" is no file's name", from, at);
    endpoint = endpoint && *endpoint ? endpoint : "https://huggingface.co";
    if (token && *token && may_show_token(endpoint))
        s->token = token;
    if (snprintf(url, PULL_URL, "%s/%.*s/resolve/main/%s", endpoint, (int)(colon - owner), owner, file) >= PULL_URL ||
        snprintf(s->folder, sizeof s->folder, "%.*s", (int)(colon - owner), owner) >= (int)sizeof s->folder)
        return err_set(err, ERR_USAGE, "\"%.200s…\" is too long", from);
    return 0;
}

static int parse_url(const char *from, struct source *s, char url[PULL_URL], struct err *err)
{
    const char *host = strstr(from, "://") + 3;
    size_t len = strcspn(host, "/?#");
    const char *at = memchr(host, '@', len);

    if (len == 0 || len > 250 || at || snprintf(url, PULL_URL, "%s", from) >= PULL_URL)
        return err_set(err, ERR_USAGE, "\"%.200s\": a URL such as https://host/folder/model.gguf is expected", from);
    for (size_t i = 0; i <= len; i++)
        s->folder[i] = i == len ? '\0' : host[i] == ':' || host[i] == '[' || host[i] == ']' ? '_' : host[i];
    return 0;
}

/* The name at the URL's end, and whether it is a part of several. */
static int parse_name(const char *url, struct source *s, struct err *err)
{
    size_t path = strcspn(url, "?#"), start = path, of, total;
    char end;

    while (start > 0 && url[start - 1] != '/')
        start--;
    size_t len = path - start;
    if (!is_plain(url + start, len) || len < 6 || strncmp(url + path - 5, ".gguf", 5) != 0)
        return err_set(err, ERR_USAGE, "%.300s: a name that ends in .gguf is expected, of letters, digits and . _ - +", url);
    snprintf(s->name, sizeof s->name, "%.*s", (int)len, url + start);
    snprintf(s->before, sizeof s->before, "%s", url);
    s->parts = 1;
    const char *tail = len > 20 ? s->name + len - 20 : ""; /* "-00001-of-00005.gguf" */
    if (sscanf(tail, "-%5zu-of-%5zu.ggu%c", &of, &total, &end) == 3 && tail[6] == '-' && tail[9] == '-') {
        if (total < 1 || total > PULL_MAX_PARTS || of < 1 || of > total)
            return err_set(err, ERR_USAGE, "%s: part %zu of %zu; at most %d parts are allowed", s->name, of, total, PULL_MAX_PARTS);
        s->parts = (unsigned)total;
        s->digits_at = (unsigned)(len - 19);
        s->before[start + s->digits_at] = '\0';
        if (snprintf(s->after, sizeof s->after, "%s", url + start + s->digits_at + 5) >= (int)sizeof s->after)
            return err_set(err, ERR_USAGE, "%.300s: more than %zu characters behind a part's number", url, sizeof s->after - 1);
        memcpy(s->name + s->digits_at, "00001", 5);
    }
    return 0;
}

static int make_folders(char *path, struct err *err)
{
    for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
        *s = '\0';
        int rc = mkdir(path, 0777), failed = errno;
        *s = '/';
        if (rc != 0 && failed != EEXIST)
            return err_errno(err, failed, "making the folder for %s", path);
    }
    return 0;
}

/* ${XDG_DATA_HOME:-~/.local/share}/stagecoach/models */
static int models_folder(char *path, size_t size, struct err *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n = -1;

    if (data && *data == '/')
        n = snprintf(path, size, "%s/stagecoach/models", data);
    else if (home && *home == '/')
        n = snprintf(path, size, "%s/.local/share/stagecoach/models", home);
    return n > 0 && (size_t)n < size ? 0 : err_set(err, ERR_NOT_FOUND, "there is no home folder to keep models in: give --dir");
}

static int path_of_part(const struct pull_options *o, const struct source *s, unsigned part, char path[PULL_PATH], struct err *err)
{
    char folder[PULL_PATH / 2], name[sizeof s->name], digits[8];
    int n;

    snprintf(name, sizeof name, "%s", s->name);
    snprintf(digits, sizeof digits, "%05u", part % 100000);
    if (s->after[0])
        memcpy(name + s->digits_at, digits, 5);
    if (!o->dir && models_folder(folder, sizeof folder, err) != 0)
        return -1;
    n = o->dir ? snprintf(path, PULL_PATH, "%s/%s", o->dir, name) : snprintf(path, PULL_PATH, "%s/%s/%s", folder, s->folder, name);
    if (n < 0 || n + 16 > PULL_PATH)
        return err_set(err, ERR_LIMIT, "the path for %s is too long", name);
    return make_folders(path, err);
}

static int pull_part(const struct pull_options *o, const struct source *s, unsigned part, char path[PULL_PATH], struct err *err)
{
    struct pull_file f = {.token = s->token, .ca_file = o->ca_file, .sha256 = part <= o->sha256.len ? o->sha256.items[part - 1] : NULL};
    char url[PULL_URL + 256];

    if (path_of_part(o, s, part, path, err) != 0)
        return -1;
    if (!f.sha256 && access(path, F_OK) == 0)
        return 0;
    snprintf(f.path, sizeof f.path, "%s", path);
    if (s->after[0])
        snprintf(url, sizeof url, "%s%05u%s", s->before, part, s->after);
    else
        snprintf(url, sizeof url, "%s", s->before);
    f.url = url;
    return pull_file(&f, err);
}

int pull_model(const struct pull_options *o, char ret_path[PULL_PATH], struct err *err)
{
    struct source s = {0};
    char url[PULL_URL], path[PULL_PATH];
    bool hub = strncmp(o->from, "hf:", 3) == 0;

    if (!pull_is_remote(o->from))
        return err_set(err, ERR_USAGE, "\"%.200s\" is neither hf:OWNER/REPO:FILE nor a URL that begins with https:// or http://", o->from);
    if ((hub ? parse_hub(o->from, &s, url, err) : parse_url(o->from, &s, url, err)) != 0 || parse_name(url, &s, err) != 0)
        return -1;
    if (o->sha256.len && o->sha256.len != s.parts)
        return err_set(err, ERR_USAGE, "--sha256: %zu given, the model has %u file%s", o->sha256.len, s.parts, s.parts == 1 ? "" : "s");
    for (size_t i = 0; i < o->sha256.len; i++)
        if (strlen(o->sha256.items[i]) != 64 || strspn(o->sha256.items[i], "0123456789abcdefABCDEF") != 64)
            return err_set(err, ERR_USAGE, "--sha256: \"%.70s\" is no SHA-256; 64 hexadecimal digits are expected", o->sha256.items[i]);
    for (unsigned part = 1; part <= s.parts; part++)
        if (pull_part(o, &s, part, part == 1 ? ret_path : path, err) != 0)
            return -1;
    return 0;
}
