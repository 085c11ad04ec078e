/* Fields that other servers know and this one does not do: who asks for them is told, unless what they say is what happens
 * anyway. Leaving them out in silence would give an answer that looks like the one that was asked for. */
#include <string.h>

#include "base/json.h"
#include "front/openai_fields.h"

enum harmless {
    NEVER,  /* whatever it says */
    ZERO,   /* 0 or false is as if absent */
    ONE,    /* 1 or true */
    EMPTY,  /* an empty list, object or string */
};

static const struct {
    const char *name;
    enum harmless harmless;
    const char *instead; /* NULL: nothing */
} fields[] = {
    {"audio", NEVER, NULL},
    {"web_search_options", NEVER, NULL},
    {"chat_template", NEVER, "chat_template_kwargs gives the model's own one variables"},
    {"continue_final_message", ZERO, "/v1/completions goes on with a text"},
    {"min_tokens", ZERO, "ignore_eos goes on where the model would end"},
    {"bad_words", EMPTY, "logit_bias can forbid tokens"},
    {"allowed_token_ids", EMPTY, "logit_bias can prefer tokens"},
    {"prompt_logprobs", NEVER, "/v1/completions with echo and logprobs gives them"},
    {"truncate_prompt_tokens", NEVER, NULL},
    {"use_beam_search", ZERO, "best_of chooses among several answers"},
    {"length_penalty", ONE, NULL},
    {"include_stop_str_in_output", ZERO, NULL},
    {"skip_special_tokens", ONE, NULL},
    {"logits_processors", EMPTY, NULL},
    {"mirostat", ZERO, NULL},
    {"dry_multiplier", ZERO, NULL},
    {"xtc_probability", ZERO, NULL},
    {"dynatemp_range", ZERO, NULL},
    {"tfs_z", ONE, NULL},
    {"n_probs", ZERO, "logprobs"},
    {"lora", EMPTY, NULL},
};

static bool is_harmless(const json_t *v, enum harmless h)
{
    if (h == ZERO || h == ONE)
        return json_is_boolean(v) ? json_is_true(v) == (h == ONE) : json_is_number(v) && json_number_value(v) == (h == ONE ? 1 : 0);
    return h == EMPTY && ((json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0) ||
                          (json_is_string(v) && json_string_length(v) == 0));
}

static int modalities_read(const json_t *v, struct api_error *e)
{
    size_t i;
    const json_t *word;

    if (v && !json_is_array(v))
        return api_wrong_type(e, "modalities", "an array", v);
    json_array_foreach(v, i, word)
        if (!json_is_string(word) || strcmp(json_string_value(word), "text") != 0)
            return api_refuse(e, "modalities", "modalities: only \"text\" is supported");
    return 0;
}

int api_refused_read(const json_t *body, struct api_error *e)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const json_t *v = api_field(body, fields[i].name);
        if (v && !is_harmless(v, fields[i].harmless))
            return api_refuse(e, fields[i].name, "%s is not supported%s%s", fields[i].name, fields[i].instead ? "; " : "",
                              fields[i].instead ? fields[i].instead : "");
    }
    return modalities_read(api_field(body, "modalities"), e);
}
