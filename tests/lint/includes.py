"""Who may include whom: TAP. The tables stand in docs/architecture.md; this reads them, checks every source file against
them, and first proves on a made-up tree that it would notice."""
import os
import re
import sys
import tempfile

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
GENERATED = {"config.h"}  # by configure
NOT_FOLDERS = {"tests", "examples"}  # these include what they test


def read_tables(path):
    """({folder: set of folders and files, or None for all}, {header prefix: [folders]})"""
    may, only, table = {}, {}, None
    for line in open(path, encoding="utf-8"):
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            table = None
        elif cells[0] == "folder":
            table = may
        elif cells[0] == "header":
            table = only
        elif set(cells[0]) <= {"-"} or table is None:
            continue
        elif table is may:
            names = {n.strip() for n in cells[2].split(",")} - {"–", ""}
            may[cells[0].rstrip("/")] = None if names == {"all"} else names
        else:
            only[cells[0]] = [n.strip() for n in cells[1].split(",")]
    return may, only


def sources(root, may):
    for folder in may:
        for where, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cu", ".cuh", ".inc")) and name != "Makefile.inc":
                    yield os.path.relpath(os.path.join(where, name), root)


def check_file(root, path, may, only):
    """Sentences about what is wrong."""
    folder = path.split("/")[0]
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), open(os.path.join(root, path), encoding="utf-8").read(), flags=re.S)
    for m in INCLUDE.finditer(text):
        kind, name = m.groups()
        line = text.count("\n", 0, m.start(2)) + 1
        at = f"{path}:{line}: #include {kind}{name}{'>' if kind == '<' else kind}"
        for prefix, homes in only.items():
            if name.startswith(prefix) and not any(path.startswith(h + "/") for h in homes):
                yield f"{at}: {prefix} belongs to {', '.join(homes)} only"
        if kind == "<" or name in GENERATED or name.endswith(".pb-c.h"):
            continue
        target = name.split("/")[0]
        if "/" not in name:
            yield f'{at}: write the folder, too ("{folder}/{name}")'
        elif name.endswith(".c"):
            yield f"{at}: a .c file is compiled, not included"
        elif not os.path.exists(os.path.join(root, name)):
            yield f"{at}: there is no such file"
        elif target != folder and may[folder] is not None and target not in may[folder] and name not in may[folder]:
            allowed = ", ".join(sorted(may[folder])) or "nothing"
            yield f"{at}: {folder}/ may include {allowed} (docs/architecture.md)"


def self_test():
    """A tree in which every rule is broken once, and what must be said about each."""
    may = {"base": set(), "gguf": {"base"}, "worker": {"base"}, "coordinator": {"base", "gguf/a.h"}, "cli": None}
    only = {"zmq.h": ["proto"]}
    files = {
        "base/a.h": "",
        "gguf/a.h": '#include "base/a.h"\n',
        "gguf/b.h": "",
        "base/up.c": '#include "gguf/a.h"\n',
        "worker/w.c": '  #  include "coordinator/c.h"\n',
        "coordinator/c.h": '#include "gguf/a.h"\n#include <stdio.h>\n/* #include "gguf/b.h" */\n#include "gguf/b.h"\n',
        "cli/m.c": '#include "worker/none.h"\n#include "coordinator/c.h"\n#include <zmq.h>\n',
        "gguf/bare.c": '#include "a.h"\n#include "config.h"\n',
        "gguf/c.c": '#include "gguf/bare.c"\n',
    }
    want = {
        "base/up.c:1": "may include nothing",
        "worker/w.c:1": "may include base",
        "coordinator/c.h:4": "may include base, gguf/a.h",
        "cli/m.c:1": "no such file",
        "cli/m.c:3": "belongs to proto",
        "gguf/bare.c:1": "write the folder",
        "gguf/c.c:1": "not included",
    }
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                f.write(text)
        said = [s for path in sources(root, may) for s in check_file(root, path, may, only)]
    missed = [f"{at}: {what}" for at, what in want.items() if not any(s.startswith(at + ":") and what in s for s in said)]
    return missed + ([f"unexpected: {s}" for s in said] if len(said) != len(want) else [])


def main():
    root = os.environ.get("SC_SRC", ".")
    results = [("the check notices every kind of violation", self_test())]
    may, only = read_tables(os.path.join(root, "docs/architecture.md"))
    results.append(("docs/architecture.md has both tables", [] if len(may) >= 12 and len(only) >= 5 else [f"found {may} and {only}"]))
    unknown = [
        f"{name}/ holds C files but has no row in docs/architecture.md"
        for name in sorted(os.listdir(root))
        if os.path.isdir(os.path.join(root, name)) and name not in may and name not in NOT_FOLDERS
        and any(n.endswith((".c", ".h")) for n in os.listdir(os.path.join(root, name))) and not name.startswith(("build", "."))
    ]
    results.append(("every folder has a row", unknown))
    for folder in may:
        if os.path.isdir(os.path.join(root, folder)):
            wrong = [s for path in sources(root, {folder: None}) for s in check_file(root, path, may, only)]
            results.append((f"{folder}/ includes only what it may", wrong))
    for i, (name, wrong) in enumerate(results, 1):
        print(f"{'not ' if wrong else ''}ok {i} - {name}")
        for sentence in wrong:
            print(f"# {sentence}")
    print(f"1..{len(results)}")
    return any(wrong for _, wrong in results)


if __name__ == "__main__":
    sys.exit(main())
