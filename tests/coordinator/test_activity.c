/* coordinator/activity: sums in whichever order they are told, the ring and its cursors, nothing recorded while nobody looks. */
#include "coordinator/activity.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/tap.h"

enum { STAGES = 3, STORM = 20000 };

static struct activity a;
static struct err err;

static void stage(uint64_t batch, uint32_t i, int64_t came, int64_t started, int64_t ended)
{
    activity_stage_done(&a,
                        &(struct activity_record){.kind = ACTIVITY_STAGE,
                                                  .batch = batch,
                                                  .stage = i,
                                                  .at_us = came,
                                                  .started_us = started,
                                                  .ended_us = ended,
                                                  .rows = 2,
                                                  .bytes = 100},
                        ended);
}

/* What is told behind a cursor; the new one in *since. */
static json_t *look(uint64_t *since, int64_t now_us)
{
    struct strbuf out;
    json_t *o;

    strbuf_init(&out, 8 << 20);
    if (activity_write(&a, *since, now_us, 1000, &out, &err) != 0)
        return NULL;
    o = json_loads(strbuf_str(&out), 0, NULL);
    *since = (uint64_t)json_integer_value(json_object_get(o, "cursor"));
    strbuf_fini(&out);
    return o;
}

static size_t n_records(uint64_t *since, int64_t now_us)
{
    json_t *o = look(since, now_us);
    size_t n = json_array_size(json_object_get(o, "records"));
    json_decref(o);
    return n;
}

static void test_sums(void)
{
    activity_begun(&a, 1, STAGES, 1000);
    activity_sent(&a, 7, 2, 1, 1000);
    activity_sent(&a, 8, 2, 1, 1500);
    /* The last stage's word first, the result before all of them. */
    activity_landed(&a, 7, 2000);
    stage(7, 2, 1700, 1750, 1900);
    stage(7, 0, 1100, 1100, 1300);
    stage(7, 1, 1350, 1400, 1600);
    is_int(a.stages[0].compute_us, 200, "a stage computes");
    is_int(a.stages[1].queued_us, 50, "what came waits");
    is_int(a.stages[0].wire_us, 100, "the way from us to the first stage");
    is_int(a.stages[1].wire_us, 50, "between stages");
    is_int(a.stages[2].wire_us, 100, "to the last");
    is_int(a.stages[3].wire_us, 100, "and back");
    ok(a.stages[2].hop_us == 100, "the first way is the average");
    is_int(a.stages[0].rows + a.stages[1].bytes, 102, "rows and bytes");
    is_int(activity_busy_us(&a, 2500), 1500, "something is under way since the first was sent");
    stage(8, 0, 1400, 1400, 1500); /* clocks that disagree */
    is_int(a.stages[0].wire_us, 100, "no way is shorter than none");
    activity_landed(&a, 8, 3000);
    is_int(activity_busy_us(&a, 9000), 2000, "and no longer than until the last landed");
    activity_sent(&a, 9, 2, 1, 10000);
    activity_broken(&a, 10400);
    is_int(activity_busy_us(&a, 20000), 2400, "what breaks is not under way any more");
    activity_landed(&a, 9, 10500);
    is_int(activity_busy_us(&a, 20000), 2400, "nor lands");
    activity_begun(&a, 2, 1, 20000);
    is_int(a.stages[0].compute_us + activity_busy_us(&a, 30000), 0, "another epoch begins with nothing");
}

static void test_ring(void)
{
    uint64_t cursor = UINT64_MAX, other;
    int64_t t = 100000;
    json_t *o;

    ok(!a.ring, "nobody has looked: there is no ring");
    o = look(&cursor, t);
    ok(o && json_is_false(json_object_get(o, "fresh")) && json_array_size(json_object_get(o, "records")) == 0, "the first look sees nothing, %s",
       err.text);
    json_decref(o);
    activity_sent(&a, 20, 5, 1, t);
    stage(20, 0, t + 10, t + 20, t + 30);
    activity_landed(&a, 20, t + 40);
    other = cursor;
    o = look(&cursor, t + 50);
    json_t *r = json_array_get(json_object_get(o, "records"), 1);
    is_int(json_array_size(json_object_get(o, "records")), 3, "then there are records");
    ok(json_is_true(json_object_get(o, "fresh")), "and the rest is fresh");
    is_int(json_integer_value(json_array_get(r, 3)), t + 10 - 1000, "times are from the base on");
    is_int(json_integer_value(json_array_get(json_array_get(json_object_get(o, "records"), 0), 3)), 5, "a sent step has its rows");
    json_decref(o);
    is_int(n_records(&cursor, t + 60), 0, "the cursor is behind them");
    is_int(n_records(&other, t + 60), 3, "another reader has its own");
    cursor = 99;
    is_int(n_records(&cursor, t + 60), 0, "a cursor of another run finds nothing");
    is_int((int64_t)cursor, 3, "and is set right");

    for (uint64_t i = 0; i < ACTIVITY_RECORDS; i++)
        activity_sent(&a, 100 + i, 1, 1, t + 100);
    cursor = 1;
    o = look(&cursor, t + 200);
    is_int(json_array_size(json_object_get(o, "records")), ACTIVITY_RECORDS, "a reader that was away gets what is left");
    is_int(json_integer_value(json_object_get(o, "missed")), 2, "and hears how much it missed");
    json_decref(o);

    t += (ACTIVITY_LOOK_MS + 1) * 1000;
    activity_sent(&a, 1, 1, 1, t);
    is_int(n_records(&cursor, t), 0, "nobody looked for a while: nothing was recorded");
    activity_sent(&a, 2, 1, 1, t);
    is_int(n_records(&cursor, t), 1, "until somebody does");
}

static void *tell(void *arg)
{
    (void)arg;
    for (uint64_t i = 1; i <= STORM; i++)
        activity_sent(&a, i, 1, 1, 1000);
    return NULL;
}

/* A reader beside the thread that tells sees each record once and in order, or hears what it missed. */
static void test_threads(void)
{
    uint64_t cursor = UINT64_MAX, last = 0, seen = 0, missed = 0;
    pthread_t thread;
    bool in_order = true;

    json_decref(look(&cursor, 1000));
    pthread_create(&thread, NULL, tell, NULL);
    while (seen + missed < STORM) {
        json_t *o = look(&cursor, 1000), *r;
        size_t i;
        missed += (uint64_t)json_integer_value(json_object_get(o, "missed"));
        json_array_foreach(json_object_get(o, "records"), i, r) {
            uint64_t batch = (uint64_t)json_integer_value(json_array_get(r, 1));
            in_order = in_order && batch > last;
            last = batch;
            seen++;
        }
        json_decref(o);
    }
    pthread_join(thread, NULL);
    ok(in_order && last == STORM, "a reader beside the writer: %d records seen, %d missed, in order", (int)seen, (int)missed);
}

int main(void)
{
    ok(activity_init(&a, &err) == 0, "init %s", err.text);
    test_sums();
    test_ring();
    activity_fini(&a);
    ok(activity_init(&a, &err) == 0, "again %s", err.text);
    test_threads();
    activity_fini(&a);
    return tap_done();
}
