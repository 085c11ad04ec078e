/* See inlet.h. */
#include "worker/inlet.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"

struct own {
    struct inlet in; /* first: the two are one address */
    _Atomic unsigned holders;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t filled;
    struct stage *stage; /* NULL: closed */
    void *rooms[INLET_ROOMS];
    bool taken[INLET_ROOMS];
    size_t room_bytes;
    bool filling;
};

static struct own *own(struct inlet *in)
{
    return (struct own *)in;
}

static void destroy(struct own *o)
{
    queue_destroy(o->in.frames);
    pthread_cond_destroy(&o->filled);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

struct inlet *inlet_create(struct stage *stage, size_t frames, struct err *err)
{
    struct own *o = mem_new(1, sizeof *o, err);
    if (!o)
        return NULL;
    atomic_init(&o->holders, 1);
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->filled, NULL);
    o->stage = stage;
    if ((o->in.frames = queue_create(frames, err)))
        return &o->in;
    destroy(o);
    return NULL;
}

struct inlet *inlet_share(struct inlet *in)
{
    atomic_fetch_add(&own(in)->holders, 1);
    return in;
}

void inlet_drop(struct inlet *in)
{
    if (in && atomic_fetch_sub(&own(in)->holders, 1) == 1)
        destroy(own(in));
}

/* Under the lock. */
static void free_rooms(struct own *o)
{
    for (int i = 0; i < INLET_ROOMS; i++) {
        if (o->rooms[i])
            stage_room_free(o->stage, o->rooms[i], o->room_bytes);
        o->rooms[i] = NULL;
    }
}

void inlet_close(struct inlet *in)
{
    struct own *o = own(in);
    pthread_mutex_lock(&o->lock);
    while (o->filling)
        pthread_cond_wait(&o->filled, &o->lock);
    free_rooms(o);
    o->stage = NULL;
    pthread_mutex_unlock(&o->lock);
}

bool inlet_meet(struct inlet *in, struct stage *from, size_t bytes)
{
    struct own *o = own(in);
    bool made = false;
    pthread_mutex_lock(&o->lock);
    if (o->stage && !o->rooms[0] && stage_reaches(from, o->stage)) {
        o->room_bytes = bytes < INLET_ROOM_BYTES_MAX ? bytes : INLET_ROOM_BYTES_MAX;
        made = true;
        for (int i = 0; i < INLET_ROOMS && made; i++)
            made = (o->rooms[i] = stage_room_alloc(o->stage, o->room_bytes, NULL)) != NULL;
        if (!made) /* the device is full: all goes as if they did not reach each other */
            free_rooms(o);
    }
    pthread_mutex_unlock(&o->lock);
    return made;
}

void *inlet_room(struct inlet *in, size_t bytes, struct stage **ret_stage)
{
    struct own *o = own(in);
    void *room = NULL;
    pthread_mutex_lock(&o->lock);
    for (int i = 0; i < INLET_ROOMS && !room && bytes <= o->room_bytes; i++)
        if (o->rooms[i] && !o->taken[i]) {
            room = o->rooms[i];
            o->taken[i] = o->filling = true;
            *ret_stage = o->stage;
        }
    pthread_mutex_unlock(&o->lock);
    return room;
}

void inlet_filled(struct inlet *in)
{
    struct own *o = own(in);
    pthread_mutex_lock(&o->lock);
    o->filling = false;
    pthread_cond_broadcast(&o->filled);
    pthread_mutex_unlock(&o->lock);
}

void inlet_room_free(struct inlet *in, void *room)
{
    struct own *o = own(in);
    pthread_mutex_lock(&o->lock);
    for (int i = 0; i < INLET_ROOMS; i++)
        if (o->rooms[i] == room)
            o->taken[i] = false;
    pthread_mutex_unlock(&o->lock);
}
