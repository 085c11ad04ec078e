/* Nodes that no plan can have: those whose hello no sum can be made of, and those that have no room for a single layer. The others are
 * planned with, as if these were not there; why is told once, and shown by `status` as long as it lasts. */
#include <inttypes.h>
#include <string.h>

#include "coordinator/cluster.h"
#include "coordinator/plan_input.h"

enum { BITS_MOST = 64 };
static const uint64_t memory_most = UINT64_C(1) << 50; /* of a device: sums of them stay numbers */

/* Whether sums can be made of a hello; a device's name that no topology knows is topology_put's to find. */
static int check_hello(const struct msg_hello *h, struct err *err)
{
    for (size_t k = 0; k < h->n_devices; k++) {
        const struct msg_device *d = &h->devices[k];
        const struct msg_bits *bits = d->n_bits ? d->bits : h->bits;
        if (d->memory_bytes > memory_most)
            return err_set(err, ERR_INPUT, "it says that %.32s has %" PRIu64 " bytes of memory, at most %" PRIu64 " are allowed", d->name,
                           d->memory_bytes, memory_most);
        for (size_t i = 0; i < (d->n_bits ? d->n_bits : h->n_bits); i++)
            if (bits[i].bits > BITS_MOST)
                return err_set(err, ERR_INPUT, "it says that a weight of %.16s takes %g bits on %.32s, at most %d are allowed",
                               bits[i].type, bits[i].bits, d->name, BITS_MOST);
        for (size_t i = 0; i < k; i++)
            if (strcmp(h->devices[i].name, d->name) == 0)
                return err_set(err, ERR_INPUT, "it says twice that it has a device %s", d->name);
    }
    return 0;
}

/* Plans are made without it from now on; told once, and as long as it lasts shown by `status`. */
void sift_out(struct engine *e, struct node *n, const char *why)
{
    char before[CLUSTER_LEFT_OUT_BYTES];
    memcpy(before, n->left_out, sizeof before);
    snprintf(n->left_out, sizeof n->left_out, "%s", why);
    if (strcmp(before, n->left_out) != 0)
        engine_event_text(e, ENGINE_NOTE_TROUBLE, n->name, "node %s is left out: %s", n->name, n->left_out);
}

void sift_hellos(struct engine *e)
{
    struct err why;
    for (uint32_t i = 0; i < e->n_nodes; i++) {
        struct node *n = &e->nodes[i];
        n->unusable = n->state == NODE_HERE && check_hello(&n->hello, &why) != 0;
        if (n->unusable)
            sift_out(e, n, why.text);
    }
}

/* Nodes on which no layer fits, whatever the others hold; what was too little for one plan may do for the next. */
void sift_sizes(struct engine *e, const struct plan_source *s)
{
    char why[CLUSTER_LEFT_OUT_BYTES];
    for (uint32_t i = 0; i < s->in.n_nodes; i++) {
        struct node *n = nodes_find(e, s->nodes[i].name);
        if (!n || n->unusable || s->nodes[i].away)
            continue;
        if (plan_holds_nothing(&s->in, i, why, sizeof why))
            sift_out(e, n, why);
        else
            n->left_out[0] = '\0';
    }
}

/* Who is missing, and might have done. */
void sift_explain(const struct engine *e, struct err *err)
{
    for (uint32_t i = 0; err->kind == ERR_MEMORY && i < e->n_nodes; i++)
        if (e->nodes[i].state == NODE_HERE && e->nodes[i].left_out[0])
            err_set(err, err->kind, "%s; node %s is left out: %s", err->text, e->nodes[i].name, e->nodes[i].left_out);
}
