#ifndef FRONT_PAGE_H
#define FRONT_PAGE_H

/* The page at "/": one file that the build puts together from web/ and that is part of the program. It loads nothing from
 * anywhere, and its Content-Security-Policy says so to the browser: scripts and styles are only those whose hashes are in it. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

extern const unsigned char page_html[], page_gzip[]; /* web/page_data.c */
extern const size_t page_html_bytes, page_gzip_bytes;

enum { PAGE_HASH_TEXT = 64, PAGE_POLICY_BYTES = 640 };

struct page {
    char etag[PAGE_HASH_TEXT], policy[PAGE_POLICY_BYTES];
};

/* Works out what is said with it. */
int page_init(struct page *p, struct err *err);
/* Whether a client that sends this If-None-Match (NULL: none) has it already. */
bool page_is_known(const struct page *p, const char *if_none_match);
/* Whether this Accept-Encoding (NULL: none) allows gzip. */
bool page_may_gzip(const char *accept_encoding);

#endif
