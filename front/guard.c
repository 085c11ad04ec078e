/* See guard.h. */
#include "front/guard.h"

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/hostport.h"

enum { ORIGIN_BYTES = 300 };

/* As browsers send it: scheme://host, and a port where it is not the scheme's own. */
static bool is_origin(const char *text)
{
    char with_port[ORIGIN_BYTES], host[ORIGIN_BYTES];
    const char *at = strstr(text, "://"), *port;
    size_t scheme = at ? (size_t)(at - text) : 0;

    if (scheme == 0 || !isalpha((unsigned char)text[0]) || strlen(text) + 3 > sizeof with_port)
        return false;
    for (size_t i = 0; i < scheme; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("+-.", text[i]))
            return false;
    at += 3;
    const char *colon = strrchr(at, ':'), *bracket = strrchr(at, ']');
    snprintf(with_port, sizeof with_port, "%s%s", at, colon && (!bracket || colon > bracket) ? "" : ":1");
    if (!hostport_split(with_port, host, sizeof host, &port) || !hostport_host_valid(host) || !hostport_port_valid(port, false))
        return false;
    return strcmp(port, strncasecmp(text, "https:", 6) == 0 ? "443" : strncasecmp(text, "http:", 5) == 0 ? "80" : "") != 0;
}

static int check_cors(const char *origin, struct err *err)
{
    char shown[ORIGIN_BYTES];

    if (!origin || strcmp(origin, "*") == 0 || is_origin(origin))
        return 0;
    return err_set(err, ERR_USAGE, "--cors: \"%s\" is no origin as browsers send it: scheme://host, or scheme://host:port where the port is not the "
                   "scheme's own, without a path, such as https://app.example; or \"*\" for all", err_printable(shown, sizeof shown, origin, strlen(origin)));
}

int guard_init(struct guard *g, const char *key_file, const char *admin_key, bool loopback, const char *const *hosts, size_t n_hosts, const char *cors,
               struct err *err)
{
    *g = (struct guard){.hosts = hosts, .n_hosts = n_hosts, .cors = cors, .admin_key = admin_key, .loopback = loopback};
    if (check_cors(cors, err) != 0)
        return -1;
    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium cannot begin");
    return key_file ? api_keys_read(&g->keys, key_file, err) : 0;
}

void guard_fini(struct guard *g)
{
    api_keys_fini(&g->keys);
    *g = (struct guard){0};
}

/* Keys of any length, in a time that tells nothing about where they differ. */
static bool is_admin(const struct guard *g, const char *given)
{
    unsigned char hashes[2][crypto_generichash_BYTES];

    if (!g->admin_key)
        return false;
    crypto_generichash(hashes[0], sizeof hashes[0], (const unsigned char *)given, strlen(given), NULL, 0);
    crypto_generichash(hashes[1], sizeof hashes[1], (const unsigned char *)g->admin_key, strlen(g->admin_key), NULL, 0);
    return sodium_memcmp(hashes[0], hashes[1], sizeof hashes[0]) == 0;
}

static int check_key(const struct guard *g, const char *authorization, enum guard_door door, struct api_key **ret_key, struct api_error *e)
{
    static const char bearer[] = "Bearer ";

    if (!authorization || strncasecmp(authorization, bearer, sizeof bearer - 1) != 0)
        return api_fail(e, 401, "authentication_error", "missing_api_key", "an API key is needed, as \"Authorization: Bearer KEY\"");
    authorization += sizeof bearer - 1;
    if (is_admin(g, authorization))
        return 0;
    *ret_key = api_keys_find(&g->keys, authorization, strlen(authorization));
    if (*ret_key && door == GUARD_ADMIN)
        return api_fail(e, 403, "permission_error", "not_admin", "this API key may use the model, but not change the cluster");
    return *ret_key ? 0 : api_fail(e, 401, "authentication_error", "invalid_api_key", "this API key is not known here");
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

int guard_check(const struct guard *g, const char *authorization, const char *host, const char *origin, enum guard_door door, struct api_key **ret_key,
                struct api_error *e)
{
    char shown[96];

    *ret_key = NULL;
    if (g->loopback && host && !is_our_host(g, host, name_len(host)))
        return api_fail(e, 403, "permission_error", "unknown_host",
                        "the Host \"%s\" is not known here; serve with --allow-host to answer to it",
                        err_printable(shown, sizeof shown, host, strlen(host)));
    if (origin && !is_own_origin(origin, host) && !guard_allows_origin(g, origin))
        return api_fail(e, 403, "permission_error", "unknown_origin", "pages from \"%s\" may not ask here; serve with --cors to allow them",
                        err_printable(shown, sizeof shown, origin, strlen(origin)));
    return door == GUARD_ADMIN || (g->keys.n && door != GUARD_OPEN) ? check_key(g, authorization, door, ret_key, e) : 0;
}
