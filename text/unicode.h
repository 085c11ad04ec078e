#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

/* What pre-tokenizers ask about a character. The table is our own, of one fixed version of Unicode, so that a text's
 * tokens do not depend on the libraries of the machine. */

#include <stddef.h>
#include <stdint.h>

/* General categories, by their first letter. */
enum unicode_group { GROUP_OTHER, GROUP_NUMBER, GROUP_LETTER, GROUP_PUNCTUATION, GROUP_MARK, GROUP_SYMBOL };

/* Sorted: first code point << 4 | group. */
extern const uint32_t unicode_ranges[];
extern const size_t unicode_n_ranges;

/* A character's class is one byte, so that patterns over categories run on plain bytes: an ASCII character is its own
 * class, every other white space is '\v', and the rest are these. Han characters are letters of their own because one
 * pre-tokenizer treats them apart. */
enum unicode_class {
    CLASS_OTHER = 0x80,
    CLASS_NUMBER,
    CLASS_LETTER,
    CLASS_HAN,
    CLASS_HAN_UNASSIGNED,
    CLASS_PUNCTUATION,
    CLASS_MARK,
    CLASS_SYMBOL,
};

/* Classes of the basic plane, built once a tokenizer (64 KiB); the others are looked up. */
enum { UNICODE_BMP = 0x10000 };
void unicode_fill_bmp(unsigned char classes[UNICODE_BMP]);
unsigned char unicode_class_of(uint32_t c);

#endif
