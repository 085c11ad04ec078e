/* See gather.h. */
#include "sched/gather.h"

/* A stage that waits for the next prompt, while its word that it is done comes here and that prompt goes there, may lose one part in so
 * many of the time that it takes it. */
enum { WAIT_PART = 32 };

/* Requests of which none answers yet. */
struct crowd {
    uint32_t n_held, n_read, n_unread; /* read: of those held, not only sent */
    uint64_t rows, length;  /* of unread ones: what is left, and all */
    int32_t unread_first, held_first; /* the highest priorities */
};

static bool answers(const struct seq *q)
{
    return q->n_tokens > q->n_prompt || q->sampling || seq_rebuilding(q);
}

static bool is_held(const struct seq *q)
{
    return q->n_tokens == q->n_prompt && q->n_max > q->n_prompt && !q->sampling && q->n_sent + 1 == q->n_tokens;
}

static int32_t higher(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* It came with the others and will answer, too. */
static bool is_awaited(const struct sched *s, const struct seq *q)
{
    return q->n_max > q->n_prompt && (s->gather_age == 0 || q->age < s->gather_age);
}

static void count_unread(const struct seq *q, struct crowd *c)
{
    c->n_unread++;
    c->rows += q->n_tokens - q->n_sent;
    c->length += q->n_tokens;
    c->unread_first = higher(c->unread_first, q->priority);
}

/* false: somebody's answer runs, or is to go on. Of those that wait as many count as there are slots. */
static bool look_at(const struct sched *s, struct crowd *ret)
{
    uint32_t slots = s->config.max_seqs - s->n_running;
    *ret = (struct crowd){.unread_first = INT32_MIN, .held_first = INT32_MIN};
    for (uint32_t i = 0; i < s->n_running; i++) {
        const struct seq *q = &s->seqs[s->running[i]];
        if (answers(q))
            return false;
        if (is_held(q)) {
            ret->n_held++;
            ret->n_read += q->n_done == q->n_sent;
            ret->held_first = higher(ret->held_first, q->priority);
        } else if (is_awaited(s, q))
            count_unread(q, ret);
    }
    for (uint32_t i = 0; i < s->waiting.n && slots > 0; i++) {
        const struct seq *q = &s->seqs[s->waiting.seqs[i]];
        if (answers(q))
            return false;
        if (is_awaited(s, q)) {
            count_unread(q, ret);
            slots--;
        }
    }
    return true;
}

bool gather_may_wait(const struct sched *s, uint32_t rows)
{
    const struct load load = {.rows = rows};
    bool busy = false;
    for (uint32_t i = 0; i < s->n_flights && !busy; i++)
        busy = s->flights[i].batch && s->flights[i].n_passed == 0;
    return busy && s->tells && s->config.gather_ms && s->policy->gathers &&
           2 * WAIT_PART * s->costs.base.hop[0].latency_ns <= cost_stage_ns(&s->costs, 0, &load);
}

static uint64_t limit_ns(const struct sched *s)
{
    return (uint64_t)s->config.gather_ms * 1000000;
}

static bool is_worth_it(const struct sched *s, const struct policy_view *blank, const struct crowd *c)
{
    struct policy_view v = *blank;
    v.n_prompting = c->n_unread;
    v.prompt_rows = c->rows;
    v.prompt_pos = (uint32_t)(c->length / c->n_unread / 2);
    return s->policy->gathers(&v, (uint32_t)(c->length / c->n_unread), limit_ns(s));
}

void gather_update(struct sched *s, const struct policy_view *blank)
{
    bool was = s->gathering;
    struct crowd c;
    s->gathering = false;
    if (!was)
        s->gather_age = 0;
    if (s->config.gather_ms == 0 || !s->policy->gathers || !look_at(s, &c))
        return;
    if (!was || c.n_held == 0) {
        s->gathering = c.n_held == 0 && c.n_unread > 1 && (was || is_worth_it(s, blank, &c));
        return;
    }
    if (s->gather_age == 0 && c.n_read > 0) { /* whoever comes from now on is not waited for */
        s->gather_age = s->next_age;
        s->gather_since_ns = s->now_ns;
    }
    if (s->gather_age == 0)
        s->gathering = c.n_unread > 0 ? c.unread_first >= c.held_first : gather_may_wait(s, c.n_held);
    else
        s->gathering = c.n_unread > 0 && c.unread_first >= c.held_first && s->now_ns - s->gather_since_ns < limit_ns(s);
}

void gather_end(struct sched *s)
{
    s->gathering = false;
}

bool gather_holds(const struct sched *s, const struct seq *q)
{
    return s->gathering && is_held(q);
}
