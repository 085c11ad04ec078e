"""status and stop: how they find a server of this user. TAP."""
import json
import os
import signal

from fronttest import Server, done, folder, has, is_, make_model, ok, run, skip_all

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "2")
if not model:
    skip_all(why)
runtime = os.path.join(folder, "run")
os.mkdir(runtime, 0o700)
os.environ["XDG_RUNTIME_DIR"] = runtime

r = run("stop")
ok(r.status == 1 and "no server of yours" in r.err, "stop where nothing runs", r.err)
r = run("status", "--url", "http://127.0.0.1:1")
ok(r.status == 1 and "nobody answers" in r.err, "status where nothing runs", r.err)
for url in ("127.0.0.1:8080", "http://127.0.0.1", "ftp://x:1"):
    is_(run("status", "--url", url).status, 2, f"--url {url}")

s = Server(model, "--workers", 2, "--ctx", 64, wait=False)
url = f"http://127.0.0.1:{s.port}"
r = run("status", "--wait-ready", "--json")
is_(r.status, 0, "status --wait-ready finds the server and waits", r.err)
j = json.loads(r.out)
ok(j["health"] == "ok" and j["state"] == "running" and len(j["stages"]) == 2, "--json: what /v1/cluster says", r.out)
r = run("status")
lines = (url, "stage 0: worker0", "stage 1: worker1", "answers: 0 open")
ok(r.status == 0 and all(line in r.out for line in lines), "status, for people", r.out, r.err)
ok(os.stat(os.path.join(runtime, "stagecoach")).st_mode & 0o077 == 0, "the folder is the user's alone")

keys = os.path.join(folder, "keys")
with open(keys, "w") as f:
    f.write("# one\n  sk-a-long-enough-key me\n")
other = Server(model, "--workers", 1, "--ctx", 64, "--api-key-file", keys)
r = run("stop")
ok(r.status == 2 and url in r.err and str(other.port) in r.err, "stop where several run: they are named", r.err)
r = run("status", "--url", f"http://127.0.0.1:{other.port}")
ok(r.status == 1 and "401" in r.err and "API key" in r.err, "status without the key: the server's words", r.err)
is_(run("status", "--url", f"http://127.0.0.1:{other.port}", "--api-key-file", keys).status, 0, "with it")
r = run("stop", "--url", f"http://127.0.0.1:{other.port}")
is_((r.status, other.p.wait(10)), (0, 0), "stop --url: it has ended when stop has", r.err)

crashed = Server(model, "--workers", 1, "--ctx", 64)
crashed.p.send_signal(signal.SIGKILL)
crashed.p.wait()
r = run("stop", "--now")
is_((r.status, s.p.wait(10)), (0, 0), "what a crashed server left is no server; stop --now", r.err)
is_(os.listdir(os.path.join(runtime, "stagecoach")), [], "nothing is left")
done()
