#ifndef TESTS_PROTO_SIDES_H
#define TESTS_PROTO_SIDES_H

/* Two or more ends of the wire in one process, each with its own keys' folder, net and wire, polled in turn by the test's
 * one thread. Failures to set up end the program: there is nothing to test then. */

#include "proto/wire.h"

enum { SIDES_WAIT_MS = 10000, SIDES_MAX_KEPT = 4096 };

struct side {
    char dir[128];
    struct keys *keys;
    struct wire_net *net;
    struct wire *wire;
    char endpoint[MSG_MAX_ADDRESS + 1]; /* where it listens */
    /* What came that was not waited for, oldest first: the last DOWN, REFUSED and UP. */
    struct wire_event up, down, refused, registered;
    unsigned n_up, n_down, n_refused, n_registered, n_frames, n_writable;
    struct wire_frame *frames[SIDES_MAX_KEPT]; /* not released; the oldest is at next_frame */
    unsigned next_frame;
    bool release; /* frames are released at once and only counted */
};

/* A private folder under TMPDIR, removed at exit. */
const char *sides_folder(void);
/* options->keys is filled in (tcp) unless options->plaintext_tcp_for_tests; options NULL: defaults. */
void side_open(struct side *s, const char *name, const struct wire_net_options *options);
void side_close(struct side *s);
void side_listen(struct side *s, const char *endpoint);
void sides_trust(struct side *a, struct side *b); /* each the other */
struct wire_link *side_dial(struct side *from, struct side *to, enum link_purpose purpose);

/* Takes what comes on all sides until *counter reaches n, or the time is over: false. */
bool sides_until(struct side **sides, size_t n_sides, const unsigned *counter, unsigned n, int wait_ms);
#define until2(a, b, counter, n) sides_until((struct side *[]){a, b}, 2, &(counter), n, SIDES_WAIT_MS)
/* Takes what comes for so long. */
void sides_run(struct side **sides, size_t n_sides, int ms);
/* The next frame that was kept, or NULL. */
struct wire_frame *side_frame(struct side *s);

#endif
