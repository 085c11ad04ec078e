/* See sides.h. */
#include "tests/proto/sides.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char folder[96];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

_Noreturn static void fail(const char *what, const struct err *err)
{
    printf("Bail out! %s: %s\n", what, err ? err->text : "");
    exit(1);
}

const char *sides_folder(void)
{
    if (!folder[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%.60s/sc-wire-XXXXXX", tmp && strlen(tmp) < 60 ? tmp : "/tmp");
        if (!mkdtemp(folder))
            fail("mkdtemp", NULL);
        atexit(remove_folder);
    }
    return folder;
}

void side_open(struct side *s, const char *name, const struct wire_net_options *options)
{
    struct wire_net_options o = options ? *options : (struct wire_net_options){0};
    struct err err;

    memset(s, 0, sizeof *s);
    snprintf(s->dir, sizeof s->dir, "%s/%s", sides_folder(), name);
    if (!o.plaintext_tcp_for_tests && !(o.keys = s->keys = keys_open(s->dir, name, &err)))
        fail("keys_open", &err);
    if (!o.node)
        o.node = name;
    if (!(s->net = wire_net_create(&o, &err)) || !(s->wire = wire_create(s->net, &err)))
        fail("wire_create", &err);
}

void side_close(struct side *s)
{
    struct wire_frame *f;

    while ((f = side_frame(s)) != NULL)
        wire_frame_release(f);
    wire_destroy(s->wire);
    wire_net_destroy(s->net);
    keys_close(s->keys);
}

void side_listen(struct side *s, const char *endpoint)
{
    struct err err;

    if (wire_listen(s->wire, endpoint, s->endpoint, &err) != 0)
        fail("wire_listen", &err);
}

void sides_trust(struct side *a, struct side *b)
{
    struct err err;

    if (keys_trust(a->keys, wire_net_node(b->net), keys_public(b->keys), &err) != 0 ||
        keys_trust(b->keys, wire_net_node(a->net), keys_public(a->keys), &err) != 0)
        fail("keys_trust", &err);
}

struct wire_link *side_dial(struct side *from, struct side *to, enum link_purpose purpose)
{
    struct wire_dial dial = {.endpoint = to->endpoint, .purpose = purpose, .key = to->keys ? keys_public(to->keys) : NULL};
    struct err err;
    struct wire_link *link = wire_dial(from->wire, &dial, &err);

    if (!link)
        fail("wire_dial", &err);
    return link;
}

static void take(struct side *s, const struct wire_event *e)
{
    switch (e->kind) {
    case WIRE_UP:
        s->up = *e;
        s->n_up++;
        break;
    case WIRE_DOWN:
        s->down = *e;
        s->n_down++;
        break;
    case WIRE_REFUSED:
        s->refused = *e;
        s->n_refused++;
        break;
    case WIRE_REGISTERED:
        s->registered = *e;
        s->n_registered++;
        break;
    case WIRE_WRITABLE:
        s->n_writable++;
        break;
    case WIRE_FRAME:
        if (s->release)
            wire_frame_release(e->frame);
        else
            s->frames[s->n_frames % SIDES_MAX_KEPT] = e->frame;
        s->n_frames++;
        if (s->release)
            s->next_frame = s->n_frames;
        break;
    default:
        break;
    }
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

bool sides_until(struct side **sides, size_t n_sides, const unsigned *counter, unsigned n, int wait_ms)
{
    double until = now_ms() + wait_ms;
    struct wire_event e;
    struct err err;

    while (!counter || *counter < n) {
        bool any = false;
        for (size_t i = 0; i < n_sides; i++) {
            int rc = wire_poll(sides[i]->wire, 0, NULL, 0, &e, &err);
            if (rc < 0)
                fail("wire_poll", &err);
            if (rc > 0) {
                take(sides[i], &e);
                any = true;
            }
        }
        if (!any && now_ms() >= until)
            return false;
        if (counter && *counter >= n)
            break;
        if (!any)
            usleep(200);
    }
    return true;
}

void sides_run(struct side **sides, size_t n_sides, int ms)
{
    sides_until(sides, n_sides, NULL, 0, ms);
}

struct wire_frame *side_frame(struct side *s)
{
    return s->next_frame < s->n_frames ? s->frames[s->next_frame++ % SIDES_MAX_KEPT] : NULL;
}
