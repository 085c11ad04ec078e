"""Man pages and completions: made of the same tables as --help, read by the real programs. TAP; needs no model."""
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time

from clitest import BUILD, PROGRAM, TIMEOUT, done, folder, has, is_, ok, run, skip

overview = run("--help").out
commands = re.findall(r"^  ([a-z]+) ", overview.split("Commands:")[1].split("\n\n")[0], re.M)
ok(len(commands) > 10, "commands", overview)

# --- man pages ---
pages = {"stagecoach.1": run("--man").out}
for c in commands:
    pages[f"stagecoach-{c}.1"] = run("--man", c).out
for name, text in pages.items():
    with open(os.path.join(folder, name), "w") as f:
        f.write(text)
listed = subprocess.run(["make", "-s", "--no-print-directory", "-C", BUILD, "print-man"], capture_output=True, text=True,
                        env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}).stdout.split()
is_(sorted(os.path.basename(p) for p in listed), sorted(pages), "the build makes and installs a page for every command")
is_(run("--man", "srve").status, 2, "no page for what is no command")
for c in commands:
    options = set(re.findall(r"--[a-z][a-z0-9-]+", " ".join(re.findall(r"^  (?:-., |    )(--\S+)", run(c, "--help").out.split("\nExamples:")[0], re.M))))
    page = pages[f"stagecoach-{c}.1"].replace("\\-", "-")
    is_([o for o in options if f"\\fB{o}\\fR" not in page], [], f"{c}: the page has every option of --help")
    ok(all(s in page for s in (".SH \"NAME\"", ".SH \"EXAMPLES\"", ".SH \"EXIT STATUS\"")), f"{c}: sections", page)
if shutil.which("mandoc"):
    said = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *pages], cwd=folder, capture_output=True, text=True).stdout
    said = [s for s in said.splitlines() if "missing date" not in s]  # there is none, so that the same source makes the same page
    is_(said, [], "mandoc finds nothing to warn of")
else:
    skip("mandoc is not installed")
if shutil.which("man") and shutil.which("groff"):
    for name in ("stagecoach.1", "stagecoach-serve.1"):
        r = subprocess.run(["man", "--warnings", "-l", name], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT,
                           env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PAGER": "cat", "MANPAGER": "cat"})
        is_((r.returncode, r.stderr), (0, ""), f"man -l {name}: no warnings")
        ok("SYNOPSIS" in r.stdout and "stagecoach" in r.stdout, f"{name} is shown", r.stdout)
else:
    skip("man and groff are not installed")

# --- completions ---
scripts = {}
for shell in ("bash", "zsh", "fish"):
    r = run("completion", shell)
    is_((r.status, r.err), (0, ""), f"completion {shell}")
    scripts[shell] = os.path.join(folder, "complete." + shell)
    with open(scripts[shell], "w") as f:
        f.write(r.out)
r = run("completion", "csh")
ok(r.status == 2 and "bash, zsh and fish" in r.err, "another shell is refused", r.err)
os.makedirs(os.path.join(folder, "models"))
open(os.path.join(folder, "some model.gguf"), "w").close()

# (line up to the cursor, candidates that must be among those offered, that must not)
CASES = [
    (["stagecoach", "ser"], {"serve"}, {"run"}),
    (["stagecoach", ""], set(commands), {"--ctx"}),
    (["stagecoach", "serve", "--grac"], {"--grace"}, {"--listen"}),
    (["stagecoach", "run", "--kv", ""], {"f16", "f32", "q8_0"}, {"some model.gguf"}),
    (["stagecoach", "serve", "--objective", "lat"], {"latency"}, {"throughput"}),
    (["stagecoach", "chat", "--no-h"], {"--no-history"}, set()),
    (["stagecoach", "run", "-m", "so"], {"some model.gguf"}, set()),
    (["stagecoach", "worker", "--model-dir", "mo"], {"models"}, {"some model.gguf"}),
    (["stagecoach", "inspect", "so"], {"some model.gguf"}, set()),
    (["stagecoach", "completion", ""], {"bash", "zsh", "fish"}, set()),
    (["stagecoach", "help", "ev"], {"eval"}, {"serve"}),
]


def quote(s):
    return "'" + s.replace("'", "'\\''") + "'"


def bash(words):
    code = f"source {scripts['bash']}; COMP_WORDS=({' '.join(map(quote, words))}); COMP_CWORD={len(words) - 1}; _stagecoach; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    r = subprocess.run(["bash", "--norc", "-c", code], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    return {s.rstrip("/") for s in r.stdout.splitlines()}, r.stderr


def fish(words):
    line = " ".join(words[:-1]) + " " + words[-1]
    r = subprocess.run(["fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C {quote(line)}"], cwd=folder, capture_output=True,
                       text=True, timeout=TIMEOUT, env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder})
    return {s.split("\t")[0].rstrip("/").replace("\\ ", " ") for s in r.stdout.splitlines()}, r.stderr


class Zsh:
    """A zsh at a terminal: a line is typed, then Tab; what it lists and what the line has become are the candidates."""

    def __init__(self):
        self.line = os.path.join(folder, "line")
        rc = os.path.join(folder, ".zshrc")
        with open(rc, "w") as f:
            f.write("PS1='READY> '; unsetopt beep; setopt no_list_beep; zstyle ':completion:*' menu no; LISTMAX=0\n"
                    "autoload -Uz compinit; compinit -u -D\n"
                    f"source {scripts['zsh']}\n"
                    f"_tell() {{ print -r -- \"$BUFFER\" >{self.line} }}; zle -N _tell; bindkey '^T' _tell; bindkey '^U' kill-whole-line\n")
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "200", "ZDOTDIR": folder, "HOME": folder,
                                              "LC_ALL": "C.UTF-8"})
        self.pid = pid
        self.read_until(lambda seen: "READY> " in seen)

    def read_until(self, enough, seconds=20):
        seen, end = "", time.time() + seconds
        while not enough(seen) and time.time() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                seen += re.sub("\x1b\\[[?0-9;]*[a-zA-Z]", " ", os.read(self.fd, 65536).decode("utf-8", "replace"))
        return seen

    def complete(self, words):
        if os.path.exists(self.line):
            os.unlink(self.line)
        os.write(self.fd, b"\x15" + " ".join(words).encode() + b"\t\x14")  # the line is told once Tab has been worked off
        seen = self.read_until(lambda _: os.path.exists(self.line) and os.path.getsize(self.line))
        seen += self.read_until(lambda _: False, 0.2)
        with open(self.line) as f:
            line = f.read()
        return {s.rstrip("/") for s in re.findall(r"(?<![\w-])(?:--)?\w[\w.-]*", seen) + shlex.split(line)}, ""

    def end(self):
        os.close(self.fd)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


for shell, complete in (("bash", bash), ("fish", fish), ("zsh", None)):
    if not shutil.which(shell):
        skip(f"{shell} is not installed")
        continue
    z = Zsh() if shell == "zsh" else None
    for words, want, never in CASES:
        got, err = (complete or z.complete)(words)
        ok(want <= got and not (never & got) and not err, f"{shell}: {' '.join(words)!r}", f"offered {sorted(got)}", f"missing {want - got}", err)
    if z:
        z.end()
if shutil.which("bash"):
    got, err = bash(["stagecoach", "run", "--kv", "=", "q"])
    is_((got, err), ({"q8_0"}, ""), "bash: --kv=q")
done()
