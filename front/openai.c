/* See openai.h: prompts and what is common to requests. chat.c reads chats. */
#include "front/openai_fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

/* OpenAI's own default, from the time of completions: short answers. Chats go on until they end. */
enum { COMPLETION_TOKENS_DEFAULT = 16 };

/* --- fields -------------------------------------------------------------- */

json_t *api_body(const char *body, size_t len, struct api_error *e)
{
    json_error_t error;
    json_t *root;

    if (len == 0) {
        api_refuse(e, NULL, "the body is empty; a JSON object is expected");
        return NULL;
    }
    if (!(root = json_loadb(body, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error))) {
        char shown[160];
        err_printable(shown, sizeof shown, error.text, strlen(error.text));
        api_refuse(e, NULL, "the body is no JSON: line %d, column %d: %s", error.line, error.column, shown);
        return NULL;
    }
    if (!json_is_object(root)) {
        api_refuse(e, NULL, "the body is %s; a JSON object is expected", json_type_words(root));
        json_decref(root);
        return NULL;
    }
    return root;
}

const json_t *api_field(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return v && !json_is_null(v) ? v : NULL;
}

int api_wrong_type(struct api_error *e, const char *name, const char *wanted, const json_t *got)
{
    return api_refuse(e, name, "%s is %s; %s is expected", name, json_type_words(got), wanted);
}

int api_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *ret, struct api_error *e)
{
    const json_t *v = api_field(o, name);

    if (!v)
        return 0;
    if (!json_is_integer(v))
        return api_wrong_type(e, name, "an integer", v);
    int64_t n = json_integer_value(v);
    if (n < min || n > max)
        return api_refuse(e, name, "%s is %lld; %lld to %lld is allowed", name, (long long)n, (long long)min, (long long)max);
    *ret = n;
    return 0;
}

int api_float(const json_t *o, const char *name, double min, double max, float *ret, struct api_error *e)
{
    const json_t *v = api_field(o, name);

    if (!v)
        return 0;
    if (!json_is_number(v))
        return api_wrong_type(e, name, "a number", v);
    double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return api_refuse(e, name, "%s is %g; %g to %g is allowed", name, x, min, max);
    *ret = (float)x;
    return 0;
}

int api_flag(const json_t *o, const char *name, bool *ret, struct api_error *e)
{
    const json_t *v = api_field(o, name);

    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return api_wrong_type(e, name, "true or false", v);
    *ret = json_is_true(v);
    return 0;
}

int api_text(const json_t *o, const char *name, const char **ret, size_t *ret_len, struct api_error *e)
{
    const json_t *v = api_field(o, name);

    if (!v)
        return 0;
    if (!json_is_string(v))
        return api_wrong_type(e, name, "a string", v);
    *ret = json_string_value(v);
    if (ret_len)
        *ret_len = json_string_length(v);
    return 0;
}

/* --- prompts ------------------------------------------------------------- */

static int tokens_read(struct api_prompt *p, const json_t *list, const char *name, struct api_error *e)
{
    size_t n = json_array_size(list);
    struct err err;

    if (!(p->tokens = mem_new(n, sizeof *p->tokens, &err)))
        return api_from_err(e, &err);
    p->n_tokens = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v))
            return api_refuse(e, name, "%s: item %zu is %s; a token's number is expected", name, i, json_type_words(v));
        json_int_t id = json_integer_value(v);
        if (id < 0 || id > INT32_MAX)
            return api_refuse(e, name, "%s: item %zu is %lld, which is no token", name, i, (long long)id);
        p->tokens[i] = (int32_t)id;
    }
    return 0;
}

static int prompt_read(struct api_prompt *p, const json_t *v, const char *name, struct api_error *e)
{
    if (json_is_string(v)) {
        p->text = json_string_value(v);
        p->len = json_string_length(v);
        return 0;
    }
    if (json_is_array(v))
        return tokens_read(p, v, name, e);
    return api_refuse(e, name, "%s holds %s; strings or lists of tokens are expected", name, json_type_words(v));
}

void api_prompts_fini(struct api_prompts *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->items[i].tokens);
    free(p->items);
    *p = (struct api_prompts){0};
}

int api_prompts_read(struct api_prompts *ret, const json_t *value, const char *name, struct api_error *e)
{
    bool many = json_is_array(value) && !json_is_integer(json_array_get(value, 0));
    size_t n = many ? json_array_size(value) : 1;
    struct err err;

    if (!value || json_is_null(value))
        return api_refuse(e, name, "%s is missing; a string, a list of strings, or tokens are expected", name);
    if (!json_is_string(value) && !json_is_array(value))
        return api_wrong_type(e, name, "a string, a list of strings, or tokens", value);
    if (n == 0)
        return api_refuse(e, name, "%s is an empty list; at least one prompt is expected", name);
    if (n > API_MAX_ANSWERS)
        return api_refuse(e, name, "%s has %zu prompts; at most %d are allowed in one request", name, n, API_MAX_ANSWERS);
    struct api_prompts p = {.items = mem_new(n, sizeof *p.items, &err), .n = n};
    if (!p.items)
        return api_from_err(e, &err);
    for (size_t i = 0; i < n; i++)
        if (prompt_read(&p.items[i], many ? json_array_get(value, i) : value, name, e) != 0) {
            api_prompts_fini(&p);
            return -1;
        }
    *ret = p;
    return 0;
}

/* --- requests ------------------------------------------------------------ */

static int stops_read(struct api_request *r, struct api_error *e)
{
    const json_t *v = api_field(r->body, "stop");
    size_t n = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;

    if (n > API_MAX_STOPS)
        return api_refuse(e, "stop", "stop has %zu strings; at most %d are allowed", n, API_MAX_STOPS);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s))
            return api_refuse(e, "stop", "stop holds %s; a string or a list of strings is expected", json_type_words(s));
        if (json_string_length(s) > API_MAX_STOP_BYTES)
            return api_refuse(e, "stop", "stop: a string of %zu bytes; at most %d are allowed", json_string_length(s), API_MAX_STOP_BYTES);
        if (json_string_length(s) > 0)
            r->stops[r->n_stops++] = (struct api_stop){json_string_value(s), json_string_length(s)};
    }
    return 0;
}

static int stop_tokens_read(struct api_request *r, struct api_error *e)
{
    const json_t *v = api_field(r->body, "stop_token_ids");
    size_t n = json_array_size(v);

    if (v && !json_is_array(v))
        return api_wrong_type(e, "stop_token_ids", "an array of token numbers", v);
    if (n > API_MAX_STOP_TOKENS)
        return api_refuse(e, "stop_token_ids", "stop_token_ids has %zu tokens; at most %d are allowed", n, API_MAX_STOP_TOKENS);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return api_refuse(e, "stop_token_ids", "stop_token_ids: item %zu is no token's number", i);
        r->stop_tokens[r->n_stop_tokens++] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int bias_read(struct api_request *r, struct api_error *e)
{
    const json_t *v = api_field(r->body, "logit_bias");
    size_t n = json_object_size(v);
    struct err err;
    const char *key;
    json_t *value;

    if (!v)
        return 0;
    if (!json_is_object(v))
        return api_wrong_type(e, "logit_bias", "an object of token numbers and biases", v);
    if (n > SAMPLE_MAX_BIAS)
        return api_refuse(e, "logit_bias", "logit_bias names %zu tokens; at most %d are allowed", n, SAMPLE_MAX_BIAS);
    if (!(r->bias = mem_new(n, sizeof *r->bias, &err)))
        return api_from_err(e, &err);
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        char *end, shown[48];
        long id = strtol(key, &end, 10);
        err_printable(shown, sizeof shown, key, strlen(key));
        if (end == key || *end || id < 0 || id > INT32_MAX)
            return api_refuse(e, "logit_bias", "logit_bias: \"%s\" is no token's number", shown);
        double bias = json_number_value(value);
        if (!json_is_number(value) || !(bias >= -100 && bias <= 100))
            return api_refuse(e, "logit_bias", "logit_bias of token %s: a number from -100 to 100 is expected", shown);
        r->bias[r->sample.n_bias++] = (struct sample_bias){(int32_t)id, (float)bias};
    }
    r->sample.bias = r->bias;
    return 0;
}

static int sampling_read(struct api_request *r, struct api_error *e)
{
    struct sample_params *s = &r->sample;
    int64_t top_k = 0, last = -1, seed = 0;

    /* OpenAI's defaults: the model's own distribution. */
    *s = (struct sample_params){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .penalty_last = -1};
    if (api_float(r->body, "temperature", 0, 100, &s->temperature, e) || api_float(r->body, "top_p", 0, 1, &s->top_p, e) ||
        api_float(r->body, "min_p", 0, 1, &s->min_p, e) || api_float(r->body, "typical_p", 0, 1, &s->typical_p, e) ||
        api_float(r->body, "repetition_penalty", 0.01, 100, &s->repetition_penalty, e) ||
        api_float(r->body, "repeat_penalty", 0.01, 100, &s->repetition_penalty, e) ||
        api_float(r->body, "presence_penalty", -100, 100, &s->presence_penalty, e) ||
        api_float(r->body, "frequency_penalty", -100, 100, &s->frequency_penalty, e) || api_int(r->body, "top_k", -1, 1 << 24, &top_k, e) ||
        api_int(r->body, "repeat_last_n", -1, 1 << 24, &last, e) || api_int(r->body, "seed", INT64_MIN, INT64_MAX, &seed, e))
        return -1;
    s->top_k = top_k > 0 ? (uint32_t)top_k : 0;
    s->penalty_last = (int32_t)last;
    s->seed = (uint64_t)seed;
    r->seeded = api_field(r->body, "seed") != NULL;
    return bias_read(r, e);
}

/* Chat says logprobs: true and top_logprobs: N; completions say logprobs: N. */
static int logprobs_read(struct api_request *r, struct api_error *e)
{
    int64_t top = 0;

    if (!r->is_chat) {
        r->logprobs = api_field(r->body, "logprobs") != NULL;
        if (api_int(r->body, "logprobs", 0, API_MAX_TOP, &top, e) != 0)
            return -1;
    } else {
        if (api_flag(r->body, "logprobs", &r->logprobs, e) != 0 || api_int(r->body, "top_logprobs", 0, API_MAX_TOP, &top, e) != 0)
            return -1;
        if (top > 0 && !r->logprobs)
            return api_refuse(e, "top_logprobs", "top_logprobs is %lld, which needs logprobs: true", (long long)top);
    }
    r->top = (uint32_t)top;
    return 0;
}

static int stream_read(struct api_request *r, struct api_error *e)
{
    const json_t *options = api_field(r->body, "stream_options");

    if (api_flag(r->body, "stream", &r->stream, e) != 0)
        return -1;
    if (!options)
        return 0;
    if (!json_is_object(options))
        return api_wrong_type(e, "stream_options", "an object", options);
    if (!r->stream)
        return api_refuse(e, "stream_options", "stream_options needs stream: true");
    return api_flag(options, "include_usage", &r->usage, e);
}

static int length_read(struct api_request *r, struct api_error *e)
{
    int64_t n = 1;

    r->max_tokens = r->is_chat ? -1 : COMPLETION_TOKENS_DEFAULT;
    if (api_int(r->body, "n_predict", -1, INT32_MAX, &r->max_tokens, e) != 0 ||
        api_int(r->body, "max_tokens", -1, INT32_MAX, &r->max_tokens, e) != 0 ||
        api_int(r->body, "max_completion_tokens", -1, INT32_MAX, &r->max_tokens, e) != 0 ||
        api_int(r->body, "n", 1, API_MAX_ANSWERS, &n, e) != 0)
        return -1;
    r->n = (uint32_t)n;
    return 0;
}

/* What only completions have. */
static int completion_read(struct api_request *r, struct api_error *e)
{
    int64_t best_of = r->n;

    if (api_flag(r->body, "echo", &r->echo, e) != 0 || api_int(r->body, "best_of", 1, API_MAX_ANSWERS, &best_of, e) != 0 ||
        api_text(r->body, "suffix", &r->suffix, &r->suffix_len, e) != 0)
        return -1;
    if (best_of < r->n)
        return api_refuse(e, "best_of", "best_of is %lld and n %u; no more can be shown than are computed", (long long)best_of, r->n);
    if (best_of > r->n && r->stream)
        return api_refuse(e, "best_of", "best_of is %lld and n %u: which are the best is known at the end; leave out stream",
                          (long long)best_of, r->n);
    r->best_of = (uint32_t)best_of;
    if (r->suffix && r->echo)
        return api_refuse(e, "suffix", "suffix and echo exclude each other");
    return 0;
}

static int request_read(struct api_request *r, struct api_error *e)
{
    const char *model = NULL;

    if (api_text(r->body, "model", &model, NULL, e) != 0 || api_text(r->body, "user", &model, NULL, e) != 0 || length_read(r, e) != 0 ||
        sampling_read(r, e) != 0 || stops_read(r, e) != 0 || stop_tokens_read(r, e) != 0 || stream_read(r, e) != 0 ||
        api_flag(r->body, "ignore_eos", &r->ignore_eos, e) != 0 || logprobs_read(r, e) != 0 || api_refused_read(r->body, e) != 0)
        return -1;
    r->best_of = r->n;
    if (r->is_chat)
        return api_chat_read(&r->chat, r->body, e);
    if (completion_read(r, e) != 0 || api_prompts_read(&r->prompts, json_object_get(r->body, "prompt"), "prompt", e) != 0)
        return -1;
    if (r->prompts.n * r->best_of > API_MAX_ANSWERS)
        return api_refuse(e, r->best_of > r->n ? "best_of" : "n", "%zu prompts times %s = %u: at most %d answers are allowed in one request",
                          r->prompts.n, r->best_of > r->n ? "best_of" : "n", r->best_of, API_MAX_ANSWERS);
    for (size_t i = 0; r->suffix && i < r->prompts.n; i++)
        if (!r->prompts.items[i].text)
            return api_refuse(e, "suffix", "suffix goes with prompts that are strings");
    return 0;
}

int api_request_read(struct api_request *ret, bool is_chat, json_t *body, struct api_error *e)
{
    struct api_request r = {.body = body, .is_chat = is_chat};

    if (request_read(&r, e) != 0) {
        api_request_fini(&r);
        return -1;
    }
    *ret = r;
    return 0;
}

void api_request_fini(struct api_request *r)
{
    api_prompts_fini(&r->prompts);
    api_chat_fini(&r->chat);
    free(r->bias);
    json_decref(r->body);
    *r = (struct api_request){0};
}
