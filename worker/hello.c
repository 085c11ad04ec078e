/* What a node says of itself to a coordinator: its devices, what they can do, what they hold. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/threadpool.h"
#include "gguf/quant.h"
#include "worker/node_state.h"

enum { READ_BYTES = 128 << 20, READ_MS = 80, RATE_MS = 40, PEER_BYTES = 32 << 20 };

static const enum quant_type types[NODE_RATES] = {QUANT_Q4_K, QUANT_Q6_K, QUANT_Q8_0, QUANT_Q4_0, QUANT_F16};

/* What a matrix of a type takes there, once it lies as the kernels want it. */
static size_t fill_bits(struct backend *be, struct msg_bits *ret)
{
    enum { ROWS = 1024, COLS = 4096 };
    size_t n = 0;
    for (uint32_t type = 0; type < QUANT_TYPES && n < MSG_MAX_TYPES; type++) {
        const struct quant_traits *t = quant_traits(type);
        if (t && t->computed)
            ret[n++] = (struct msg_bits){t->name, 8.0 * (double)be->ops->weight_bytes(be, (enum quant_type)type, ROWS, COLS) / ROWS / COLS};
    }
    return n;
}

static bool told_to_stop(const struct node *n)
{
    struct pollfd signals = {.fd = n->o->signal_fd, .events = POLLIN};
    return poll(&signals, 1, 0) > 0;
}

/* 1: told to stop before it was done. */
static int measure(struct seat *s, struct backend *be, struct err *err)
{
    int rc = profile_memory(be, READ_BYTES, READ_MS, &s->memory, err);
    for (s->n_rates = 0; rc == 0 && s->n_rates < NODE_RATES; s->n_rates++) {
        struct profile_rate r = {.type = types[s->n_rates]};
        if (told_to_stop(s->node))
            return 1;
        rc = profile_rate(be, RATE_MS, &r, err);
        s->rates[s->n_rates] = (struct msg_rate){.type = quant_traits(r.type)->name, .per_s = r.per_s[PROFILE_PROMPT],
                                                 .few_per_s = r.per_s[PROFILE_FEW], .one_per_s = r.per_s[PROFILE_ROW]};
    }
    if (rc == 0 && told_to_stop(s->node))
        return 1;
    return rc == 0 ? profile_attention(be, RATE_MS, s->attention_per_s, err) : rc;
}

/* How fast rows go straight from one of the node's devices to another. Opening a GPU takes its time: each is opened once. */
static int measure_peers(struct node *n, struct err *err)
{
    struct backend *gpu[DEVICE_MAX] = {NULL};
    unsigned gpus = 0;
    int rc = 0;
    for (unsigned i = 0; i < n->n_seats; i++)
        gpus += n->seats[i].device->kind != DEVICE_CPU;
    for (unsigned i = 0; rc == 0 && gpus > 1 && i < n->n_seats; i++)
        if (n->seats[i].device->kind != DEVICE_CPU && !(gpu[i] = device_open(n->seats[i].device, &n->o->how, err)))
            rc = -1;
    for (unsigned i = 0; i < n->n_seats; i++)
        for (unsigned k = 0; rc == 0 && k < n->n_seats; k++) {
            struct seat *s = &n->seats[i];
            double per_s = 0;
            if (i == k || !gpu[i] || !gpu[k])
                continue;
            rc = profile_peer(gpu[i], gpu[k], PEER_BYTES, &per_s, err);
            if (rc == 0 && per_s > 0)
                s->peers[s->n_peers++] = (struct msg_peer){n->seats[k].device->name, per_s};
        }
    for (unsigned i = 0; i < n->n_seats; i++)
        backend_destroy(gpu[i]);
    return rc;
}

/* A part of the processors like one that was measured is not measured again: it takes its time, and everybody waits. */
static bool take_from_twin(struct node *n, struct seat *s)
{
    for (struct seat *twin = n->seats; twin < s; twin++)
        if (twin->device->kind == DEVICE_CPU && s->device->kind == DEVICE_CPU &&
            device_threads(twin->device, &n->o->how) == device_threads(s->device, &n->o->how)) {
            s->memory = twin->memory;
            memcpy(s->attention_per_s, twin->attention_per_s, sizeof s->attention_per_s);
            s->n_rates = twin->n_rates;
            memcpy(s->rates, twin->rates, sizeof s->rates);
            return true;
        }
    return false;
}

int hello_measure(struct node *n, struct err *err)
{
    struct backend *cpu = backend_cpu_create(1, n->o->how.isa, err);
    int rc = cpu ? 0 : -1;

    if (cpu)
        snprintf(n->isa, sizeof n->isa, "%s", backend_cpu_isa(cpu));
    backend_destroy(cpu);
    for (unsigned i = 0; rc == 0 && i < n->n_seats; i++) {
        struct seat *s = &n->seats[i];
        struct backend *be = device_open(s->device, &n->o->how, err);
        if (!be)
            return -1;
        device_text(be, s->text, sizeof s->text);
        s->numerics = device_numerics(be, &n->o->how, &s->numerics_revision);
        s->n_bits = fill_bits(be, s->bits);
        if (n->o->measure && !take_from_twin(n, s))
            rc = measure(s, be, err);
        backend_destroy(be);
        if (n->n_seats > 1 || s->device->kind != DEVICE_CPU)
            log_line(LOG_INFO, "device %s: %s", s->device->name, s->text);
    }
    return rc == 0 && n->o->measure ? measure_peers(n, err) : rc;
}

static struct msg_device describe(struct node *n, struct seat *s)
{
    return (struct msg_device){
        .name = s->device->name, .memory_bytes = builder_memory(s->builder), .read_bytes_per_s = s->memory.read_per_s, .rates = s->rates,
        .attention_per_s = s->attention_per_s[PROFILE_ROW], .attention_few_per_s = s->attention_per_s[PROFILE_FEW],
        .attention_many_per_s = s->attention_per_s[PROFILE_PROMPT], .back_bytes_per_s = s->memory.back_per_s, .peers = s->peers, .n_peers = s->n_peers,
        .n_rates = s->n_rates, .numerics_class = s->numerics, .numerics_revision = s->numerics_revision,
        .threads = device_threads(s->device, &n->o->how), .copy_bytes_per_s = s->memory.copy_per_s, .bits = s->bits, .n_bits = s->n_bits, .text = s->text,
    };
}

int hello_send(struct node *n)
{
    static const char no_text[] = "";
    uint8_t ids[MSG_MAX_MODELS][MSG_ID_BYTES];
    struct msg_resident resident[DEVICE_MAX];
    struct msg_device devices[DEVICE_MAX];
    const struct seat *first = &n->seats[0];
    struct msg m = {.type = MSG_HELLO};
    struct msg_hello *h = &m.hello;
    bool old = wire_link_protocol(n->control) < PROTOCOL_DEVICES; /* it would not know what to do with several */

    *h = (struct msg_hello){
        .version = n->o->version, .node = n->o->name, .instance = wire_net_instance(n->net), .numerics_class = first->numerics,
        .numerics_revision = first->numerics_revision, .isa = n->isa, .threads = n->o->how.threads ? n->o->how.threads : threadpool_cpus(),
        .address = n->address[0] ? n->address : no_text, .key = n->o->keys ? keys_public(n->o->keys) : NULL, .devices = devices,
        .bits = first->bits, .n_bits = first->n_bits, .resident = resident, .models = (const uint8_t(*)[MSG_ID_BYTES])ids,
    };
    for (unsigned i = 0; i < n->n_seats && !(old && i > 0); i++) {
        devices[h->n_devices++] = describe(n, &n->seats[i]);
        builder_resident(n->seats[i].builder, &resident[h->n_resident]);
        h->n_resident += resident[h->n_resident].present;
    }
    h->n_models = models_ids(n->models, ids, MSG_MAX_MODELS);
    return control_send(n, &m);
}
