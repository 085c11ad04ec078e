/* See opts_text.h: the text of --help. */
#include "base/opts_text.h"

#include <string.h>

enum { HELP_INDENT = 26 };

static unsigned columns(const char *s, size_t len)
{
    unsigned n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80; /* our own texts hold no wide characters */
    return n;
}

void opts_wrap(struct strbuf *out, const char *text, unsigned column, unsigned indent, unsigned width)
{
    bool fresh = true; /* nothing on this line yet */

    while (*text) {
        size_t len = strcspn(text, " \n");
        unsigned wide = columns(text, len);
        if (!fresh && column + 1 + wide > width) {
            strbuf_printf(out, "\n%*s", (int)indent, "");
            column = indent;
            fresh = true;
        }
        if (len) {
            strbuf_puts(out, fresh ? "" : " ");
            strbuf_add(out, text, len);
            column += wide + !fresh;
            fresh = false;
        }
        text += len;
        for (; *text == ' ' || *text == '\n'; text++)
            if (*text == '\n') {
                strbuf_printf(out, "\n%*s", text[1] == '\n' ? 0 : (int)indent, "");
                column = indent;
                fresh = true;
            }
    }
    strbuf_putc(out, '\n');
}

bool opts_is_on(const struct opt *o)
{
    return o->kind == OPT_FLAG && o->def && strcmp(o->def, "yes") == 0;
}

void opts_help_sentence(const struct opt *o, struct strbuf *out)
{
    strbuf_puts(out, o->help);
    if (o->kind == OPT_CHOICE) {
        for (size_t i = 0; o->choices[i]; i++)
            strbuf_printf(out, "%s%s", i == 0 ? ": " : o->choices[i + 1] ? ", " : " or ", o->choices[i]);
    }
    if (o->kind == OPT_LIST)
        strbuf_puts(out, " (may be repeated)");
    if (o->def && o->kind != OPT_FLAG)
        strbuf_printf(out, " (default %s)", o->def);
}

struct help_state {
    struct strbuf *out;
    unsigned width;
    const struct opt_group *group;
};

static int help_row(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct help_state *h = arg;
    struct strbuf left, right;
    bool on = opts_is_on(o);

    if (group != h->group) {
        strbuf_printf(h->out, "\n%s:\n", group->title);
        h->group = group;
    }
    strbuf_init(&left, 256);
    strbuf_init(&right, 4096);
    if (o->letter)
        strbuf_printf(&left, "  -%c, --%s%s", o->letter, on ? "no-" : "", o->name);
    else
        strbuf_printf(&left, "      --%s%s", on ? "no-" : "", o->name);
    if (o->kind != OPT_FLAG)
        strbuf_printf(&left, " %s", o->arg);
    opts_help_sentence(o, &right);
    unsigned column = columns(left.data, left.len);
    strbuf_add(h->out, left.data, left.len);
    if (column + 2 > HELP_INDENT) {
        strbuf_putc(h->out, '\n');
        column = 0;
    }
    strbuf_printf(h->out, "%*s", (int)(HELP_INDENT - column), "");
    opts_wrap(h->out, strbuf_str(&right), HELP_INDENT, HELP_INDENT, h->width);
    strbuf_fini(&left);
    strbuf_fini(&right);
    return 0;
}

void opts_help(const struct opt_command *command, const char *program, unsigned width, struct strbuf *out)
{
    struct help_state h = {out, width, NULL};
    struct strbuf usage;

    strbuf_init(&usage, 1024);
    strbuf_printf(&usage, "Usage: %s %s %s", program, command->name, command->synopsis);
    opts_wrap(out, strbuf_str(&usage), 0, 7, width);
    strbuf_fini(&usage);
    strbuf_putc(out, '\n');
    opts_wrap(out, command->description, 0, 0, width);
    opts_for_each(command, help_row, &h);
    if (command->examples && command->examples->command)
        strbuf_puts(out, "\nExamples:\n");
    for (const struct opt_example *e = command->examples; e && e->command; e++) {
        strbuf_printf(out, "  %s\n      ", e->command);
        opts_wrap(out, e->what, 6, 6, width);
    }
    strbuf_puts(out, "\nExit status: ");
    opts_wrap(out, command->exit_status ? command->exit_status : OPTS_EXIT_STATUS, 13, 2, width);
}
