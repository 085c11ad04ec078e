#ifndef TEXT_JSON_SCAN_H
#define TEXT_JSON_SCAN_H

/* Follows JSON as it is written, a byte at a time: where it stops being JSON, and where the value ends. For text that a model
 * is just writing; what is complete is read by jansson. Pure, no memory of its own.
 *
 * More is let pass than RFC 8259 does in one place: control characters in strings, which models write for "\n". */

#include <stdbool.h>
#include <stdint.h>

enum { JSON_SCAN_MAX_DEPTH = 128 };

enum json_scan_at {
    JSON_AT_VALUE,
    JSON_AT_ITEM_OR_END,
    JSON_AT_KEY,
    JSON_AT_KEY_OR_END,
    JSON_AT_COLON,
    JSON_AT_NEXT, /* behind a value: a comma or the end */
    JSON_IN_STRING,
    JSON_IN_ESCAPE,
    JSON_IN_HEX,
    JSON_IN_NUMBER,
    JSON_IN_WORD,
    JSON_ENDED,
};

struct json_scan {
    enum json_scan_at at;
    unsigned depth;                                 /* of objects and arrays that are open */
    unsigned char is_object[JSON_SCAN_MAX_DEPTH];   /* by depth */
    bool is_key;                                    /* the string is an object's key */
    const char *word;                               /* what is left of true, false, null */
    unsigned hex_left;
    unsigned number; /* a state of the number's own */
};

/* The value must begin with '{' or '['. */
void json_scan_init(struct json_scan *s);
/* 0; 1: the value ended with this byte; -1: this is no JSON. */
int json_scan_byte(struct json_scan *s, unsigned char c);

#endif
