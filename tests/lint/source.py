"""Rules of the house that a regular expression can check: TAP. One row a rule; each row carries a line that breaks it and
one that does not, so that no rule goes blind."""
import os
import re
import sys

LIBRARIES = ("base", "gguf", "text", "proto", "topology", "sched", "kernels", "model", "worker", "coordinator", "front")
CODE = (".c", ".h", ".cu", ".cuh")
TEXT = CODE + (".py", ".sh", ".md", ".ac", ".am", ".inc", ".js", ".html", ".css", ".yml", ".yaml", ".json")
LONG_FILE = 800  # lines: a place to think again, not an error


def in_library(path):
    return path.endswith((".c", ".cu")) and path.split("/")[0] in LIBRARIES


def is_code(path):
    return path.endswith(CODE)


def is_text(path):
    return path.endswith(TEXT) or "." not in os.path.basename(path)


# (name, which files, what must not be in them, a bad line, a good line); comments are taken out for rules on code.
RULES = [
    ("libraries do not end the program", in_library, r"(?<![\w.>])(exit|_exit|_Exit|quick_exit|abort)\s*\(",
     "    exit(1);", "    on_exit_status(1); p->abort(x);"),
    ("libraries do not print", in_library, r"(?<![\w.>])(printf|puts|putchar|perror|vprintf|err|errx|warn|warnx)\s*\(|\bf(printf|puts|putc)\s*\(\s*std(err|out)\b",
     '    fprintf(stderr, "x");', "    strbuf_printf(sb, x); fputs(s, file);"),
    ("libraries do not read the environment", in_library, r"(?<![\w.>])(secure_)?getenv\s*\(", '    getenv("X")', "    x_getenv(s)"),
    ("no unbounded string functions", is_code, r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|alloca|strtok)\s*\(",
     "    strcpy(a, b);", "    snprintf(a, n, b); my_strcpy(a);"),
    ("no decimal numbers read by locale or without an error", is_code, r"(?<![\w.>])(atoi|atol|atoll|atof)\s*\(", "x = atoi(s);", "x = parse_atoi(s);"),
    ("no typedef but of functions and vectors", is_code, r"^\s*typedef(?!.*(\(\s*\*?\s*\w+_fn\s*\)|vector_size))", "typedef struct x x;", "typedef void (*done_fn)(void *arg);"),
    ("no tabs in code", lambda p: p.endswith(CODE + (".py",)), r"\t", "\tint x;", "    int x;"),
    ("no blanks at a line's end", lambda p: is_text(p) and not p.endswith(".md"), r"[ \t]+$", "int x; ", "int x;"),
    ("no carriage returns", is_text, r"\r", "int x;\r", "int x;"),
    ("no one's folders", is_text, r"(?<![\w.}$])/(home|root|work|Users)/\w", 'open("/home/me/x")', "open(\"$HOME/x\"), a/home/b"),
]
LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)+\'')
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
ON_CODE = RULES[:6]  # these look at code only: strings and comments may say what they like


def code_of(text):
    """The text with strings emptied and comments blanked, lines kept."""
    token = re.compile(LITERAL.pattern + "|" + COMMENT.pattern, re.S)
    return token.sub(lambda m: '""' if m.group()[0] in "\"'" else "\n" * m.group().count("\n"), text)


def violations(rule, path, text):
    pattern = re.compile(rule[2])
    for number, line in enumerate(text.split("\n"), 1):
        if pattern.search(line):
            yield f"{path}:{number}: {line.strip()[:100]}"


def without_config(files, stripped):
    """Who asks what configure found out, and does not include where it says so: the preprocessor takes that for no."""
    asked = re.compile(r"^[ \t]*#[ \t]*(?:el)?if.*\b(%s)\b" % "|".join(re.findall(r"AC_DEFINE\(\[(\w+)\]", files["configure.ac"])), re.M)
    for path, text in stripped.items():
        found = asked.search(text)
        if found and not re.search(r'^#include "config\.h"', files[path], re.M):
            yield f"{path}: looks at {found.group(1)} without config.h"


def tracked(root):
    for where, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith((".", "_", "build", "autom4te", "stagecoach-"))]
        for name in sorted(names):
            path = os.path.relpath(os.path.join(where, name), root)
            if "/" in path or name in ("dev", "configure.ac", "Makefile.am") or name.endswith(".md"):
                yield path


def main():
    root = os.environ.get("SC_SRC", ".")
    n = failed = 0

    def result(name, wrong):
        nonlocal n, failed
        n += 1
        failed |= bool(wrong)
        print(f"{'not ' if wrong else ''}ok {n} - {name}")
        for sentence in wrong[:20]:
            print(f"# {sentence}")

    files = {}
    undecodable = []
    for path in tracked(root):
        if is_text(path) and "/corpus/" not in path:
            try:
                files[path] = open(os.path.join(root, path), encoding="utf-8", newline="").read()
            except UnicodeDecodeError:
                undecodable.append(path)
    result("text files are UTF-8", undecodable)
    stripped = {path: code_of(text) for path, text in files.items() if path.endswith(CODE)}
    for rule in RULES:
        blind = not re.search(rule[2], rule[3]) or re.search(rule[2], rule[4])
        wrong = [f"the rule is blind or overzealous: {rule[2]}"] if blind else []
        for path, text in files.items():
            if rule[1](path) and path != "tests/lint/source.py":
                wrong += violations(rule, path, stripped[path] if rule in ON_CODE else text)
        result(rule[0], wrong)
    result("what configure defines is looked at with config.h included", list(without_config(files, stripped)))
    result("every text ends with a newline", [p for p, t in files.items() if t and not t.endswith("\n")])
    wrong = []
    for path, text in files.items():
        if path.endswith(".h") and path.split("/")[0] in LIBRARIES + ("cli",):
            guard = re.sub(r"\W", "_", path).upper()
            if f"#ifndef {guard}\n#define {guard}\n" not in text:
                wrong.append(f"{path}: its guard should be {guard}")
    result("headers are guarded by their path's name", wrong)
    for path, text in files.items():
        lines = text.count("\n")
        if path.endswith(".c") and lines > LONG_FILE:
            print(f"# {path}: {lines} lines; does it hold two things?")
    print(f"1..{n}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
