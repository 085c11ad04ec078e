"""Options from a config file and from variables: which wins, what is refused. TAP; needs no model."""
import os
import re

from clitest import done, folder, has, is_, ok, run

home = os.path.join(folder, "home")
config = os.path.join(home, ".config", "stagecoach")
os.makedirs(config, 0o700)
for name in list(os.environ):
    if name.startswith("STAGECOACH_"):
        del os.environ[name]
os.environ.pop("XDG_CONFIG_HOME", None)
os.environ["HOME"] = home
usual = os.path.join(config, "config")
other = os.path.join(folder, "other")


def write(text, path=usual):
    with open(path, "w") as f:
        f.write(text)


def shown(*args, **env):
    """name -> (value, origin), as --show-config has it."""
    r = run(*args, "--show-config", env=env)
    if r.status != 0:
        ok(False, f"{args} --show-config", r.err)
    return {s.split("  ")[0]: tuple(re.split(r"\s{2,}", s)[1:3]) for s in r.out.splitlines()}


# --- which wins ---
is_(shown("serve")["ctx"], ("-", "default"), "nothing says it: the default")
write("# of all commands\n ctx = 1024 \nmodel = ~/models/a.gguf\n\n[serve]\nlisten=127.0.0.1:9999\nno-auth\nallow-host = one\nallow-host = two\n[run]\nctx = 77\n")
s = shown("serve")
is_(s["ctx"], ("1024", usual + ":2"), "the file, with its line")
is_(s["model"][0], home + "/models/a.gguf", "~/ is the home folder where a path is meant")
is_(s["listen"], ("127.0.0.1:9999", usual + ":6"), "the command's section")
is_((s["no-auth"][0], s["allow-host"][0]), ("yes", "one two"), "a flag alone, a list")
is_(shown("run")["ctx"][0], "77", "a section wins over what holds for all")
is_(shown("run", STAGECOACH_CTX="88")["ctx"], ("88", "STAGECOACH_CTX"), "a variable wins over the file, sections too")
is_(shown("run", STAGECOACH_CTX="88", STAGECOACH_RUN_CTX="99")["ctx"], ("99", "STAGECOACH_RUN_CTX"), "one that names the command over one that does not")
is_(shown("chat", STAGECOACH_RUN_CTX="99")["ctx"][0], "1024", "and is for no other command")
is_(shown("run", "-c", "5", STAGECOACH_RUN_CTX="99")["ctx"], ("5", "command line"), "the command line wins over all")
is_(shown("run", STAGECOACH_CTX="")["ctx"][0], "77", "an empty variable does not count")
is_(shown("serve", "--no-no-auth")["no-auth"], ("no", "command line"), "a flag is switched off again")
is_(shown("serve", "--allow-host", "three")["allow-host"][0], "three", "a list is replaced as a whole")
is_(shown("serve", STAGECOACH_NO_AUTH="0")["no-auth"][0], "no", "a flag's variable")
is_(shown("chat", STAGECOACH_HISTORY="off")["history"][0], "no", "a flag that is on by default")
is_(shown("worker", STAGECOACH_CACHE="/tmp/x")["cache"][0], "-", "STAGECOACH_CACHE is something else")
is_(shown("worker", STAGECOACH_WORKER_CACHE="/tmp/x")["cache"][0], "/tmp/x", "STAGECOACH_WORKER_CACHE is the option")
ok("child" not in shown("worker", STAGECOACH_CHILD="1"), "what marks an embedded worker is no setting")

# --- which file ---
write("ctx = 2\n", other)
is_(shown("run", "--config", other)["ctx"], ("2", other + ":1"), "--config")
is_(shown("run", STAGECOACH_CONFIG=other)["ctx"][0], "2", "STAGECOACH_CONFIG")
is_(shown("run", "--config", "none", STAGECOACH_CONFIG=other)["ctx"][0], "-", "--config none")
os.makedirs(os.path.join(folder, "xdg", "stagecoach"))
write("ctx = 3\n", os.path.join(folder, "xdg", "stagecoach", "config"))
is_(shown("run", XDG_CONFIG_HOME=os.path.join(folder, "xdg"))["ctx"][0], "3", "XDG_CONFIG_HOME")
r = run("run", "--config", other + "-missing", "-m", "x", "-p", "a")
ok(r.status == 1 and other + "-missing" in r.err, "a file that was named must be there", r.err)

# --- it counts ---
r = run("run", "-p", "a", env={"STAGECOACH_MODEL": "/nowhere.gguf"})
ok(r.status == 1 and "/nowhere.gguf" in r.err, "a required option may come from a variable", r.err)
r = run("inspect", "--help", env={"STAGECOACH_CONFIG": other + "-missing"})
is_(r.status, 0, "--help needs no file")

# --- mistakes ---
for text, want in [
    ("ctx = 8k\n", ':1: --ctx: "8k" is not a whole number'),
    ("\n\n[serve]\nlisten\n", ":4: listen needs a value: listen = ADDRESS"),
    ("[srve]\n", ":1: [srve]: there is no command of that name"),
    ("[serve\n", ":1: a section is a command in brackets"),
    ("[serve] x\n", ":1: a section is a command in brackets"),
    ("[stop]\nctx = 1\n", ':2: stop has no option "ctx"'),
    ("ctxx = 1\n", ':1: no command has an option "ctxx"'),
    ("--ctx = 1\n", ":1: --ctx: names stand here without dashes"),
    ("[worker]\nchild = yes\n", ':2: worker has no option "child"'),
    ("config = x\n", ':1: no command has an option "config"'),
    ("= 1\n", ':1: no command has an option ""'),
    ("color = pink\n", ':1: --color: "pink" is unknown; auto, always or never is allowed'),
    ("[serve]\nno-auth = maybe\n", None),
    ("a\0b\n", "holds a byte 0 after 1 bytes"),
]:
    write(text, other)
    r = run("run", "--config", other, "-m", "x", "-p", "a")
    if want is None:  # another command's section: only names are looked at
        ok(r.status == 1 and "maybe" not in r.err, "another command's values are not read", r.err)
    else:
        ok(r.status != 0 and other in r.err and want in r.err, f"refused: {text!r}", r.status, r.err)
write("x" * ((1 << 20) + 1), other)
has(run("run", "--config", other, "-m", "x", "-p", "a").err, "longer than the 1048576 bytes allowed", "a file too large")
write("ctx = 1\n", other)
os.chmod(other, 0o666)
has(run("run", "--config", other, "-m", "x", "-p", "a").err, "chmod o-w", "a file that everybody may write")
r = run("run", "-m", "x", "-p", "a", "--config", "none", env={"STAGECOACH_CTX": "many"})
ok(r.status == 2 and "STAGECOACH_CTX: --ctx:" in r.err, "a wrong variable is named", r.err)

# --- colors ---
for args, env, want in [
    (["--color", "always"], {"NO_COLOR": "1"}, True),
    (["--color", "never"], {}, False),
    ([], {"STAGECOACH_COLOR": "always"}, True),
    ([], {}, False),
]:
    r = run("run", "--config", "none", "-m", "/nowhere", "-p", "a", *args, env=env)
    is_("\033[" in r.err, want, f"colors with {args} {env}")
done()
