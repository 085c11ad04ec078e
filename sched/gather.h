#ifndef SCHED_GATHER_H
#define SCHED_GATHER_H

/* Requests that come together begin to answer together. As soon as one of them answers, the others' prompts may only be read in
 * steps that it can bear, so that answers begin one by one, and the last ones run alone: each step reads all weights for a few rows.
 * Where large steps read prompts that much faster, and as long as nobody's answer runs, a prompt that is read but for its last row is
 * held until the others that came with it are, too. */

#include "sched/state.h"

/* Whether such prompts are held in the step that is about to be made. blank: a view in which nothing has been counted yet. */
void gather_update(struct sched *s, const struct policy_view *blank);
/* They wait no longer: nothing else can be done. */
void gather_end(struct sched *s);
bool gather_holds(const struct sched *s, const struct seq *q);
/* Whether a prompt's last rows, so many, had better be sent when the first stage has done what it has to do: until then others may
 * come for which it would be held. Only where that stage's word comes soon enough for it to wait hardly any longer than otherwise. */
bool gather_may_wait(const struct sched *s, uint32_t rows);

#endif
