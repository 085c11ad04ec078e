#ifndef FRONT_GUARD_H
#define FRONT_GUARD_H

/* Who may ask: API keys, and on loopback the names in Host and Origin, so that no web page that somebody has open can reach
 * a server on their machine (by a foreign origin, or by DNS that leads to 127.0.0.1). Immutable after guard_init, but for what keys have used. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "front/api_keys.h"
#include "front/openai.h"

struct guard {
    struct api_keys keys;
    const char *admin_key; /* of who may do everything; NULL: nobody may */
    const char *const *hosts;
    size_t n_hosts;
    const char *cors;
    bool loopback;
};

/* Who is asked for before something is answered. */
enum guard_door { GUARD_OPEN, GUARD_KEY, GUARD_ADMIN };

/* key_file: see api_keys.h; NULL: no keys. The rest is borrowed. */
int guard_init(struct guard *g, const char *key_file, const char *admin_key, bool loopback, const char *const *hosts, size_t n_hosts, const char *cors,
               struct err *err);
void guard_fini(struct guard *g);

/* Headers of a request, NULL where absent. GUARD_KEY asks for nothing where there are no keys, GUARD_ADMIN always
 * for the admin's, which opens the rest too. 0 and whose request it is (NULL: nobody's), or -1 and
 * a 401 or 403. */
int guard_check(const struct guard *g, const char *authorization, const char *host, const char *origin, enum guard_door door, struct api_key **ret_key,
                struct api_error *e);
/* Whether pages of this origin may read answers. */
bool guard_allows_origin(const struct guard *g, const char *origin);

#endif
