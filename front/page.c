/* See page.h. */
#include "front/page.h"

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void hash(const char *s, size_t len, char ret[PAGE_HASH_TEXT])
{
    unsigned char sum[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(sum, (const unsigned char *)s, len);
    sodium_bin2base64(ret, PAGE_HASH_TEXT, sum, sizeof sum, sodium_base64_VARIANT_ORIGINAL);
}

/* What stands between <tag> and </tag>, as a browser hashes it. */
static int hash_element(const char *open, const char *close, char ret[PAGE_HASH_TEXT], struct err *err)
{
    const char *page = (const char *)page_html, *from = memmem(page, page_html_bytes, open, strlen(open));
    const char *to;

    if (!from)
        return err_set(err, ERR_INTERNAL, "the page has no %s", open);
    from += strlen(open);
    to = memmem(from, page_html_bytes - (size_t)(from - page), close, strlen(close));
    if (!to)
        return err_set(err, ERR_INTERNAL, "the page has no %s", close);
    hash(from, (size_t)(to - from), ret);
    return 0;
}

int page_init(struct page *p, struct err *err)
{
    char script[PAGE_HASH_TEXT], style[PAGE_HASH_TEXT], whole[PAGE_HASH_TEXT];

    if (hash_element("<script>", "</script>", script, err) != 0 || hash_element("<style>", "</style>", style, err) != 0)
        return -1;
    hash((const char *)page_html, page_html_bytes, whole);
    snprintf(p->etag, sizeof p->etag, "\"%.27s\"", whole);
    snprintf(p->policy, sizeof p->policy,
             "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; connect-src 'self'; img-src data:; base-uri 'none'; "
             "form-action 'none'; frame-ancestors 'none'",
             script, style);
    return 0;
}

bool page_is_known(const struct page *p, const char *if_none_match)
{
    return if_none_match && (strstr(if_none_match, p->etag) || strcmp(if_none_match, "*") == 0);
}

bool page_may_gzip(const char *accept_encoding)
{
    for (const char *s = accept_encoding; s && *s;) {
        size_t len = strcspn(s, ",");
        const char *end = s + len;
        while (s < end && isspace((unsigned char)*s))
            s++;
        if ((size_t)(end - s) >= 4 && strncasecmp(s, "gzip", 4) == 0 && (s + 4 == end || strchr(" ;\t", s[4]))) {
            const char *q = memmem(s, (size_t)(end - s), "q=", 2);
            return !q || strtod(q + 2, NULL) > 0;
        }
        s = *end ? end + 1 : end;
    }
    return false;
}
