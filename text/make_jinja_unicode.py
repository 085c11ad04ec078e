#!/usr/bin/env python3
"""make_jinja_unicode.py > jinja_unicode_data.c: what Python's str methods say of every character, as ranges."""
import unicodedata

LAST = 0x110000
chars = [chr(c) for c in range(LAST)]


def ranges(test):
    out = []
    for c in range(LAST):
        if not 0xD800 <= c < 0xE000 and test(chars[c]):
            if out and out[-1][1] == c - 1:
                out[-1][1] = c
            else:
                out.append([c, c])
    return out


def show(name, rows):
    print(f"const struct jinja_range jinja_{name}[] = {{")
    for i in range(0, len(rows), 6):
        print("    " + " ".join("{0x%X, 0x%X}," % tuple(r) for r in rows[i:i + 6]))
    print("};\nconst size_t jinja_n_%s = %d;\n" % (name, len(rows)))


def mapping(name, convert):
    """Runs of characters, each `step` after the last, that map to themselves + delta."""
    out = []
    for c in range(LAST):
        to = "" if 0xD800 <= c < 0xE000 else convert(chars[c])
        if len(to) != 1 or ord(to) == c:
            continue
        delta = ord(to) - c
        for run in out[-1:]:
            if run[2] == delta and c - run[1] == run[3] or run[2] == delta and run[0] == run[1] and c - run[1] <= 2:
                run[3] = c - run[1]
                run[1] = c
                break
        else:
            out.append([c, c, delta, 1])
    out.sort()
    print(f"const struct jinja_mapping jinja_{name}[] = {{")
    for i in range(0, len(out), 5):
        print("    " + " ".join("{0x%X, 0x%X, %d, %d}," % tuple(r) for r in out[i:i + 5]))
    print("};\nconst size_t jinja_n_%s = %d;\n" % (name, len(out)))


def specials():
    """Characters whose capitals are several characters, or not the same as their title case."""
    out = [c for c in chars if not "\ud800" <= c < "\ue000" and (len(c.upper()) > 1 or (len(c.title()) == 1 and c.title() != c.upper()))]
    print("const struct jinja_special jinja_specials[] = {")
    for i in range(0, len(out), 5):
        print("    " + " ".join('{0x%X, "%s", "%s"},' % (ord(c), c.upper(), c.title()) for c in out[i:i + 5]))
    print("};\nconst size_t jinja_n_specials = %d;" % len(out))


print(f"/* Made by make_jinja_unicode.py from Unicode {unicodedata.unidata_version}; do not edit. */")
print('#include "text/jinja_unicode_data.h"\n')
print("/* clang-format off */")
show("alpha", ranges(str.isalpha))
show("decimal", ranges(str.isdecimal))
show("digit", ranges(lambda c: c.isdigit() and not c.isdecimal()))
show("numeric", ranges(lambda c: c.isnumeric() and not c.isdigit()))
show("upper", ranges(lambda c: c.isupper()))
show("lower", ranges(lambda c: c.islower()))
show("title", ranges(lambda c: c.istitle() and not c.isupper()))
show("space", ranges(str.isspace))
show("unprintable", ranges(lambda c: not c.isprintable()))
mapping("upper_of", str.upper)
mapping("lower_of", str.lower)
specials()
