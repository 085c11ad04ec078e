/* See opts_text.h: man pages. */
#include <ctype.h>
#include <string.h>

#include "base/opts_text.h"

/* Words of ours as roff: nothing in them is a request or an escape, and dashes are dashes that can be copied. */
static void put(struct strbuf *out, const char *s, size_t len)
{
    bool fresh = true;

    for (size_t i = 0; i < len; i++) {
        if (fresh && (s[i] == '.' || s[i] == '\''))
            strbuf_puts(out, "\\&");
        fresh = s[i] == '\n';
        if (s[i] == '\\')
            strbuf_puts(out, "\\e");
        else if (s[i] == '-')
            strbuf_puts(out, "\\-");
        else
            strbuf_putc(out, s[i]);
    }
}

static void puts_roff(struct strbuf *out, const char *s)
{
    put(out, s, strlen(s));
}

static void heading(struct strbuf *out, const char *macro, const char *text, bool loud)
{
    strbuf_printf(out, "%s \"", macro);
    for (; *text; text++)
        strbuf_putc(out, loud ? (char)toupper((unsigned char)*text) : *text);
    strbuf_puts(out, "\"\n");
}

/* Paragraphs; lines that begin with spaces stand as they are. macro: what begins the second and further ones. */
static void paragraphs(struct strbuf *out, const char *text, const char *macro)
{
    bool as_is = false, first = true;

    while (*text) {
        size_t len = strcspn(text, "\n");
        if (len == 0 && !as_is && text[1] != ' ' && text[1]) {
            strbuf_printf(out, "%s\n", macro);
            first = true;
        } else if (len && (text[0] == ' ') != as_is) {
            strbuf_puts(out, as_is ? ".EE\n.RE\n" : ".RS\n.EX\n");
            if (as_is && !first)
                strbuf_printf(out, "%s\n", macro);
            as_is = !as_is;
        }
        if (len) {
            put(out, text, len);
            strbuf_putc(out, '\n');
            first = false;
        }
        text += len + (text[len] == '\n');
    }
    if (as_is)
        strbuf_puts(out, ".EE\n.RE\n");
}

/* "--listen ADDRESS": what is typed bold, what is replaced by something italic. */
static void tag(struct strbuf *out, const struct opt *o)
{
    strbuf_puts(out, ".TP\n");
    if (o->letter)
        strbuf_printf(out, "\\fB\\-%c\\fR, ", o->letter);
    strbuf_puts(out, "\\fB\\-\\-");
    puts_roff(out, opts_is_on(o) ? "no-" : "");
    puts_roff(out, o->name);
    strbuf_puts(out, "\\fR");
    if (o->kind != OPT_FLAG) {
        strbuf_puts(out, " \\fI");
        puts_roff(out, o->arg);
        strbuf_puts(out, "\\fR");
    }
    strbuf_putc(out, '\n');
}

struct man_state {
    struct strbuf *out;
    const struct opt_group *group;
};

static int option(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct man_state *m = arg;
    struct strbuf text;

    if (group != m->group) {
        heading(m->out, ".SS", group->title, false);
        m->group = group;
    }
    tag(m->out, o);
    strbuf_init(&text, 8192);
    opts_help_sentence(o, &text);
    puts_roff(m->out, strbuf_str(&text));
    strbuf_puts(m->out, ".\n");
    strbuf_fini(&text);
    return 0;
}

static void examples(struct strbuf *out, const struct opt_example *e)
{
    if (e && e->command)
        heading(out, ".SH", "Examples", true);
    for (; e && e->command; e++) {
        strbuf_puts(out, ".TP\n\\fB");
        puts_roff(out, e->command);
        strbuf_puts(out, "\\fR\n");
        puts_roff(out, e->what);
        strbuf_putc(out, '\n');
    }
}

static void page_of_command(const struct opts_program *p, const struct opt_command *c, struct strbuf *out)
{
    struct man_state m = {out, NULL};

    heading(out, ".SH", "Synopsis", true);
    strbuf_printf(out, "\\fB%s %s\\fR\n", p->name, c->name);
    puts_roff(out, c->synopsis);
    strbuf_putc(out, '\n');
    heading(out, ".SH", "Description", true);
    paragraphs(out, c->description, ".PP");
    heading(out, ".SH", "Options", true);
    opts_for_each(c, option, &m);
    examples(out, c->examples);
    heading(out, ".SH", "Exit status", true);
    puts_roff(out, c->exit_status ? c->exit_status : OPTS_EXIT_STATUS);
    strbuf_putc(out, '\n');
    heading(out, ".SH", "See also", true);
    strbuf_printf(out, ".BR %s (1)\n", p->name);
}

static void page_of_program(const struct opts_program *p, struct strbuf *out)
{
    heading(out, ".SH", "Synopsis", true);
    strbuf_printf(out, "\\fB%s\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]…\n", p->name);
    heading(out, ".SH", "Description", true);
    paragraphs(out, p->description, ".PP");
    heading(out, ".SH", "Commands", true);
    for (size_t i = 0; i < p->n_commands; i++) {
        strbuf_printf(out, ".TP\n.BR %s\\-%s (1)\n", p->name, p->commands[i]->name);
        puts_roff(out, p->commands[i]->summary);
        strbuf_puts(out, ".\n");
    }
    for (const struct opts_section *s = p->sections; s && s->title; s++) {
        heading(out, ".SH", s->title, true);
        paragraphs(out, s->text, ".PP");
    }
    examples(out, p->examples);
    heading(out, ".SH", "Exit status", true);
    strbuf_puts(out, OPTS_EXIT_STATUS "\n");
}

void opts_man(const struct opts_program *p, const struct opt_command *c, struct strbuf *out)
{
    strbuf_puts(out, ".TH \"");
    for (const char *s = p->name; *s; s++)
        strbuf_putc(out, (char)toupper((unsigned char)*s));
    if (c) {
        strbuf_puts(out, "\\-");
        for (const char *s = c->name; *s; s++)
            strbuf_putc(out, (char)toupper((unsigned char)*s));
    }
    strbuf_printf(out, "\" 1 \"\" \"%s %s\"\n", p->name, p->version); /* no date: the same source makes the same page */
    heading(out, ".SH", "Name", true);
    strbuf_printf(out, c ? "%s\\-%s \\- " : "%s%s \\- ", p->name, c ? c->name : "");
    puts_roff(out, c ? c->summary : p->summary);
    strbuf_putc(out, '\n');
    if (c)
        page_of_command(p, c, out);
    else
        page_of_program(p, out);
}
