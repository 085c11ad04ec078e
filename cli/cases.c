/* See cases.h. */
#include "cli/cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

enum { REFERENCE_MAX_CASES = 1 << 16, REFERENCE_MAX_TOKENS = 1 << 20 };

/* --- writing ------------------------------------------------------------- */

static void write_ids(struct strbuf *out, const char *name, const int32_t *ids, size_t n)
{
    strbuf_printf(out, ", \"%s\": [", name);
    for (size_t i = 0; i < n; i++)
        strbuf_printf(out, "%s%d", i ? ", " : "", ids[i]);
    strbuf_putc(out, ']');
}

static void write_text(struct strbuf *out, const struct tokenizer *t, const int32_t *ids, size_t n)
{
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    struct detokenizer d;
    struct strbuf text;

    strbuf_init(&text, out->max);
    detokenizer_init(&d, t, false);
    d.started = true; /* it goes on from the prompt: a space at its beginning is part of it */
    for (size_t i = 0; i < n; i++)
        strbuf_add(&text, piece, detokenizer_next(&d, ids[i], piece, sizeof piece));
    strbuf_add(&text, piece, detokenizer_end(&d, piece, sizeof piece));
    strbuf_puts(out, ", \"text\": ");
    strbuf_json(out, strbuf_str(&text), text.len);
    out->failed |= text.failed;
    strbuf_fini(&text);
}

static void write_top(struct strbuf *out, const struct gen_case *c, uint32_t top)
{
    strbuf_puts(out, ", \"top\": [");
    for (size_t i = 0; i < c->n_top; i++) {
        strbuf_puts(out, i ? ", [" : "[");
        for (size_t k = 0; k < top; k++) {
            float lp = c->top_logprobs[i * top + k];
            strbuf_printf(out, "%s[%d, %.5f]", k ? ", " : "", c->top_ids[i * top + k],
                          lp > -1e6f ? (double)lp : -1e6); /* JSON knows no -inf */
        }
        strbuf_putc(out, ']');
    }
    strbuf_putc(out, ']');
}

void cases_write(struct strbuf *out, const struct tokenizer *t, const char *prompt, size_t prompt_len, const struct gen_case *c, uint32_t top)
{
    const int32_t *generated = c->tokens.ids + c->n_prompt;
    size_t n = c->tokens.len - c->n_prompt;

    strbuf_puts(out, "{\"prompt\": ");
    strbuf_json(out, prompt, prompt_len);
    write_ids(out, "tokens", c->tokens.ids, c->n_prompt);
    write_ids(out, "greedy", generated, n);
    write_text(out, t, generated, n);
    if (top)
        write_top(out, c, top);
    strbuf_putc(out, '}');
}

/* --- reading ------------------------------------------------------------- */

static int read_ids(const json_t *object, const char *where, const char *name, uint32_t n_vocab, struct token_list *ret, struct err *err)
{
    json_t *array = NULL;
    size_t n;

    if (json_get_array(object, where, name, JSON_REQUIRED, &array, err) != 0)
        return -1;
    n = json_array_size(array);
    if (mem_grow(&ret->ids, &ret->cap, n, sizeof *ret->ids, REFERENCE_MAX_TOKENS, where, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(array, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= (json_int_t)n_vocab)
            return err_set(err, ERR_INPUT, "%s: \"%s\"[%zu] is no token of this model (0 to %u)", where, name, i, n_vocab - 1);
        ret->ids[ret->len++] = (int32_t)id;
    }
    return 0;
}

static int check_top(const json_t *top, const char *where, uint32_t *longest, struct err *err)
{
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *row = json_array_get(top, i);
        size_t n = json_array_size(row);
        if (n < 1 || n > SAMPLE_MAX_TOP)
            return err_set(err, ERR_INPUT, "%s: \"top\"[%zu] is not a list of 1 to %d [id, log-probability]", where, i, SAMPLE_MAX_TOP);
        for (size_t k = 0; k < n; k++) {
            const json_t *pair = json_array_get(row, k);
            if (json_array_size(pair) != 2 || !json_is_integer(json_array_get(pair, 0)) || !json_is_number(json_array_get(pair, 1)))
                return err_set(err, ERR_INPUT, "%s: \"top\"[%zu][%zu] is not [id, log-probability]", where, i, k);
        }
        *longest = n > *longest ? (uint32_t)n : *longest;
    }
    return 0;
}

static int read_case(const json_t *object, const char *where, uint32_t n_vocab, struct reference_case *ret, uint32_t *longest, struct err *err)
{
    json_t *top = NULL;

    if (json_get_text(object, where, "prompt", JSON_REQUIRED, &ret->prompt, err) != 0 ||
        read_ids(object, where, "tokens", n_vocab, &ret->tokens, err) != 0 || read_ids(object, where, "greedy", n_vocab, &ret->greedy, err) != 0 ||
        json_get_array(object, where, "top", JSON_REQUIRED, &top, err) != 0 || check_top(top, where, longest, err) != 0)
        return -1;
    ret->prompt_len = json_string_length(json_object_get(object, "prompt"));
    ret->top = top;
    return 0;
}

int reference_read(const char *path, uint32_t n_vocab, struct reference *ret, struct err *err)
{
    json_t *cases = NULL;
    char where[512], shown[256];

    *ret = (struct reference){.root = json_read_file(path, JSON_MAX_BYTES, err)};
    if (!ret->root)
        return -1;
    err_printable(shown, sizeof shown, path, strlen(path));
    if (json_get_array(ret->root, shown, "cases", JSON_REQUIRED, &cases, err) != 0)
        return -1;
    size_t n = json_array_size(cases);
    if (n < 1 || n > REFERENCE_MAX_CASES)
        return err_set(err, ERR_INPUT, "%s: %zu cases; 1 to %d are allowed", shown, n, REFERENCE_MAX_CASES);
    ret->cases = mem_new(n, sizeof *ret->cases, err);
    if (!ret->cases)
        return -1;
    for (ret->n_cases = 0; ret->n_cases < n;) {
        snprintf(where, sizeof where, "%s: cases[%zu]", shown, ret->n_cases);
        struct reference_case *c = &ret->cases[ret->n_cases++];
        if (read_case(json_array_get(cases, ret->n_cases - 1), where, n_vocab, c, &ret->top, err) != 0)
            return -1;
    }
    return 0;
}

void reference_fini(struct reference *r)
{
    for (size_t i = 0; i < r->n_cases; i++) {
        token_list_fini(&r->cases[i].tokens);
        token_list_fini(&r->cases[i].greedy);
    }
    free(r->cases);
    json_decref(r->root);
    *r = (struct reference){0};
}

/* --- comparing ----------------------------------------------------------- */

/* The divergence of one position: over the truth's listed tokens plus one bucket for the rest; a token that we do not list
 * counts as our least listed probability. Log-probabilities of ours are rounded as they would be in JSON. */
static double divergence(const json_t *truth, const int32_t *ids, const float *logprobs, size_t n)
{
    double sum = 0, sum_p = 0, sum_q = 0, floor_q = 0, rest_p, rest_q;

    for (size_t k = 0; k < n; k++)
        floor_q = k == 0 || logprobs[k] < floor_q ? logprobs[k] : floor_q;
    for (size_t i = 0; i < json_array_size(truth); i++) {
        const json_t *pair = json_array_get(truth, i);
        json_int_t id = json_integer_value(json_array_get(pair, 0));
        double p = json_number_value(json_array_get(pair, 1)), q = floor_q;
        for (size_t k = 0; k < n; k++)
            if (ids[k] == id) {
                q = logprobs[k];
                break;
            }
        q = round(q * 1e5) / 1e5;
        sum += exp(p) * (p - q);
        sum_p += exp(p);
        sum_q += exp(q);
    }
    rest_p = fmax(1 - sum_p, 1e-9);
    rest_q = fmax(1 - sum_q, 1e-9);
    return fmax(sum + rest_p * log(rest_p / rest_q), 0);
}

void reference_compare(const struct reference_case *r, const struct gen_case *c, uint32_t top, struct distance *d)
{
    size_t n = json_array_size(r->top) < c->n_top ? json_array_size(r->top) : c->n_top;

    for (size_t i = 0; i < n; i++) {
        const json_t *truth = json_array_get(r->top, i);
        double kld = divergence(truth, c->top_ids + i * top, c->top_logprobs + i * top, top);
        d->kld_sum += kld;
        d->kld_max = kld > d->kld_max ? kld : d->kld_max;
        d->positions++;
        d->top1_same += json_integer_value(json_array_get(json_array_get(truth, 0), 0)) == c->top_ids[i * top];
    }
}
