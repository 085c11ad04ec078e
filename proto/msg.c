/* Names of messages, and what belongs where. */
#include "proto/msg.h"

#include <string.h>

static const struct {
    const char *name;
    enum link_purpose purpose; /* 0: any link */
} types[] = {
    [MSG_LINK_HELLO] = {"link_hello", 0},
    [MSG_LINK_OK] = {"link_ok", 0},
    [MSG_BYE] = {"bye", 0},
    [MSG_REGISTER] = {"register", LINK_REGISTER},
    [MSG_REGISTERED] = {"registered", LINK_REGISTER},
    [MSG_ALIVE] = {"alive", 0},
    [MSG_HELLO] = {"hello", LINK_CONTROL},
    [MSG_WELCOME] = {"welcome", LINK_CONTROL},
    [MSG_CONFIGURE] = {"configure", LINK_CONTROL},
    [MSG_LOAD_PROGRESS] = {"load_progress", LINK_CONTROL},
    [MSG_READY] = {"ready", LINK_CONTROL},
    [MSG_HEARTBEAT] = {"heartbeat", LINK_CONTROL},
    [MSG_STAGE_DONE] = {"stage_done", LINK_CONTROL},
    [MSG_DRAIN] = {"drain", LINK_CONTROL},
    [MSG_RELEASE] = {"release", LINK_CONTROL},
    [MSG_ERROR] = {"error", LINK_CONTROL},
    [MSG_STEP] = {"step", LINK_DATA},
    [MSG_RESULT] = {"result", LINK_DATA},
    [MSG_CREDIT] = {"credit", LINK_DATA},
    [MSG_MASK] = {"mask", LINK_DATA},
    [MSG_WEIGHTS_GET] = {"weights_get", LINK_BULK},
    [MSG_WEIGHTS_PUT] = {"weights_put", LINK_BULK},
    [MSG_MANIFEST_GET] = {"manifest_get", LINK_BULK},
    [MSG_MANIFEST_PUT] = {"manifest_put", LINK_BULK},
    [MSG_PROBE] = {"probe", LINK_BULK},
    [MSG_PROBE_ECHO] = {"probe_echo", LINK_BULK},
};
enum { N_TYPES = sizeof types / sizeof *types };

const char *msg_type_name(enum msg_type type)
{
    return (unsigned)type < N_TYPES && types[type].name ? types[type].name : "unknown";
}

enum link_purpose msg_purpose(enum msg_type type)
{
    return (unsigned)type < N_TYPES ? types[type].purpose : 0;
}

const char *link_purpose_name(enum link_purpose purpose)
{
    static const char *const names[LINK_PURPOSES] = {"no", "control", "data", "bulk", "register"};

    return (unsigned)purpose < LINK_PURPOSES ? names[purpose] : "unknown";
}

bool msg_name_valid(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len <= MSG_MAX_NAME && strchr("._-", name[0]) == NULL &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

bool msg_name_reserved(const char *name)
{
    return strcmp(name, "coordinator") == 0 || strcmp(name, "default") == 0;
}

bool msg_epoch_same(struct msg_epoch a, struct msg_epoch b)
{
    return a.instance == b.instance && a.counter == b.counter;
}
