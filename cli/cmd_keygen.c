/* stagecoach keygen: this node's key pair, and whom it trusts. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/keydir.h"
#include "cli/ui.h"

struct values {
    const char *keys, *name, *trust, *remove;
    bool list;
};

static const struct opt options[] = {
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, keys), .help = "Folder of keys (default: ~/.config/stagecoach)"},
    {"name", 0, OPT_STRING, .arg = "NAME", .offset = offsetof(struct values, name), .help = "What this node is called from now on (default: the host's name)"},
    {"trust", 0, OPT_STRING, .arg = "NAME=KEY", .offset = offsetof(struct values, trust), .help = "Let the node with this public key connect, as NAME"},
    {"remove", 0, OPT_STRING, .arg = "NAME", .offset = offsetof(struct values, remove), .help = "Trust this node no longer; its open links are closed"},
    {"list", 0, OPT_FLAG, .offset = offsetof(struct values, list), .help = "Print the trusted nodes' names and keys as well"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach keygen", "This node's public key, made if there is none yet."},
    {"stagecoach keygen --name attic", "The same, and the node is called attic."},
    {"stagecoach keygen --trust attic=3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "By hand what an invitation does."},
    {"stagecoach keygen --remove attic", "Within a second attic is cut off, in running processes, too."},
    {0},
};

/* NAME=KEY */
static int trust(struct keys *k, const char *given, struct err *err)
{
    char name[MSG_MAX_NAME + 1];
    uint8_t key[KEY_BYTES];
    const char *equals = strchr(given, '=');
    size_t len = equals ? (size_t)(equals - given) : 0;

    if (len == 0 || len > MSG_MAX_NAME)
        return err_set(err, ERR_USAGE, "--trust takes NAME=KEY, as in attic=3d40…");
    memcpy(name, given, len);
    name[len] = '\0';
    if (key_parse(equals + 1, key, err) != 0) {
        err_wrap(err, "--trust %s", name);
        err->kind = ERR_USAGE;
        return -1;
    }
    return keys_trust(k, name, key, err);
}

static void print_one(void *arg, const char *name, const uint8_t *key)
{
    char digits[KEY_TEXT];

    (void)arg;
    ui_outf("%s %s\n", name, key_format(key, digits));
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct keys *k = keydir_open(v->keys, NULL, err);
    struct err told = {0};
    char digits[KEY_TEXT];
    int rc = -1;

    (void)parsed;
    if (!k)
        return -1;
    if ((v->name && keys_set_name(k, v->name, err) != 0) || (v->trust && trust(k, v->trust, err) != 0) ||
        (v->remove && keys_distrust(k, v->remove, err) != 0))
        goto done;
    ui_outf("%s\n", key_format(keys_public(k), digits));
    if (v->list)
        keys_each(k, print_one, NULL);
    if (keys_check(k, &told) != 0)
        ui_say("%s", told.text);
    rc = 0;
done:
    keys_close(k);
    return rc;
}

const struct command cmd_keygen = {
    .opts = {.name = "keygen",
             .summary = "Make and show this node's key; trust and remove others'",
             .synopsis = "[--name NAME] [--trust NAME=KEY] [--remove NAME] [--list]",
             .description = "Prints this node's public key, 64 hexadecimal digits. The pair is made on first use; the secret part stays in the "
                            "folder of keys, which only you may read, and never leaves it.\n\nNodes talk over the network only to nodes whose keys "
                            "they know: each has a file NAME.pub in the folder's trusted/. An invitation (\"stagecoach invite\") puts it there for "
                            "you.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
