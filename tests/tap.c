/* See tap.h. */
#include "tests/tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int count, failed;

__attribute__((format(printf, 4, 0))) static void verdict(bool good, const char *file, int line, const char *fmt, va_list args)
{
    printf("%sok %d - ", good ? "" : "not ", ++count);
    vprintf(fmt, args);
    putchar('\n');
    if (!good) {
        failed++;
        printf("# at %s:%d\n", file, line);
    }
    fflush(stdout);
}

#define VERDICT(good)                           \
    do {                                        \
        va_list args;                           \
        va_start(args, fmt);                    \
        verdict((good), file, line, fmt, args); \
        va_end(args);                           \
    } while (0)

bool tap_ok(bool good, const char *file, int line, const char *cond, const char *fmt, ...)
{
    VERDICT(good);
    if (!good)
        printf("# false: %s\n", cond);
    return good;
}

bool tap_is_int(long long got, long long want, const char *file, int line, const char *fmt, ...)
{
    VERDICT(got == want);
    if (got != want)
        printf("# got %lld, expected %lld\n", got, want);
    return got == want;
}

/* Prints text with line breaks marked, as a TAP comment. */
static void show(const char *label, const char *text)
{
    printf("# %s \"", label);
    for (const char *s = text ? text : "(null)"; *s; s++)
        if (*s == '\n')
            printf("\\n");
        else
            putchar(*s);
    printf("\"\n");
}

bool tap_is_str(const char *got, const char *want, const char *file, int line, const char *fmt, ...)
{
    bool good = got && want ? strcmp(got, want) == 0 : got == want;
    VERDICT(good);
    if (!good) {
        show("got     ", got);
        show("expected", want);
    }
    return good;
}

bool tap_has_str(const char *got, const char *want, const char *file, int line, const char *fmt, ...)
{
    bool good = got && strstr(got, want);
    VERDICT(good);
    if (!good) {
        show("got         ", got);
        show("to find in it", want);
    }
    return good;
}

bool tap_is_mem(const void *got, const void *want, size_t len, const char *file, int line, const char *fmt, ...)
{
    bool good = memcmp(got, want, len) == 0;
    VERDICT(good);
    if (!good) {
        size_t i = 0;
        while (((const unsigned char *)got)[i] == ((const unsigned char *)want)[i])
            i++;
        printf("# first difference at byte %zu of %zu: got 0x%02x, expected 0x%02x\n", i, len, ((const unsigned char *)got)[i],
               ((const unsigned char *)want)[i]);
    }
    return good;
}

void tap_note(const char *fmt, ...)
{
    va_list args;
    printf("# ");
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void tap_skip(const char *fmt, ...)
{
    va_list args;
    printf("ok %d # SKIP ", ++count);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void tap_skip_all(const char *fmt, ...)
{
    va_list args;
    printf("1..0 # SKIP ");
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    exit(0);
}

int tap_done(void)
{
    printf("1..%d\n", count);
    return failed ? 1 : 0;
}
