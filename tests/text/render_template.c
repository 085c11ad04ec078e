/* Renders many templates: reads a JSON array of {"source", "context"} from the file named, writes one of {"text", "special":
 * [[from, to], …]} or {"error"} to stdout. What compare_jinja.py holds against Jinja2. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text/template.h"

static json_t *render(const json_t *c)
{
    const json_t *source = json_object_get(c, "source"), *context = json_object_get(c, "context");
    struct tm noon = {.tm_year = 126, .tm_mon = 0, .tm_mday = 31, .tm_hour = 12, .tm_isdst = -1};
    struct template_output out;
    struct err err = {0};
    struct template *t = template_compile("case", json_string_value(source), json_string_length(source), &err);
    json_t *row = json_object();

    if (!t || template_render(t, context, mktime(&noon), NULL, &out, &err) != 0) {
        json_object_set_new(row, "error", json_string(err.text));
        template_destroy(t);
        return row;
    }
    json_t *special = json_array();
    size_t from = 0;
    for (size_t i = 0; i < out.n_parts; i++) {
        if (out.parts[i].special)
            json_array_append_new(special, json_pack("[I, I]", (json_int_t)from, (json_int_t)out.parts[i].end));
        from = out.parts[i].end;
    }
    json_object_set_new(row, "text", json_stringn(strbuf_str(&out.text), out.text.len));
    json_object_set_new(row, "special", special);
    template_output_fini(&out);
    template_destroy(t);
    return row;
}

int main(int argc, char **argv)
{
    json_error_t error;
    json_t *cases = argc == 2 ? json_load_file(argv[1], JSON_ALLOW_NUL, &error) : NULL, *c, *rows = json_array();
    size_t i;
    if (!cases) {
        fprintf(stderr, "usage: render_template CASES.json\n");
        return 2;
    }
    json_array_foreach(cases, i, c) json_array_append_new(rows, render(c));
    int rc = json_dumpf(rows, stdout, JSON_COMPACT) != 0;
    json_decref(rows);
    json_decref(cases);
    return rc;
}
