/* See json_scan.h. */
#include "text/json_scan.h"

#include <string.h>

/* Within a number: what stands before. */
enum { NUM_SIGN, NUM_ZERO, NUM_INT, NUM_POINT, NUM_FRACTION, NUM_E, NUM_E_SIGN, NUM_EXPONENT };

void json_scan_init(struct json_scan *s)
{
    *s = (struct json_scan){.at = JSON_AT_VALUE};
}

static bool is_white(unsigned char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static int begin(struct json_scan *s, bool is_object)
{
    if (s->depth == JSON_SCAN_MAX_DEPTH)
        return -1;
    s->is_object[s->depth++] = is_object;
    s->at = is_object ? JSON_AT_KEY_OR_END : JSON_AT_ITEM_OR_END;
    return 0;
}

static int end(struct json_scan *s, bool is_object)
{
    if (s->is_object[s->depth - 1] != is_object)
        return -1;
    s->at = --s->depth ? JSON_AT_NEXT : JSON_ENDED;
    return s->depth == 0;
}

static int begin_string(struct json_scan *s, bool is_key)
{
    s->is_key = is_key;
    s->at = JSON_IN_STRING;
    return 0;
}

static int value(struct json_scan *s, unsigned char c)
{
    static const char *const words[] = {"true", "false", "null"};

    if (c == '{' || c == '[')
        return begin(s, c == '{');
    if (s->depth == 0)
        return -1;
    if (c == '"')
        return begin_string(s, false);
    for (unsigned i = 0; i < 3; i++)
        if (c == (unsigned char)words[i][0]) {
            s->word = words[i] + 1;
            s->at = JSON_IN_WORD;
            return 0;
        }
    if (c != '-' && !is_digit(c))
        return -1;
    s->number = c == '-' ? NUM_SIGN : c == '0' ? NUM_ZERO : NUM_INT;
    s->at = JSON_IN_NUMBER;
    return 0;
}

static int next(struct json_scan *s, unsigned char c)
{
    if (c == '}' || c == ']')
        return end(s, c == '}');
    if (c != ',')
        return -1;
    s->at = s->is_object[s->depth - 1] ? JSON_AT_KEY : JSON_AT_VALUE;
    return 0;
}

/* Whether c belongs to the number. -1: neither does it, nor may the number end here. */
static int number(struct json_scan *s, unsigned char c)
{
    unsigned n = s->number;

    if (is_digit(c)) {
        if (n == NUM_ZERO)
            return -1;
        s->number = n == NUM_SIGN ? (c == '0' ? NUM_ZERO : NUM_INT)
                    : n == NUM_POINT ? NUM_FRACTION
                    : n == NUM_E || n == NUM_E_SIGN ? NUM_EXPONENT
                                                    : n;
        return 1;
    }
    if (c == '.' && (n == NUM_ZERO || n == NUM_INT)) {
        s->number = NUM_POINT;
        return 1;
    }
    if ((c == 'e' || c == 'E') && (n == NUM_ZERO || n == NUM_INT || n == NUM_FRACTION)) {
        s->number = NUM_E;
        return 1;
    }
    if ((c == '+' || c == '-') && n == NUM_E) {
        s->number = NUM_E_SIGN;
        return 1;
    }
    return n == NUM_ZERO || n == NUM_INT || n == NUM_FRACTION || n == NUM_EXPONENT ? 0 : -1;
}

static int string(struct json_scan *s, unsigned char c)
{
    if (c == '\\')
        s->at = JSON_IN_ESCAPE;
    else if (c == '"')
        s->at = s->is_key ? JSON_AT_COLON : JSON_AT_NEXT;
    return c ? 0 : -1;
}

static int escape(struct json_scan *s, unsigned char c)
{
    if (!c || !strchr("\"\\/bfnrtu", c))
        return -1;
    s->hex_left = 4;
    s->at = c == 'u' ? JSON_IN_HEX : JSON_IN_STRING;
    return 0;
}

static int hex(struct json_scan *s, unsigned char c)
{
    if (!is_digit(c) && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F'))
        return -1;
    if (--s->hex_left == 0)
        s->at = JSON_IN_STRING;
    return 0;
}

static int word(struct json_scan *s, unsigned char c)
{
    if (c != (unsigned char)*s->word)
        return -1;
    if (!*++s->word)
        s->at = JSON_AT_NEXT;
    return 0;
}

static int between(struct json_scan *s, unsigned char c)
{
    if (is_white(c))
        return 0;
    switch (s->at) {
    case JSON_AT_ITEM_OR_END:
        return c == ']' ? end(s, false) : value(s, c);
    case JSON_AT_KEY_OR_END:
        return c == '}' ? end(s, true) : c == '"' ? begin_string(s, true) : -1;
    case JSON_AT_KEY:
        return c == '"' ? begin_string(s, true) : -1;
    case JSON_AT_COLON:
        s->at = JSON_AT_VALUE;
        return c == ':' ? 0 : -1;
    case JSON_AT_NEXT:
        return next(s, c);
    default:
        return value(s, c);
    }
}

int json_scan_byte(struct json_scan *s, unsigned char c)
{
    int rc;

    switch (s->at) {
    case JSON_IN_STRING:
        return string(s, c);
    case JSON_IN_ESCAPE:
        return escape(s, c);
    case JSON_IN_HEX:
        return hex(s, c);
    case JSON_IN_WORD:
        return word(s, c);
    case JSON_IN_NUMBER:
        if ((rc = number(s, c)) != 0)
            return rc < 0 ? -1 : 0;
        s->at = JSON_AT_NEXT;
        return between(s, c);
    case JSON_ENDED:
        return -1;
    default:
        return between(s, c);
    }
}
