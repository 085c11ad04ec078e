"""status, chat, replan, drain and stop: how they find a server of this user, and what they show. TAP."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from fronttest import PROGRAM, Server, done, folder, has, is_, make_model, ok, run, skip_all

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
is_([n["name"] for n in j["nodes"] if "loading" in n], [], "nobody loads any more")
r = run("status")
lines = (url, "worker0/cpu", "worker1/cpu", "answers: 0 open", "KV:")
ok(r.status == 0 and all(line in r.out for line in lines), "status, for people", r.out, r.err)
ok("\033" not in r.out, "no colors where there is no terminal")
has(run("status", "--color", "always").out, "\033[1m", "--color always")
is_(run("status", "--watch", "--once").status, 2, "--watch and --once")

# --- followed ---
p = subprocess.Popen([PROGRAM, "status", "--watch", "--json", "--interval", "0.1"], stdout=subprocess.PIPE, text=True)
seen = [json.loads(p.stdout.readline()) for _ in range(3)]
p.send_signal(signal.SIGINT)
rest = p.communicate(timeout=20)[0]
ok(p.returncode == 0 and all(x["health"] == "ok" for x in seen), "--watch --json: a line each time, Ctrl-C ends it", p.returncode, rest[-200:])


class Terminal:
    """A program at a terminal of 24 lines and 100 columns."""

    def __init__(self, *args):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(PROGRAM, [PROGRAM, *args])
        self.pid, self.text = pid, ""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def read_until(self, enough, seconds=30):
        end = time.time() + seconds
        while not enough(self.text) and time.time() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        return enough(self.text)

    def end(self):
        try:
            while True:
                self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
        except OSError:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


t = Terminal("status", "--interval", "0.1")
ok(t.read_until(lambda s: s.count("\033[H\033[J") >= 4), "on a terminal it is redrawn in place", t.text[-500:])
frame = t.text.split("\033[H\033[J")[-2]
lines = [re.sub(r"\033\[[?0-9;]*[A-Za-z]", "", s) for s in frame.splitlines()]
ok(len(lines) <= 24 and max(map(len, lines)) <= 100, "within the terminal", [len(s) for s in lines])
ok("\033[?1049h" in t.text and any("worker1/cpu" in s for s in lines), "on its second screen", frame)
os.write(t.fd, b"\x03")
is_(t.end(), 0, "Ctrl-C ends it")
tail = t.text.split("\033[?1049l")
ok(len(tail) == 2 and "worker0/cpu" in tail[1], "and the last view stays", t.text[-300:])

# --- chat by the server ---
here = run("chat", "-m", model, "--ctx", 64, "--once", "hello", "--seed", 5, "-n", 8)
there = run("chat", "--once", "hello", "--seed", 5, "-n", 8)
is_((there.status, there.out), (0, here.out), "chat finds the server; the same seed gives the answer that it gives here", there.err)
r = run("chat", "--url", url, "--seed", 5, "-n", 8, data="hello\n/retry\n/stats\n/undo\nhello\n/save " + os.path.join(folder, "saved") + "\n")
ok(r.status == 0 and r.out.count("\n") >= 3 and "messages                      2" in r.err, "a conversation, line by line", r.status, r.out, r.err)
with open(os.path.join(folder, "saved")) as f:
    is_([m["role"] for m in json.load(f)], ["user", "assistant"], "saved")
r = run("chat", "--url", url, data="x" * 5000)
ok(r.status == 1 and url in r.err and "400" in r.err, "what does not fit: the server's words", r.err)
is_(run("chat", "--url", url, "-m", model).status, 2, "-m and --url")
r = run("chat", "--once", "hello", "--seed", 5, "-n", 8, "--url", url, env={"STAGECOACH_MODEL": "/nonexistent.gguf", "STAGECOACH_CHAT_CTX": "64"})
is_((r.status, r.out), (0, here.out), "--url wins over a model that a variable names", r.err)
r = run("chat", "-m", model, "--ctx", 64, "--once", "hello", "--seed", 5, "-n", 8, env={"STAGECOACH_API_KEY_FILE": "/nonexistent", "STAGECOACH_URL": "http://127.0.0.1:1"})
is_((r.status, r.out), (0, here.out), "and -m over a server's variables", r.err)
is_(run("chat", "--url", "http://127.0.0.1:1", "--once", "a").status, 1, "nobody there")

# --- orders ---
status, j = s.post("/v1/cluster/replan")
ok(status == 401 and "key" in j["error"]["message"], "no orders from just anybody", status, j)
r = run("replan")
is_(r.status, 0, "replan", r.err)
for args, want, code in [
    (["nobody"], 'no node "nobody"', 1),
    (["worker1", "--for", "soon"], '"soon" is no time', 2),
    (["worker1", "--for", "31d"], '"31d" is no time', 2),
    ([], "expected: NODE", 2),
]:
    r = run("drain", *args)
    ok(r.status == code and want in r.err, f"drain {args}", r.status, r.err)
epoch = s.get("/v1/cluster")[1]["epoch"]
r = run("drain", "worker1", "--for", "2s")
is_(r.status, 0, "drain", r.err)


def wait_for(good, seconds=60):
    until = time.time() + seconds
    while time.time() < until:
        j = s.get("/v1/cluster")[1]
        if good(j):
            return j
        time.sleep(0.1)
    return None


j = wait_for(lambda j: j["health"] == "ok" and j["epoch"] > epoch and [x["node"] for x in j["stages"]] == ["worker0"])
ok(j, "the model is on the other worker", s.get("/v1/cluster")[1])
is_(run("chat", "--once", "hello", "--seed", 5, "-n", 8).out, here.out, "with the same answer")
ok(wait_for(lambda j: any("may be used again" in e["text"] for e in j["events"])), "after a while it may be used again")
run("replan")
ok(wait_for(lambda j: j["health"] == "ok" and len(j["stages"]) == 2), "and is", s.get("/v1/cluster")[1])
ok(os.stat(os.path.join(runtime, "stagecoach")).st_mode & 0o077 == 0, "the folder is the user's alone")

keys = os.path.join(folder, "keys")
with open(keys, "w") as f:
    f.write("# one\n  sk-a-long-enough-key me\n")
other = Server(model, "--workers", 1, "--ctx", 64, "--api-key-file", keys)
r = run("stop")
ok(r.status == 2 and url in r.err and str(other.port) in r.err, "stop where several run: they are named", r.err)
r = run("status", "--url", f"http://127.0.0.1:{other.port}")
is_(r.status, 0, "status of an own server needs no key", r.err)
r = run("status", "--url", f"http://localhost:{other.port}")
ok(r.status == 1 and "401" in r.err and "API key" in r.err, "of a foreign one without the key: the server's words", r.err)
status, _, text = other.ask("POST", "/v1/cluster/replan", {}, {"Authorization": "Bearer sk-a-long-enough-key"})
ok(status == 403 and "not change the cluster" in text, "a key for the model is none for the cluster", status, text)
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
