/* Errors as OpenAI shows them. See openai.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "front/openai.h"

__attribute__((format(printf, 2, 0))) static void set_message(struct api_error *e, const char *fmt, va_list args)
{
    struct err cut; /* its setter cuts long texts at a character */
    struct strbuf text;

    strbuf_init(&text, sizeof e->message * 8);
    strbuf_vprintf(&text, fmt, args);
    err_set(&cut, ERR_INPUT, "%s", strbuf_str(&text));
    strbuf_fini(&text);
    snprintf(e->message, sizeof e->message, "%s", cut.text);
}

int api_refuse(struct api_error *e, const char *param, const char *fmt, ...)
{
    va_list args;

    *e = (struct api_error){.status = 400, .type = "invalid_request_error"};
    if (param)
        snprintf(e->param, sizeof e->param, "%s", param);
    va_start(args, fmt);
    set_message(e, fmt, args);
    va_end(args);
    return -1;
}

int api_fail(struct api_error *e, int status, const char *type, const char *code, const char *fmt, ...)
{
    va_list args;

    *e = (struct api_error){.status = status, .type = type, .code = code};
    va_start(args, fmt);
    set_message(e, fmt, args);
    va_end(args);
    return -1;
}

int api_from_err(struct api_error *e, const struct err *err)
{
    int status = err_http_status(err->kind);
    const char *type = status == 429 ? "rate_limit_error" : status < 500 ? "invalid_request_error" : "server_error";
    return api_fail(e, status, type, err_kind_name(err->kind), "%s", err->text);
}

void api_error_json(const struct api_error *e, struct strbuf *out)
{
    strbuf_puts(out, "{\"error\":{\"message\":");
    strbuf_json(out, e->message, strlen(e->message));
    strbuf_puts(out, ",\"type\":");
    strbuf_json(out, e->type, strlen(e->type));
    strbuf_puts(out, ",\"param\":");
    if (e->param[0])
        strbuf_json(out, e->param, strlen(e->param));
    else
        strbuf_puts(out, "null");
    strbuf_puts(out, ",\"code\":");
    if (e->code)
        strbuf_json(out, e->code, strlen(e->code));
    else
        strbuf_puts(out, "null");
    strbuf_puts(out, "}}");
}

