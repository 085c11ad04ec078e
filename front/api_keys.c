/* See api_keys.h. */
#include "front/api_keys.h"

#include <errno.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { LINE_BYTES = 1024, MINUTE_MS = 60000 };
#define LIMIT_MAX 1000000000000

static int hash(unsigned char *ret, const char *key, size_t len)
{
    return crypto_generichash(ret, API_KEY_HASH_BYTES, (const unsigned char *)key, len, NULL, 0);
}

/* --- the file -------------------------------------------------------------- */

static int read_limit(const char *word, const char *value, int64_t *ret, const char *path, unsigned line, struct err *err)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(value, &end, 10);
    if (end == value || *end || errno || n < 1 || n > LIMIT_MAX)
        return err_set(err, ERR_USAGE, "%s:%u: %s: a number from 1 to %lld is expected", path, line, word, (long long)LIMIT_MAX);
    *ret = n;
    return 0;
}

static int read_word(struct api_key *k, char *word, const char *path, unsigned line, struct err *err)
{
    char *value = strchr(word, '='), shown[64];

    if (value) {
        *value++ = '\0';
        if (strcmp(word, "at-once") == 0)
            return read_limit(word, value, &k->at_once, path, line, err);
        if (strcmp(word, "requests-per-minute") == 0)
            return read_limit(word, value, &k->requests, path, line, err);
        if (strcmp(word, "tokens-per-minute") == 0)
            return read_limit(word, value, &k->tokens, path, line, err);
        if (strcmp(word, "name") == 0) {
            snprintf(k->name, sizeof k->name, "%s", value);
            return 0;
        }
    } else if (!k->name[0]) {
        snprintf(k->name, sizeof k->name, "%s", word);
        return 0;
    }
    return err_set(err, ERR_USAGE,
                   "%s:%u: \"%s\" behind a key; name=, at-once=, requests-per-minute= and tokens-per-minute= are expected", path, line,
                   err_printable(shown, sizeof shown, word, strlen(word)));
}

static int read_line(struct api_keys *k, size_t *cap, char *line, const char *path, unsigned n, struct err *err)
{
    char *save = NULL, *word;
    struct api_key *key;

    line[strcspn(line, "#\r\n")] = '\0';
    if (!(word = strtok_r(line, " \t", &save)))
        return 0;
    if (strlen(word) < API_KEY_MIN_BYTES || strlen(word) > API_KEY_MAX_BYTES)
        return err_set(err, ERR_USAGE, "%s:%u: a key of %zu characters; %d to %d are allowed", path, n, strlen(word), API_KEY_MIN_BYTES,
                       API_KEY_MAX_BYTES);
    if (mem_grow(&k->items, cap, k->n + 1, sizeof *k->items, API_KEYS_MAX, "API keys", err) != 0)
        return err_wrap(err, "%s", path);
    key = &k->items[k->n++];
    *key = (struct api_key){0};
    hash(key->hash, word, strlen(word));
    while ((word = strtok_r(NULL, " \t", &save)))
        if (read_word(key, word, path, n, err) != 0)
            return -1;
    return 0;
}

int api_keys_read(struct api_keys *k, const char *path, struct err *err)
{
    char line[LINE_BYTES];
    size_t cap = 0;
    unsigned n = 0;
    int rc = 0;
    FILE *f = fopen(path, "re");

    *k = (struct api_keys){0};
    if (!f)
        return err_errno(err, errno, "the API keys in %s", path);
    while (rc == 0 && fgets(line, sizeof line, f)) {
        n++;
        if (!line[0])
            rc = err_set(err, ERR_USAGE, "%s:%u: a byte of value 0: keys are text, one a line", path, n);
        else if (!strchr(line, '\n') && strlen(line) + 1 == sizeof line)
            rc = err_set(err, ERR_USAGE, "%s:%u: the line is longer than %zu bytes", path, n, sizeof line - 2);
        else
            rc = read_line(k, &cap, line, path, n, err);
        sodium_memzero(line, sizeof line);
    }
    if (rc == 0 && ferror(f))
        rc = err_errno(err, errno, "the API keys in %s", path);
    fclose(f);
    for (size_t i = 0; i < k->n; i++) { /* the items do not move any more */
        pthread_mutex_init(&k->items[i].lock, NULL);
        k->items[i].requests_left = (double)k->items[i].requests;
        k->items[i].tokens_left = (double)k->items[i].tokens;
    }
    if (rc == 0 && k->n == 0)
        return err_set(err, ERR_USAGE, "%s holds no key; write one a line", path);
    return rc;
}

void api_keys_fini(struct api_keys *k)
{
    for (size_t i = 0; i < k->n; i++)
        pthread_mutex_destroy(&k->items[i].lock);
    free(k->items);
    *k = (struct api_keys){0};
}

struct api_key *api_keys_find(const struct api_keys *k, const char *key, size_t len)
{
    unsigned char given[API_KEY_HASH_BYTES];
    struct api_key *found = NULL;

    hash(given, key, len);
    for (size_t i = 0; i < k->n; i++) /* all of them: how long it takes says nothing */
        if (sodium_memcmp(given, k->items[i].hash, sizeof given) == 0)
            found = &k->items[i];
    return found;
}

/* --- what is used ---------------------------------------------------------- */

static void fill(double *left, int64_t limit, int64_t ms)
{
    double more = *left + (double)limit * (double)ms / MINUTE_MS;
    *left = more < (double)limit ? more : (double)limit;
}

/* Until `missing` of what comes evenly is there. */
static unsigned seconds_until(double missing, int64_t limit)
{
    double s = ceil(missing * 60 / (double)limit);
    return s < 1 ? 1 : s > 3600 ? 3600 : (unsigned)s;
}

static int refuse(struct api_error *e, unsigned retry_s, int64_t limit, const char *what)
{
    api_fail(e, 429, "rate_limit_error", "rate_limit_exceeded", "this API key may have %lld %s; try again in %u s", (long long)limit, what,
             retry_s);
    e->retry_s = retry_s;
    return -1;
}

int api_key_begin(struct api_key *k, int64_t now_ms, struct api_error *e)
{
    int rc = 0;

    if (!k)
        return 0;
    pthread_mutex_lock(&k->lock);
    fill(&k->requests_left, k->requests, k->filled_ms ? now_ms - k->filled_ms : 0);
    fill(&k->tokens_left, k->tokens, k->filled_ms ? now_ms - k->filled_ms : 0);
    k->filled_ms = now_ms;
    if (k->at_once && k->running >= k->at_once)
        rc = refuse(e, 1, k->at_once, k->at_once == 1 ? "request at once" : "requests at once");
    else if (k->requests && k->requests_left < 1)
        rc = refuse(e, seconds_until(1 - k->requests_left, k->requests), k->requests, k->requests == 1 ? "request a minute" : "requests a minute");
    else if (k->tokens && k->tokens_left <= 0)
        rc = refuse(e, seconds_until(1 - k->tokens_left, k->tokens), k->tokens, k->tokens == 1 ? "token a minute" : "tokens a minute");
    if (rc == 0) {
        k->running++;
        k->requests_left -= 1;
    }
    pthread_mutex_unlock(&k->lock);
    return rc;
}

void api_key_end(struct api_key *k)
{
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    k->running--;
    pthread_mutex_unlock(&k->lock);
}

void api_key_spend(struct api_key *k, uint64_t tokens)
{
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    k->tokens_left -= (double)tokens;
    pthread_mutex_unlock(&k->lock);
}
