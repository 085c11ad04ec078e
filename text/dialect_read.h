#ifndef TEXT_DIALECT_READ_H
#define TEXT_DIALECT_READ_H

/* What the reader's files share: dialect_read.c goes through a text, dialect_call.c through the JSON of a call, dialect_xml.c
 * reads calls written as tags. */

#include "text/dialect.h"

enum reader_state {
    READ_TEXT,
    READ_THOUGHT,
    READ_OPENED,    /* behind an opening mark */
    READ_LIST,      /* an item of a list is due */
    READ_LIST_NEXT, /* a comma or the list's end */
    READ_OBJECT,
    READ_CLOSE,     /* the closing mark is due */
    READ_BARE_NEXT, /* another object without a mark may follow */
    READ_NAME,
    READ_NAME_MARK,
    READ_CALL_ID,
    READ_ARGUMENTS, /* '{' is due */
    READ_TAGS,
    READ_SECTION,     /* a section's opening mark, or the end of all */
    READ_SECTION_HEAD,
    READ_SECTION_NAME,
    READ_SECTION_END,
    READ_HEADER, /* of a message with channels */
};

void dialect_put(struct dialect_reader *r, enum dialect_part part, const char *s, size_t len);
/* A call begins: what was read of it so far is forgotten, but not raw. */
void dialect_call_begin(struct dialect_reader *r);
/* The next byte of a call's JSON. 0; 1: the call is whole and told; -1: it is none. */
int dialect_call_byte(struct dialect_reader *r, char c);
/* The text ends within the JSON: whether what was told stands as a call. */
bool dialect_call_end(struct dialect_reader *r);
/* Tells a call whole. */
void dialect_call_whole(struct dialect_reader *r, const char *name, size_t name_len, const char *arguments, size_t len);
/* raw as <function=NAME><parameter=KEY>…; whether it was a call. */
bool dialect_read_tags(struct dialect_reader *r);

#endif
