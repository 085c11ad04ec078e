"""keygen and invite as a user meets them: TAP."""
import os
import re
import stat

from clitest import done, folder, has, is_, ok, run

config = os.path.join(folder, "config")
os.environ["XDG_CONFIG_HOME"] = config
os.environ["XDG_RUNTIME_DIR"] = os.path.join(folder, "run")  # where no server runs
os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
home = os.path.join(config, "stagecoach")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


r = run("keygen")
ok(r.status == 0 and re.fullmatch(r"[0-9a-f]{64}\n", r.out), "keygen prints the public key, 64 digits", r.out, r.err)
key = r.out.strip()
is_(mode(home), 0o700, "in a folder for this user only")
is_(mode(os.path.join(home, "node.secret")), 0o600, "with a secret that only this user can read")
is_(run("keygen").out, r.out, "the same the next time")
ok(key not in open(os.path.join(home, "node.secret"), encoding="ascii").read(), "the secret is another number")
is_(run("keygen", "--name", "tower").status, 0, "a name")
is_(open(os.path.join(home, "node.name"), encoding="ascii").read(), "tower\n", "is kept")
r = run("keygen", "--name", "../x")
ok(r.status == 2 and "no name for a node" in r.err, "what is no name is refused", r.err)

other = "ab" * 32
is_(run("keygen", "--trust", f"attic={other}").status, 0, "a key is trusted")
has(run("keygen", "--list").out, f"attic {other}\n", "and listed")
r = run("keygen", "--trust", f"attic={'cd' * 32}")
ok(r.status != 0 and "another key is known" in r.err, "another key of that name is refused", r.err)
for bad in ("attic", "=ab", "cellar=12", "a/b=" + other):
    r = run("keygen", "--trust", bad)
    ok(r.status == 2 and r.err.count("\n") <= 2, f"--trust {bad[:20]} is wrong usage", r.status, r.err)
r = run("keygen", "--remove", "cellar")
ok(r.status == 1 and "known are: attic" in r.err, "removing one that is not known names the known", r.err)
is_(run("keygen", "--remove", "attic").status, 0, "removing")
ok("attic" not in run("keygen", "--list").out, "and it is gone")

loose = os.path.join(home, "trusted", "loose.pub")
with open(loose, "w", encoding="ascii") as f:
    f.write(other + "\n")
os.chmod(loose, 0o666)
r = run("keygen", "--list")
ok(r.status == 0 and "loose" not in r.out and "chmod 600" in r.err, "a key that others may write is passed over, and that is said", r.err)
os.remove(loose)
os.chmod(home, 0o755)
r = run("keygen")
ok(r.status == 1 and f"chmod 700 {home}" in r.err, "an open folder is refused with what to do", r.err)
os.chmod(home, 0o700)

r = run("invite", "--address", "tcp://192.168.1.10:7100", "--minutes", "5")
ok(r.status == 0 and re.fullmatch(r"[A-Za-z0-9_-]{100,}\n", r.out), "invite prints a token and nothing else on stdout", r.out)
has(r.err, "5 minutes", "and for how long it is good on stderr")
ok(r.out != run("invite", "--address", "tcp://192.168.1.10:7100").out, "each is another one")
is_(len(os.listdir(os.path.join(home, "invites"))), 2, "two are open")
r = run("invite")
is_(r.status, 1, "an address is needed where no server runs that has one")
has(r.err, "--address", "and asked for")
r = run("invite", "--address", "192.168.1.10:7100")
ok(r.status == 2 and "tcp://HOST:PORT" in r.err, "one that can be dialed", r.err)
is_(run("invite", "--address", "tcp://a:1", "--minutes", "0").status, 2, "no time at all is refused")
r = run("keygen", "--keys", os.path.join(folder, "elsewhere"))
ok(r.status == 0 and r.out.strip() != key, "--keys: another folder, another key")
done()
