#ifndef TESTS_PROTO_SAMPLES_H
#define TESTS_PROTO_SAMPLES_H

/* One full message of every type, for the codec's tests and as the fuzzer's seeds. */

#include <stddef.h>

#include "proto/msg.h"

/* The index-th sample, in static memory until the next call; NULL: there are no more. */
const struct msg *sample_msg(size_t index);

#endif
