#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

/* What a fuzz target defines. With --enable-fuzz libFuzzer drives it (./dev fuzz); otherwise tests/fuzz/replay.c does, as a
 * test: first the files of tests/fuzz/corpus/NAME and the generated seeds, then seeded mutations of them. */

#include <stddef.h>
#include <stdint.h>

/* Feeds one input; returns 0. It may refuse the input, but must not crash, leak, take over 10 s, or over 64 MiB plus twice
 * the input's size of memory. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Optional, for formats that would be binaries in the repository: writes seed `index` to buf and returns its size; 0 when
 * there are no more (or it needs more than cap bytes). The same index gives the same bytes. */
size_t fuzz_corpus(size_t index, uint8_t *buf, size_t cap) __attribute__((weak));

#endif
