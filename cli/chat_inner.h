#ifndef CLI_CHAT_INNER_H
#define CLI_CHAT_INNER_H

/* Between chat.c, which keeps a conversation, and chat_remote.c, which has it answered by a server. */

#include "cli/chat.h"
#include "cli/events.h"

void chat_add_text(struct chat *c, const char *piece, size_t len); /* to the answer that is coming */
int chat_show(struct chat *c, struct err *err);                   /* what of it may be shown: 0; 1 it should end; -1 */
json_t *chat_with_system(const struct chat *c, size_t first);

/* Answers the conversation, whose last message is the user's: its text in c->answer, how it ended in ret_finish. */
enum { CHAT_FINISH_BYTES = EVENTS_FINISH_BYTES };
int chat_answer_remote(struct chat *c, const struct sample_params *params, int64_t n, char ret_finish[CHAT_FINISH_BYTES], struct err *err);

#endif
