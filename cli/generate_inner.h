#ifndef CLI_GENERATE_INNER_H
#define CLI_GENERATE_INNER_H

/* The two ways that generate() has. */

#include "cli/generate.h"

int generate_session(struct local *local, const struct gen_options *options, struct gen_case *cases, size_t n_cases,
                     struct gen_stats *ret_stats, struct err *err);
int generate_engine(struct local *local, const struct gen_options *options, struct gen_case *cases, size_t n_cases,
                    struct gen_stats *ret_stats, struct err *err);

#endif
