/* Joining by an invitation: the worker's side. */
#include "proto/wire_int.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/invite.h"

/* Waits for what the one link brings; 0 when it was registered. */
static int converse(struct wire *w, const struct invite *in, const char *name, uint64_t until_us, struct codec *codec, struct wire_joined *ret,
                    struct err *err)
{
    struct wire_event e;
    struct msg m = {.type = MSG_REGISTER, .register_.name = name};

    memcpy(m.register_.secret, in->secret, sizeof m.register_.secret);
    for (;;) {
        uint64_t now = wire_now_us();
        int rc = wire_poll(w, now < until_us ? (int)((until_us - now + 999) / 1000) : 0, NULL, 0, &e, err);
        if (rc < 0)
            return -1;
        if (rc == 0 && wire_now_us() >= until_us)
            return err_set(err, ERR_IO, "no answer in time");
        if (rc == 0)
            continue;
        if (e.kind == WIRE_DOWN)
            return err_set(err, ERR_IO, "%s", e.text);
        if (e.kind == WIRE_UP && wire_send_msg(e.link, &m, NULL, 0, NULL, NULL, err) != WIRE_SENT)
            return err->kind ? -1 : err_set(err, ERR_IO, "the registration could not be sent");
        if (e.kind != WIRE_FRAME)
            continue;
        rc = codec_decode(codec, e.frame->type, e.frame->head, e.frame->head_len, e.frame->payload_len, &m, err);
        if (rc == 0 && m.type == MSG_REGISTERED) {
            snprintf(ret->name, sizeof ret->name, "%s", m.registered.name);
            snprintf(ret->coordinator, sizeof ret->coordinator, "%s", m.registered.coordinator);
        }
        wire_frame_release(e.frame);
        return rc;
    }
}

static int try_address(struct wire *w, struct codec *codec, const struct invite *in, const char *address, const char *name, uint64_t until_us,
                       struct wire_joined *ret, struct err *err)
{
    struct wire_dial dial = {.endpoint = address, .purpose = LINK_REGISTER, .key = in->key};
    struct wire_link *link;
    int rc;

    if (!(link = wire_dial(w, &dial, err)))
        return -1;
    rc = converse(w, in, name, until_us, codec, ret, err);
    if (rc == 0)
        wire_link_close(link, NULL);
    else
        err_wrap(err, "%s", address);
    return rc;
}

static int try_all(struct wire_net *net, const struct invite *in, const char *name, uint64_t until_us, struct wire_joined *ret, struct err *err)
{
    struct codec *codec = codec_create(CODEC_SMALL_BYTES, err);
    int rc = -1;

    for (size_t i = 0; codec && rc != 0 && i < in->n_addresses; i++) {
        uint64_t now = wire_now_us(), share = (until_us > now ? until_us - now : 0) / (in->n_addresses - i);
        struct wire *w = wire_create(net, err);
        err_clear(err);
        if (w && (rc = try_address(w, codec, in, in->addresses[i], name, now + share, ret, err)) == 0)
            snprintf(ret->address, sizeof ret->address, "%s", in->addresses[i]);
        wire_destroy(w);
    }
    codec_destroy(codec);
    return rc;
}

int wire_join(struct keys *k, const char *token, int timeout_ms, struct wire_joined *ret, struct err *err)
{
    struct invite in;
    struct wire_joined joined = {0};
    struct wire_net *net;
    struct err local = {0};
    int rc;

    err = err ? err : &local;
    err_clear(err);
    if (invite_parse(token, (uint64_t)time(NULL), &in, err) != 0)
        return -1;
    net = wire_net_create(&(struct wire_net_options){.keys = k}, err);
    if (!net)
        return -1;
    rc = try_all(net, &in, keys_name(k), wire_now_us() + (uint64_t)timeout_ms * 1000, &joined, err);
    wire_net_destroy(net);
    memcpy(joined.key, in.key, KEY_BYTES);
    sodium_memzero(&in, sizeof in);
    if (rc != 0)
        return err_wrap(err, "joining");
    if (keys_trust(k, joined.coordinator, joined.key, err) != 0 && err->kind != ERR_BUSY)
        return err_wrap(err, "joining");
    err_clear(err);
    *ret = joined;
    return 0;
}
