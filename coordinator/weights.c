/* Weights for nodes that have no file of the model: from our own file, and from nodes that have one. */
#include <string.h>

#include "coordinator/cluster.h"

/* The server's threads have the model open by themselves: a file that was replaced meanwhile is not the same model. */
static struct gguf *open_model(void *arg, const uint8_t *id, struct err *err)
{
    struct engine *e = arg;
    uint8_t found[MSG_ID_BYTES];
    struct gguf *g;

    if (memcmp(id, e->model_id, sizeof e->model_id) != 0) {
        err_set(err, ERR_NOT_FOUND, "the coordinator has another model, or another quantization of it");
        return NULL;
    }
    if (!(g = gguf_open(e->options.model, true, err)))
        return NULL;
    gguf_model_id(g, found);
    if (memcmp(found, id, sizeof found) == 0)
        return g;
    err_set(err, ERR_INPUT, "the coordinator's file is another one than when it began");
    gguf_close(g);
    return NULL;
}

static void wake(void *arg)
{
    wire_wake(((struct engine *)arg)->wire);
}

int weights_init(struct engine *e, struct err *err)
{
    char hashes[BULK_PATH];
    struct bulk_options o = {.open = open_model, .arg = e, .hashes_dir = bulk_hashes_dir(e->keys, hashes), .wake = wake, .wake_arg = e};
    if (!e->keys)
        return 0;
    return (e->bulk = bulk_create(&o, err)) ? 0 : -1;
}

void weights_event(struct engine *e, struct wire_event *event)
{
    switch (event->kind) {
    case WIRE_UP:
        if (e->bulk)
            bulk_up(e->bulk, event->link);
        else
            wire_link_close(event->link, "this coordinator serves no weights");
        return;
    case WIRE_FRAME:
        if (e->bulk)
            bulk_frame(e->bulk, event->link, event->frame);
        else
            wire_frame_release(event->frame);
        return;
    case WIRE_WRITABLE:
        if (e->bulk)
            bulk_writable(e->bulk, event->link);
        return;
    case WIRE_DOWN:
        if (e->bulk)
            bulk_down(e->bulk, event->link);
        return;
    default:
        return;
    }
}

static bool has_model(const struct engine *e, const struct node *n)
{
    for (size_t i = 0; i < n->hello.n_models; i++)
        if (memcmp(n->hello.models[i], e->model_id, sizeof e->model_id) == 0)
            return true;
    return false;
}

size_t weights_sources(struct engine *e, uint32_t stage, struct msg_source ret[MSG_MAX_SOURCES])
{
    const struct node *self = &e->nodes[e->pipe.stages[stage].node];
    size_t n = 0;
    /* Our hashes are the ones that count, so we come first; a header alone is good for nothing else. */
    if (e->bulk && e->listening[0])
        ret[n++] = (struct msg_source){wire_net_node(e->net), e->listening, keys_public(e->keys)};
    for (int asked = 1; asked >= 0 && e->keys; asked--)
        for (uint32_t i = 0; i < e->pipe.n_stages && n < MSG_MAX_SOURCES; i++) {
            const struct node *node = &e->nodes[e->pipe.stages[i].node];
            bool can = has_model(e, node) && nodes_can_dial(self, node), own = node == self;
            if (!own && pipeline_stage_of(e, node, NULL) == (int)i && node->has_key && can == (asked == 1)) /* each node once */
                ret[n++] = (struct msg_source){node->name, can ? node->address : "", node->key};
        }
    return n;
}
