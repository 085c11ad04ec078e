/* See http_inner.h: https by libcurl. */
#include "config.h"

#include "cli/http_inner.h"

#ifdef HAVE_LIBCURL
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "cli/ui.h"

struct transfer {
    struct http_reply *reply;
    CURL *curl;
    struct err *err;
    int rc; /* of what took the body */
};

/* err of a transfer that failed. */
static int explain(CURLcode code, const char *words, const struct http_request *r, struct err *err)
{
    words = words[0] ? words : curl_easy_strerror(code);
    if (code == CURLE_SSL_CACERT_BADFILE)
        return err_set(err, ERR_INPUT, "--ca-file %.200s: %.200s", r->ca_file ? r->ca_file : "-", words);
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return err_set(err, ERR_IO, "%s: its certificate is not trusted: %.200s; --ca-file FILE names one to trust", r->url, words);
    return err_set(err, ERR_IO, "nobody answers at %s: %.200s", r->url, words);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    long status = 0;

    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    t->reply->status = (int)status;
    t->rc = http_reply_body(t->reply, data, size * n, t->err);
    return t->rc == 0 ? size * n : 0;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)arg, (void)a, (void)b, (void)c, (void)d;
    return ui_interrupted();
}

int http_curl(struct http_reply *reply, struct err *err)
{
    const struct http_request *r = reply->request;
    struct transfer t = {.reply = reply, .curl = curl_easy_init(), .err = err};
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    char url[HTTP_URL_BYTES + 256], words[CURL_ERROR_SIZE] = "", bearer[600];
    long status = 0;
    int rc = -1;

    if (!t.curl || !headers) {
        err_set(err, ERR_MEMORY, "%s: out of memory", r->url);
        goto done;
    }
    snprintf(url, sizeof url, "%.*s%s", (int)(strlen(r->url) - (r->url[strlen(r->url) - 1] == '/')), r->url, r->path);
    if (r->key) {
        snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", r->key);
        headers = curl_slist_append(headers, bearer);
    }
    curl_easy_setopt(t.curl, CURLOPT_URL, url);
    curl_easy_setopt(t.curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t.curl, CURLOPT_ERRORBUFFER, words);
    curl_easy_setopt(t.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(t.curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t.curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(t.curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(t.curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(t.curl, CURLOPT_CONNECTTIMEOUT_MS, (long)r->timeout_ms);
    curl_easy_setopt(t.curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(t.curl, CURLOPT_LOW_SPEED_TIME, (long)(r->timeout_ms + 999) / 1000);
    if (r->is_own)
        curl_easy_setopt(t.curl, CURLOPT_NOPROXY, "*");
    if (r->ca_file) {
        curl_easy_setopt(t.curl, CURLOPT_CAINFO, r->ca_file);
    } else if (r->is_own) {
        curl_easy_setopt(t.curl, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(t.curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (r->body)
        curl_easy_setopt(t.curl, CURLOPT_POSTFIELDS, r->body);
    CURLcode code = curl_easy_perform(t.curl);
    curl_easy_getinfo(t.curl, CURLINFO_RESPONSE_CODE, &status);
    reply->status = (int)status;
    if (code == CURLE_OK || t.rc == 1)
        rc = 0;
    else if (ui_interrupted())
        err_set(err, ERR_CANCELLED, "interrupted");
    else if (t.rc == 0)
        explain(code, words, r, err);
done:
    curl_slist_free_all(headers);
    curl_easy_cleanup(t.curl);
    return rc;
}

#else

int http_curl(struct http_reply *reply, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "%s: this program was built without libcurl, which speaks https", reply->request->url);
}

#endif
