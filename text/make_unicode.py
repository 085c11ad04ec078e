#!/usr/bin/env python3
"""Prints text/unicode_data.c: the general categories of Unicode as this Python knows them (3.13.0: Unicode 15.1, the
version that the vocabularies' reference implementations use). Run it with that Python and commit what it prints."""

import unicodedata

GROUPS = {"N": 1, "L": 2, "P": 3, "M": 4, "S": 5}  # as enum unicode_group; everything else is 0


def main():
    ranges = []
    for c in range(0x110000):
        group = GROUPS.get(unicodedata.category(chr(c))[0], 0)
        if not ranges or ranges[-1][1] != group:
            ranges.append((c, group))
    print(f"/* Made by make_unicode.py from Unicode {unicodedata.unidata_version}. See unicode.h. */")
    print('#include "text/unicode.h"\n')
    print("/* first code point << 4 | group; a range ends where the next begins */")
    print("const uint32_t unicode_ranges[] = {")
    words = [f"0x{c << 4 | g:x}," for c, g in ranges]
    for i in range(0, len(words), 12):
        print("    " + " ".join(words[i : i + 12]))
    print("};")
    print("const size_t unicode_n_ranges = sizeof unicode_ranges / sizeof *unicode_ranges;")


if __name__ == "__main__":
    main()
