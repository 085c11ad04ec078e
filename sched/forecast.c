/* See forecast.h. */
#include "sched/forecast.h"

static uint64_t hop_ns(const struct sched *s, uint32_t hop, const struct load *load)
{
    const struct sched_hop_cost *h = &s->costs.base.hop[hop];
    return h->latency_ns + h->row_ns * load->rows;
}

/* On from stage `from`, having left the one before (or the coordinator) at `at`. It cannot have left the last one before now, or
 * it would be known; of those between nobody may have told. */
static uint64_t travel(const struct sched *s, struct forecast *f, uint32_t from, uint32_t stop, uint64_t at, uint64_t now, const struct load *load)
{
    for (uint32_t i = from; i <= stop && i < s->config.n_stages; i++) {
        uint64_t start = at + hop_ns(s, i, load);
        start = start > f->free_ns[i] ? start : f->free_ns[i];
        at = start + cost_stage_ns(&s->costs, i, load);
        at = i < stop || at > now ? at : now;
        f->free_ns[i] = at;
    }
    return at + hop_ns(s, s->config.n_stages, load);
}

void forecast_make(const struct sched *s, uint64_t now_ns, struct forecast *ret)
{
    const struct flight *order[SCHED_MAX_IN_FLIGHT];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_flights; i++) {
        uint32_t k = n;
        if (!s->flights[i].batch)
            continue;
        for (; k > 0 && order[k - 1]->batch > s->flights[i].batch; k--)
            order[k] = order[k - 1];
        order[k] = &s->flights[i];
        n++;
    }
    *ret = (struct forecast){.return_ns = UINT64_MAX};
    for (uint32_t i = 0; i < n; i++) {
        const struct flight *f = order[i];
        uint64_t back = travel(s, ret, f->n_passed, f->stop_stage, f->passed_ns, now_ns, &f->load);
        if (f->samples && back < ret->return_ns)
            ret->return_ns = back;
    }
}

uint64_t forecast_send(const struct sched *s, struct forecast *f, uint64_t at_ns, const struct load *load)
{
    return travel(s, f, 0, s->config.n_stages - 1, at_ns, at_ns, load);
}
