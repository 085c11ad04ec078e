/* See template.h. The work is done in jinja_*.c: jinja_lex.c and jinja_parse.c, jinja_expr.c make the tree, jinja_exec.c,
 * jinja_loop.c and jinja_eval.c walk it. A template owns one arena with its tree; a rendering has one of its own, so that
 * one template serves any number of threads. */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

enum { MAX_TREE_BYTES = 16 << 20, MAX_NAME_CHARS = 64 };

struct template
{
    struct arena arena;
    struct jinja_tree tree;
    char name[MAX_NAME_CHARS];
};

/* Memory and output together stay well below the 64 MiB that a hostile file may cost us. */
const struct template_limits template_default_limits = {
    .max_steps = 2000000, .max_depth = 600, .max_memory_bytes = 32 << 20, .max_output_bytes = 8 << 20};

void template_output_fini(struct template_output *out)
{
    strbuf_fini(&out->text);
    free(out->parts);
    *out = (struct template_output){.text = out->text};
}

struct template *template_compile(const char *name, const char *source, size_t len, struct err *err)
{
    struct template *t;
    if (len > TEMPLATE_MAX_SOURCE_BYTES) {
        err_set(err, ERR_LIMIT, "template %s: %zu bytes, at most %d allowed", name, len, TEMPLATE_MAX_SOURCE_BYTES);
        return NULL;
    }
    if (!(t = mem_new(1, sizeof *t, err)))
        return NULL;
    err_printable(t->name, sizeof t->name, name, strlen(name));
    arena_init(&t->arena, MAX_TREE_BYTES);
    if (jinja_parse(&t->arena, source, len, &t->tree, err) != 0) {
        err_wrap(err, "template %s", t->name);
        template_destroy(t);
        return NULL;
    }
    return t;
}

void template_destroy(struct template *t)
{
    if (!t)
        return;
    arena_fini(&t->arena);
    free(t);
}

/* The finished text becomes the caller's; its marks are copied out of the arena. */
static int give_output(struct jinja_text *text, struct template_output *ret, struct err *err)
{
    struct template_output out = {.text = {.max = text->max}};
    size_t n = text->n_runs;
    if (mem_grow(&out.parts, &out.cap_parts, n, sizeof *out.parts, SIZE_MAX, "the rendered text's parts", err) != 0)
        return -1;
    if (n) {
        memcpy(out.parts, text->runs, n * sizeof *out.parts);
        out.n_parts = n;
        out.text = (struct strbuf){.data = text->data, .len = text->len, .cap = text->cap + 1, .max = text->max};
        out.text.data[text->len] = '\0';
        text->data = NULL;
    }
    *ret = out;
    return 0;
}

int template_render(const struct template *t, const json_t *context, time_t now, const struct template_limits *limits,
                    struct template_output *ret, struct err *err)
{
    struct err here = {0};
    struct jinja_text text = {0};
    struct jinja j = {.err = &here, .limits = limits ? *limits : template_default_limits, .context = context, .now = now};
    int rc = -1;

    if (!json_is_object(context))
        return err_set(err, ERR_USAGE, "template %s: the context must be a JSON object", t->name);
    arena_init(&j.arena, j.limits.max_memory_bytes);
    j.steps = j.limits.max_steps;
    j.special_names = t->tree.special_names;
    j.block = jinja_none();
    j.out = &text;
    text.max = j.limits.max_output_bytes ? j.limits.max_output_bytes : 1;
    if ((j.outer = jinja_frame_new(&j, NULL)) && (j.top = jinja_frame_new(&j, j.outer)))
        rc = jinja_exec(&j, j.top, t->tree.root->body);
    if (rc == 0)
        rc = text.failed ? -1 : give_output(&text, ret, &here);
    free(text.data);
    arena_fini(&j.arena);
    if (rc != 0)
        return err_set(err, here.kind ? here.kind : ERR_INTERNAL, "template %s: %s", t->name, here.text);
    return 0;
}
