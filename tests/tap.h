#ifndef TESTS_TAP_H
#define TESTS_TAP_H

/* The smallest useful TAP producer (https://testanything.org): every check is one line "ok" or "not ok" with its place in
 * the source and, where it fails, what was found and expected. A program ends with `return tap_done();`. */

#include <stdbool.h>
#include <stddef.h>

#define ok(cond, ...) tap_ok((cond), __FILE__, __LINE__, #cond, __VA_ARGS__)
#define is_int(got, want, ...) tap_is_int((long long)(got), (long long)(want), __FILE__, __LINE__, __VA_ARGS__)
#define is_str(got, want, ...) tap_is_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)
#define is_mem(got, want, len, ...) tap_is_mem((got), (want), (len), __FILE__, __LINE__, __VA_ARGS__)
/* got contains want */
#define has_str(got, want, ...) tap_has_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)

bool tap_ok(bool good, const char *file, int line, const char *cond, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool tap_is_int(long long got, long long want, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool tap_is_str(const char *got, const char *want, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool tap_is_mem(const void *got, const void *want, size_t len, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
bool tap_has_str(const char *got, const char *want, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void tap_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* One line "ok N # SKIP reason". */
void tap_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The whole program cannot run: "1..0 # SKIP reason", exit 0. */
_Noreturn void tap_skip_all(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints the plan; the program's exit status. */
int tap_done(void);

#endif
