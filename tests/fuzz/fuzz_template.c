/* Any bytes as a chat template, rendered over a chat that has every kind of value. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "text/template.h"

static const char chat[] =
    "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_generation_prompt\": true, \"n\": 5, \"f\": -1.5, \"none\": null,"
    " \"s\": \"a\\u00e9\\ud83d\\ude42 <b>\\n\\u0000x\", \"l\": [3, 1, 2, \"x\", [1, [2]], {\"k\": null}],"
    " \"d\": {\"a\": 1, \"b\": [true], \"items\": {}},"
    " \"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"<|im_end|>\"},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"1\", \"function\": {\"name\": \"f\", \"arguments\": {\"a\": "
    "1}}}]},"
    " {\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"t\"}]}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct template_output out;
    struct err err;
    struct template *t = template_compile("fuzz", (const char *)data, size, &err);
    json_t *context = t ? json_loads(chat, JSON_ALLOW_NUL, NULL) : NULL;

    if (t && !context)
        abort();
    if (t && template_render(t, context, 1769860800, NULL, &out, &err) == 0) {
        size_t end = 0;
        for (size_t i = 0; i < out.n_parts; i++) { /* the parts cover the text, in order, each of another kind than the last */
            if (out.parts[i].end <= end || (i && out.parts[i].special == out.parts[i - 1].special))
                abort();
            end = out.parts[i].end;
        }
        if (end != out.text.len)
            abort();
        template_output_fini(&out);
    }
    json_decref(context);
    template_destroy(t);
    return 0;
}
