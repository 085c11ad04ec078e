#include "tests/pipeline/devices.h"

#include <stdio.h>
#include <string.h>

struct chain chain_of(struct engine *e)
{
    json_t *status = engine_status(e), *stages = json_object_get(status, "stages"), *stage;
    struct chain c = {.n = json_array_size(stages), .adjacent = true};
    size_t i, len = 0;
    char seen[RIG_NODES_MAX * 4] = "", last[16] = "";

    json_array_foreach(stages, i, stage) {
        const char *node = json_string_value(json_object_get(stage, "node"));
        len += (size_t)snprintf(c.text + len, sizeof c.text - len, "%s%s/%s", i ? " " : "", node, json_string_value(json_object_get(stage, "device")));
        if (strcmp(node, last) != 0) {
            c.adjacent = c.adjacent && !strstr(seen, node);
            snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s ", node);
        }
        snprintf(last, sizeof last, "%s", node);
    }
    json_decref(status);
    return c;
}

bool await_state(struct engine *e, const char *node, const char *state, int64_t wait_ms)
{
    bool found = false;
    for (int64_t until = rig_now_ms() + wait_ms; !found && rig_now_ms() < until; rig_sleep_ms(20)) {
        json_t *status = engine_status(e), *n;
        size_t i;
        json_array_foreach(json_object_get(status, "nodes"), i, n) found = found || (strcmp(json_string_value(json_object_get(n, "name")), node) == 0 &&
                                                                                    strcmp(json_string_value(json_object_get(n, "state")), state) == 0);
        json_decref(status);
    }
    return found;
}

bool all_the_same(struct engine *e, const struct answer *answers, unsigned n, bool with_top, void (*at)(void *), void *arg, int64_t within_ms)
{
    struct stream s[DEVICES_ANSWERS_MAX];
    bool good = n <= DEVICES_ANSWERS_MAX;
    int64_t until = rig_now_ms() + within_ms;

    n = good ? n : DEVICES_ANSWERS_MAX;
    for (unsigned i = 0; i < n; i++)
        stream_begin(&s[i], e, &answers[i], with_top, UINT32_MAX);
    for (unsigned open = n; open > 0 && rig_now_ms() < until;) {
        open = 0;
        for (unsigned i = 0; i < n; i++) {
            open += !stream_read(&s[i], 1);
            if (at && s[i].n >= 2 && s[i].n < s[i].want->n) {
                at(arg);
                at = NULL;
            }
        }
    }
    for (unsigned i = 0; i < n; i++)
        good = stream_end(&s[i]) && good;
    if (!good)
        rig_show_notes();
    return good;
}
