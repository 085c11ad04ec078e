/* stagecoach template: renders a chat template, byte for byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/ui.h"
#include "text/template.h"

enum { CONTEXT_MAX_BYTES = 64 << 20 };

struct values {
    const char *now;
};

static const struct opt options[] = {
    {"now", 0, OPT_STRING, .arg = "TIME", .offset = offsetof(struct values, now),
     .help = "What strftime_now tells, as 2026-01-31T12:00:00 of local time (default: now)"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach template chat.jinja context.json", "context.json: {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
                                                    "\"add_generation_prompt\": true, \"bos_token\": \"<s>\"}"},
    {0},
};

static int parse_now(const char *text, time_t *ret, struct err *err)
{
    struct tm tm = {.tm_isdst = -1};
    const char *end;
    char shown[64];

    if (!text) {
        *ret = time(NULL);
        return 0;
    }
    end = strptime(text, "%Y-%m-%d", &tm);
    if (end && (*end == 'T' || *end == ' '))
        end = strptime(end + 1, "%H:%M:%S", &tm);
    if (!end || *end) {
        err_printable(shown, sizeof shown, text, strlen(text));
        return err_set(err, ERR_USAGE, "--now: \"%s\" is no time; 2026-01-31 or 2026-01-31T12:00:00 is expected", shown);
    }
    *ret = mktime(&tm);
    return 0;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct template_output out = {0};
    struct template *t = NULL;
    json_t *context = NULL;
    char *source = NULL;
    size_t len;
    time_t now = 0;
    int rc = -1;

    if (parse_now(v->now, &now, err) != 0)
        return -1;
    if (!(source = ui_read_file(parsed->args[0], TEMPLATE_MAX_SOURCE_BYTES, &len, err)))
        goto done;
    if (!(context = json_read_file(parsed->args[1], CONTEXT_MAX_BYTES, err)))
        goto done;
    if (!json_is_object(context)) {
        err_set(err, ERR_INPUT, "%s: a context is an object of variables, not %s", parsed->args[1], json_type_words(context));
        goto done;
    }
    if (!(t = template_compile(parsed->args[0], source, len, err)))
        goto done;
    rc = template_render(t, context, now, NULL, &out, err);
    if (rc == 0)
        ui_foreign(strbuf_str(&out.text), out.text.len);
done:
    template_output_fini(&out);
    template_destroy(t);
    json_decref(context);
    free(source);
    return rc;
}

const struct command cmd_template = {
    .opts = {.name = "template",
             .summary = "Render a chat template",
             .synopsis = "FILE.jinja CONTEXT.json",
             .description = "Renders a chat template with the members of a JSON object as its variables, and prints the result byte for byte: "
                            "nothing is added at the end. A template's own error (raise_exception) is a failure. \"-\" reads standard input.",
             .groups = groups,
             .min_args = 2,
             .max_args = 2,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
