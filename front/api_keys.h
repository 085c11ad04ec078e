#ifndef FRONT_API_KEYS_H
#define FRONT_API_KEYS_H

/* API keys and what each may use. A file has one key a line, behind it what it may, by default as much as there is:
 *
 *     KEY [at-once=N] [requests-per-minute=N] [tokens-per-minute=N] [name=NAME]     # a comment
 *
 * What is allowed a minute fills again evenly. Tokens are those of prompts and answers; an answer that runs is not cut, but
 * counts against the requests that follow. Keys are kept as hashes. Any thread. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "front/openai.h"

enum { API_KEYS_MAX = 1024, API_KEY_MIN_BYTES = 8, API_KEY_MAX_BYTES = 256, API_KEY_HASH_BYTES = 32, API_KEY_NAME_BYTES = 64 };

struct api_key {
    unsigned char hash[API_KEY_HASH_BYTES]; /* of equal length, compared in constant time */
    char name[API_KEY_NAME_BYTES];
    int64_t at_once, requests, tokens; /* a minute; 0: as many as there are */
    pthread_mutex_t lock;
    int64_t running;
    double requests_left, tokens_left;
    int64_t filled_ms;
};

struct api_keys {
    struct api_key *items;
    size_t n;
};

int api_keys_read(struct api_keys *k, const char *path, struct err *err);
void api_keys_fini(struct api_keys *k);
/* NULL: not known. */
struct api_key *api_keys_find(const struct api_keys *k, const char *key, size_t len);

/* A request begins; now_ms is any clock that goes forward. 0, or -1 and a 429 that says when to come again. */
int api_key_begin(struct api_key *k, int64_t now_ms, struct api_error *e);
void api_key_end(struct api_key *k);
/* It used so many tokens. k NULL: nobody's. */
void api_key_spend(struct api_key *k, uint64_t tokens);

#endif
