"""worker --service: the unit it writes, what it tells systemd; a systemctl of our own stands for it. TAP; needs no model."""
import os
import shutil
import stat
import subprocess

from clitest import PROGRAM, SRC, done, folder, has, is_, ok, run, skip

home = os.path.join(folder, "home")
bin_folder, odd = os.path.join(folder, "bin"), os.path.join(folder, 'models of 100% "mine" $HOME')
for d in (home, bin_folder, odd):
    os.makedirs(d)
os.environ.update(HOME=home, XDG_CONFIG_HOME=os.path.join(home, ".config"))
unit = os.path.join(home, ".config", "systemd", "user", "stagecoach-worker.service")
log = os.path.join(folder, "log")
script = os.path.join(bin_folder, "systemctl")
with open(script, "w") as f:
    f.write(f'#!/bin/sh\necho "$*" >>{log}\nexit ${{FAKE_STATUS:-0}}\n')
os.chmod(script, stat.S_IRWXU)
path = {"PATH": bin_folder + ":" + os.environ["PATH"]}
boss = run("keygen", "--keys", os.path.join(folder, "boss")).out.strip()
run("keygen", "--trust", f"boss={boss}")

args = ["worker", "--coordinator", "boss@tcp://192.0.2.1:7100", "--service", "--ram", "2GiB", "--model-dir", odd, "--threads", "3"]
r = run(*args, "--dry-run", env=path)
ok(r.status == 0 and not os.path.exists(unit) and not os.path.exists(log), "--dry-run changes nothing", r.err)
has(r.out, "ExecStart=", "but shows the unit")
has(r.out, "systemctl --user enable --now stagecoach-worker.service", "and what would be run")

r = run(*args, env=path)
is_(r.status, 0, "installed", r.err)
with open(unit) as f:
    text = f.read()
start = next(s for s in text.splitlines() if s.startswith("ExecStart="))
is_(start, 'ExecStart="%s" "worker" "--model-dir=%s" "--ram=2147483648" "--threads=3" "--coordinator=boss@tcp://192.0.2.1:7100" "--keys=%s"' % (
    os.path.realpath(PROGRAM), os.path.realpath(odd).replace('"', '\\"').replace("%", "%%").replace("$", "$$"), os.path.join(home, ".config", "stagecoach")),
    "the command line, quoted as systemd reads it", text)
has(text, "WantedBy=default.target", "it starts with the user's session")
with open(log) as f:
    is_(f.read().splitlines(), ["--user daemon-reload", "--user enable --now stagecoach-worker.service"], "systemd is told")
has(r.err, unit, "says what it wrote")
has(r.err, "enable-linger", "and what is left to do")
is_(stat.S_IMODE(os.stat(unit).st_mode), 0o600, "the unit is the user's alone")

# --- systemd's own eye on it, and on the examples ---
if not shutil.which("systemd-analyze"):
    skip("systemd-analyze is not installed")
else:
    for name in ("serve", "worker"):
        with open(os.path.join(SRC, "examples", "systemd", f"stagecoach-{name}@.service")) as f:
            text = f.read()
        with open(os.path.join(folder, f"stagecoach-{name}@a-b.service"), "w") as f:
            f.write(text.replace("ExecStart=stagecoach ", f"ExecStart={os.path.realpath(PROGRAM)} "))
    runtime = os.path.join(folder, "runtime")
    os.mkdir(runtime, 0o700)
    for u in (unit, *(os.path.join(folder, f"stagecoach-{name}@a-b.service") for name in ("serve", "worker"))):
        p = subprocess.run(["systemd-analyze", "--user", "verify", u], capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": runtime})
        is_((p.returncode, p.stderr), (0, ""), f"systemd-analyze verify {os.path.basename(u)}")

r = run(*args, env={**path, "FAKE_STATUS": "1"})
ok(r.status == 1 and "systemctl --user daemon-reload failed" in r.err, "a systemd that refuses", r.err)
r = run(*args, env={"PATH": folder})
ok(r.status == 1 and "without systemd" in r.err, "a machine without it", r.err)
for wrong, want in [(["--service"], "neither --listen nor --join"), (["--listen", "tcp://127.0.0.1:1", "--dry-run"], "--dry-run is for --service")]:
    r = run("worker", *wrong)
    ok(r.status == 2 and want in r.err, f"refused: {wrong}", r.err)
r = run("worker", "--join", "nonsense", "--service", env=path)
ok(r.status != 0 and "joining" in r.err, "an invitation that is none", r.err)
done()
