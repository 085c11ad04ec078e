/* See guard.h. */
#include "front/guard.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

static int hash(unsigned char *ret, const char *key, size_t len)
{
    return crypto_generichash(ret, GUARD_HASH_BYTES, (const unsigned char *)key, len, NULL, 0);
}

static int add_key(struct guard *g, size_t *cap, const char *path, unsigned line, const char *s, size_t len, struct err *err)
{
    if (len < GUARD_KEY_MIN_BYTES || len > GUARD_KEY_MAX_BYTES)
        return err_set(err, ERR_USAGE, "%s:%u: a key of %zu characters; %d to %d are allowed", path, line, len, GUARD_KEY_MIN_BYTES,
                       GUARD_KEY_MAX_BYTES);
    if (mem_grow(&g->keys, cap, g->n_keys + 1, sizeof *g->keys, GUARD_MAX_KEYS, "API keys", err) != 0)
        return err_wrap(err, "%s", path);
    hash(g->keys[g->n_keys++], s, len);
    return 0;
}

static int read_keys(struct guard *g, const char *path, struct err *err)
{
    char line[1024];
    size_t cap = 0;
    unsigned n = 0;
    int rc = 0;
    FILE *f = fopen(path, "re");

    if (!f)
        return err_errno(err, errno, "the API keys in %s", path);
    while (rc == 0 && fgets(line, sizeof line, f)) {
        char *s = line + strspn(line, " \t");
        size_t len = strcspn(s, "# \t\r\n");
        n++;
        if (!strchr(line, '\n') && strlen(line) + 1 == sizeof line)
            rc = err_set(err, ERR_USAGE, "%s:%u: the line is longer than %zu bytes", path, n, sizeof line - 2);
        else if (len > 0)
            rc = add_key(g, &cap, path, n, s, len, err);
        sodium_memzero(line, sizeof line);
    }
    fclose(f);
    if (rc == 0 && g->n_keys == 0)
        return err_set(err, ERR_USAGE, "%s holds no key; write one a line", path);
    return rc;
}

int guard_init(struct guard *g, const char *key_file, bool loopback, const char *const *hosts, size_t n_hosts, const char *cors,
               struct err *err)
{
    *g = (struct guard){.hosts = hosts, .n_hosts = n_hosts, .cors = cors, .loopback = loopback};
    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium cannot begin");
    return key_file ? read_keys(g, key_file, err) : 0;
}

void guard_fini(struct guard *g)
{
    free(g->keys);
    *g = (struct guard){0};
}

static int check_key(const struct guard *g, const char *authorization, struct api_error *e)
{
    static const char bearer[] = "Bearer ";
    unsigned char given[GUARD_HASH_BYTES];
    int found = 0;

    if (!authorization || strncasecmp(authorization, bearer, sizeof bearer - 1) != 0)
        return api_fail(e, 401, "authentication_error", "missing_api_key", "an API key is needed, as \"Authorization: Bearer KEY\"");
    authorization += sizeof bearer - 1;
    hash(given, authorization, strlen(authorization));
    for (size_t i = 0; i < g->n_keys; i++) /* all of them: how long it takes says nothing */
        found |= sodium_memcmp(given, g->keys[i], sizeof given) == 0;
    return found ? 0 : api_fail(e, 401, "authentication_error", "invalid_api_key", "this API key is not known here");
}

/* "localhost", "127.x.y.z", "::1" and what else was named. */
static bool is_our_host(const struct guard *g, const char *host, size_t len)
{
    static const char *const loopbacks[] = {"localhost", "[::1]", "::1"};
    size_t dots = 0, i = 0;

    for (size_t k = 0; k < sizeof loopbacks / sizeof *loopbacks; k++)
        if (strlen(loopbacks[k]) == len && strncasecmp(host, loopbacks[k], len) == 0)
            return true;
    for (size_t k = 0; k < g->n_hosts; k++)
        if (strlen(g->hosts[k]) == len && strncasecmp(host, g->hosts[k], len) == 0)
            return true;
    while (i < len && ((host[i] >= '0' && host[i] <= '9') || host[i] == '.'))
        dots += host[i++] == '.';
    return len > 4 && i == len && dots == 3 && strncmp(host, "127.", 4) == 0;
}

/* The name before ":PORT". */
static size_t name_len(const char *host)
{
    const char *bracket = host[0] == '[' ? strchr(host, ']') : NULL;
    return bracket ? (size_t)(bracket - host) + 1 : strcspn(host, ":");
}

bool guard_allows_origin(const struct guard *g, const char *origin)
{
    return g->cors && (strcmp(g->cors, "*") == 0 || strcasecmp(g->cors, origin) == 0);
}

/* A page of our own has the origin that its Host says. */
static bool is_own_origin(const char *origin, const char *host)
{
    const char *at = strstr(origin, "://");
    return at && host && strcasecmp(at + 3, host) == 0;
}

int guard_check(const struct guard *g, const char *authorization, const char *host, const char *origin, bool is_open, struct api_error *e)
{
    char shown[96];

    if (g->loopback && host && !is_our_host(g, host, name_len(host)))
        return api_fail(e, 403, "permission_error", "unknown_host",
                        "the Host \"%s\" is not known here; serve with --allow-host to answer to it",
                        err_printable(shown, sizeof shown, host, strlen(host)));
    if (origin && !is_own_origin(origin, host) && !guard_allows_origin(g, origin))
        return api_fail(e, 403, "permission_error", "unknown_origin", "pages from \"%s\" may not ask here; serve with --cors to allow them",
                        err_printable(shown, sizeof shown, origin, strlen(origin)));
    return g->n_keys && !is_open ? check_key(g, authorization, e) : 0;
}
