/* A topology's file: replaced as a whole, or with one node more and everything else as it was. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "topology/topology.h"

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The folder's entry, too, survives a power cut. */
static void sync_folder(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

/* Whoever reads sees the old file or the new one, whole. */
static int replace(const char *path, const struct strbuf *text, struct err *err)
{
    char fresh[4096], old[4096], shown[128];
    int fd = -1, rc = -1;
    err_printable(shown, sizeof shown, path, strlen(path));
    if (snprintf(fresh, sizeof fresh, "%s.%ld.new", path, (long)getpid()) >= (int)sizeof fresh ||
        snprintf(old, sizeof old, "%s.old", path) >= (int)sizeof old)
        return err_set(err, ERR_LIMIT, "%s: the path has %zu bytes, at most %zu are allowed", shown, strlen(path), sizeof fresh - 32);
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write_all(fd, text->data, text->len) != 0 || fsync(fd) != 0) {
        err_errno(err, errno, "%s: cannot be written", shown);
        goto done;
    }
    unlink(old);
    if (link(path, old) != 0 && errno != ENOENT && errno != EPERM && errno != EOPNOTSUPP) {
        err_errno(err, errno, "%s: its last version cannot be kept as %s.old", shown, shown);
        goto done;
    }
    if (rename(fresh, path) != 0) {
        err_errno(err, errno, "%s: cannot be replaced", shown);
        goto done;
    }
    sync_folder(path);
    rc = 0;
done:
    if (fd >= 0)
        close(fd);
    if (rc != 0)
        unlink(fresh);
    return rc;
}

int topology_save(const struct topology *t, const char *path, struct err *err)
{
    struct strbuf out;
    int rc = -1;
    strbuf_init(&out, TOPOLOGY_MAX_BYTES);
    strbuf_puts(&out, "# Written by stagecoach as workers joined; edit it as you like: docs/planning.md explains every key.\n");
    if (topology_write(t, &out, err) == 0)
        rc = replace(path, &out, err);
    strbuf_fini(&out);
    return rc;
}

/* --- one node more ----------------------------------------------------------------------------------------------------------- */

static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');
    return end ? end + 1 : line + strlen(line);
}

static size_t indent_of(const char *line)
{
    return strspn(line, " ");
}

/* Nothing but white space and a comment. */
static bool is_empty(const char *line)
{
    char c = line[strspn(line, " \t\r")];
    return c == '#' || c == '\n' || c == '\0';
}

/* Behind the last line of the nodes, and how deep their names stand; NULL: they are not written line by line. */
static const char *end_of_nodes(const char *text, size_t *ret_indent)
{
    const char *line = text, *end = NULL;
    while (*line && !(strncmp(line, "nodes:", 6) == 0 && is_empty(line + 6)))
        line = next_line(line);
    *ret_indent = 0;
    for (line = next_line(line); *line; line = next_line(line)) {
        if (is_empty(line))
            continue;
        if (indent_of(line) == 0)
            break;
        if (*ret_indent == 0)
            *ret_indent = indent_of(line);
        end = next_line(line);
    }
    return end;
}

/* The node alone, as topology_write has it, its name `indent` deep. */
static int node_text(const struct topology_node *n, size_t indent, struct strbuf *out, struct err *err)
{
    struct topology alone = {.nodes = (struct topology_node *)(uintptr_t)n, .n_nodes = 1};
    struct strbuf text;
    strbuf_init(&text, TOPOLOGY_MAX_BYTES);
    int rc = topology_write(&alone, &text, err);
    for (const char *line = rc == 0 ? next_line(strbuf_str(&text)) : ""; *line; line = next_line(line)) { /* behind "nodes:" */
        strbuf_printf(out, "%*s", (int)(indent + indent_of(line) - 2), "");
        strbuf_add(out, line + indent_of(line), (size_t)(next_line(line) - line) - indent_of(line));
    }
    strbuf_fini(&text);
    return rc;
}

/* What the file holds now, with the node; false: it cannot be put in without changing more. */
static bool insert(const char *path, const struct topology_node *n, struct strbuf *out)
{
    struct topology *before = NULL, *after = NULL;
    size_t len, indent;
    char *text = topology_text(path, &len, NULL);
    const char *end = text && strlen(text) == len ? end_of_nodes(text, &indent) : NULL;
    bool good = false;

    if (end && (before = topology_parse(path, text, len, NULL))) {
        strbuf_add(out, text, (size_t)(end - text));
        if (end[-1] != '\n')
            strbuf_putc(out, '\n');
        if (node_text(n, indent, out, NULL) == 0)
            strbuf_puts(out, end);
        /* It is what it should be, or it is not taken. */
        after = out->failed ? NULL : topology_parse(path, strbuf_str(out), out->len, NULL);
        good = after && after->n_nodes == before->n_nodes + 1 && topology_find(after, n->name) != UINT32_MAX;
    }
    topology_destroy(before);
    topology_destroy(after);
    free(text);
    return good;
}

int topology_note(const struct topology *t, const char *node, const char *path, struct err *err)
{
    uint32_t at = topology_find(t, node);
    struct strbuf out;
    int rc;

    if (at == UINT32_MAX)
        return err_set(err, ERR_INTERNAL, "node %s is not in the topology", node);
    strbuf_init(&out, TOPOLOGY_MAX_BYTES);
    rc = insert(path, &t->nodes[at], &out) ? replace(path, &out, err) : topology_save(t, path, err);
    strbuf_fini(&out);
    return rc;
}
