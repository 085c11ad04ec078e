"""What goes wrong around the program: names, ports, signals, folders, disks, files that change. TAP."""
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "front"))
from fronttest import PROGRAM, Server, done, folder, has, is_, make_model, ok, run, skip  # noqa: E402

SECONDS = 60
key = run("keygen", "--keys", os.path.join(folder, "other")).out.strip()
mine = os.path.join(folder, "mine")
run("keygen", "--keys", mine, "--trust", f"boss={key}")


class Program:
    """Runs until stop(); .said()"""

    def __init__(self, name, *args, env=None, **more):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "wb") as log:
            self.p = subprocess.Popen([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}, **more)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def says(self, text, seconds=SECONDS):
        end = time.time() + seconds
        while text not in self.said() and self.p.poll() is None and time.time() < end:
            time.sleep(0.02)
        return text in self.said()

    def stop(self, number=signal.SIGTERM):
        if self.p.poll() is None:
            self.p.send_signal(number)
        try:
            return self.p.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.p.kill()
            return None


def worker(name, *args, **more):
    return Program(name, "worker", "--keys", mine, "--name", name, "--threads", "1", *args, **more)


# --- few open files ---
tiny, why = make_model("files.gguf", "--quant", "Q4_0", "--layers", "4")


def with_files(least, most, *args):
    """Runs it with such limits of open files."""
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, errors="replace", timeout=SECONDS, stdin=subprocess.DEVNULL,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (least, most)))


for few in (12, 24) if tiny else ():
    for what in (("run", "-m", tiny, "-p", "a", "-n", "2", "--workers", "2"), ("worker", "--keys", mine, "--listen", "tcp://127.0.0.1:0", "--no-measure")):
        r = with_files(few, few, *what)
        ok(r.returncode == 1 and f"may open {few} files" in r.stderr and "ulimit -Hn" in r.stderr, f"{what[0]}: {few} open files are too few, and that is said",
           r.returncode, r.stderr)
    r = with_files(few, resource.getrlimit(resource.RLIMIT_NOFILE)[1], "run", "-m", tiny, "-p", "a", "-n", "2", "--workers", "2", "--ctx", "64")
    ok(r.returncode == 0 and r.stdout, f"run: {few}, and more where it asks for them", r.returncode, r.stderr)
if not tiny:
    skip(why)

# --- a node's address where the coordinator listens, which the file does not know ---
if tiny:
    with socket.create_server(("127.0.0.1", 0)) as free:
        taken, own = f"tcp://127.0.0.1:{free.getsockname()[1]}", os.path.join(folder, "own.yaml")
    with open(own, "w", encoding="ascii") as f:
        f.write(f'nodes:\n  a: {{address: "{taken}", ram: 1GiB, key: {key}}}\n')
    r = run("serve", "-m", tiny, "--topology", own, "--keys", mine, "--join-listen", taken)
    ok(r.status == 1 and f"{own}:2:3: node a has the address {taken}, where this coordinator listens" in r.err, "--join-listen at a node's address", r.status, r.err)

# --- probe's file: refused before it measures for long, so that no line of a profile comes ---
empty = os.path.join(folder, "empty")
os.mkdir(empty)
for option, path, said in (("--file", empty, "is a folder"), ("--file", "/dev/null", "no ordinary file"), ("--file", os.path.join(empty, "x"), "No such file"),
                           ("--model-dir", empty, "there is no file in"), ("--model-dir", PROGRAM, "is no folder"), ("--model-dir", os.path.join(empty, "x"), "No such file")):
    r = run("probe", option, path)
    ok(r.status == 2 and said in r.err and not r.out, f"probe {option}: {said}", r.status, r.err)

# --- a coordinator's name ---
w = worker("lost", "--coordinator", "tcp://no-such-host.invalid:7100", "--no-measure")
ok(w.says("does not answer"), "a coordinator whose name nobody knows is told", w.said())
has(w.said(), "no-such-host.invalid", "by its name")
has(w.said(), "trying again", "and tried again")
is_(w.stop(), 0, "until the worker is stopped")
r = run("worker", "--keys", mine, "--coordinator", "tcp://two words:7100")
ok(r.status == 2 and "two words" in r.err, "what cannot be a name is refused at once", r.status, r.err)

# --- ports and signals ---
taken = socket.create_server(("127.0.0.1", 0))
port = taken.getsockname()[1]
w = worker("taken", "--listen", f"tcp://127.0.0.1:{port}")
is_(w.p.wait(SECONDS), 1, "a port that is taken")
has(w.said(), "choose another port", "is told")
ok("measuring" not in w.said(), "before anything is measured", w.said())
taken.close()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    w = worker("hasty", "--listen", "tcp://127.0.0.1:*")
    ok(w.says("measuring"), "a worker measures", w.said())
    is_(w.stop(number), 0, f"{number.name} ends it")
    ok("listening" not in w.said(), "in the middle of that", w.said())
w = worker("nohup", "--listen", "tcp://127.0.0.1:*", "--no-measure", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
ok(w.says("listening"), "a worker by nohup", w.said())
w.p.send_signal(signal.SIGHUP)
time.sleep(0.3)
ok(w.p.poll() is None, "does not mind the terminal's end")
is_(w.stop(), 0, "and is stopped as always")

def processes(text):
    """Those whose command line has it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                found += [int(pid)] if text.encode() in f.read() else []
        except OSError:
            pass
    return found


model, why = make_model("fault.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip(why)
    done()

# --- whoever is killed leaves no worker behind ---
runtime = os.path.join(folder, "run")
os.mkdir(runtime, 0o700)
for i in range(12):  # at every moment of the beginning
    p = Program("killed", "run", "-m", model, "-p", "abc", "-n", 100, "--workers", 2, env={"XDG_RUNTIME_DIR": runtime})
    time.sleep(0.01 * i)
    p.stop(signal.SIGKILL)
end = time.time() + SECONDS
while processes(runtime) and time.time() < end:
    time.sleep(0.1)
left = processes(runtime)
is_(left, [], "12 commands that are killed while they begin: no worker process is left")
for pid in left:
    os.kill(pid, signal.SIGKILL)

folders = [os.path.join(runtime, name) for name in os.listdir(runtime)]
for path in folders:
    os.utime(path, (0, 0))  # younger ones may be just beginning
is_(run("run", "-m", model, "-p", "abc", "-n", 1, "--workers", 2, env={"XDG_RUNTIME_DIR": runtime}).status, 0, "the next command")
ok(folders and os.listdir(runtime) == [], f"removes the {len(folders)} folders that they left", os.listdir(runtime))

# --- a model's file that changes under a server ---
whole = model + ".whole"
shutil.copy(model, whole)
s = Server(model, "--workers", 2, "--ctx", 64, "--recover-timeout", 2, env={"XDG_RUNTIME_DIR": runtime})
want = s.text("abc", max_tokens=4, temperature=0)
for what, change, words in (("cut", lambda: os.truncate(model, os.path.getsize(whole) // 2), "truncated"),
                            ("removed", lambda: os.remove(model), "No such file")):
    change()
    for pid in processes(runtime):  # all: one may have had all layers
        os.kill(pid, signal.SIGKILL)
    status, answer = s.post("/v1/completions", prompt="abc", max_tokens=4, temperature=0)
    ok(status == 503 and words in answer["error"]["message"], f"the model's file is {what} and its workers lost: 503, and why", status, answer)
    shutil.copy(whole, model)
    end = time.time() + SECONDS
    while s.get("/health")[0] != 200 and time.time() < end:
        time.sleep(0.1)
    is_(s.text("abc", max_tokens=4, temperature=0), want, "it is there again: the same answer")
is_(s.stop(), 0, "it is stopped")

# --- descriptors ---
p = subprocess.run([PROGRAM, "run", "-m", model, "-p", "abc", "-n", "4", "--workers", "2"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                   preexec_fn=lambda: os.close(1), timeout=SECONDS)
ok(p.returncode == 1 and "standard output" in p.stderr and "descriptor" in p.stderr, "without standard output nothing else is taken for it", p.returncode, p.stderr)
few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)), "env": {"XDG_RUNTIME_DIR": runtime}}
p = Program("few", "serve", "-m", model, "--workers", 2, "--ctx", 64, "--listen", "127.0.0.1:0", **few)
ok(p.says("ready: http"), "a server that may open few files", p.said())
has(p.said(), "at most 12 HTTP connections", "keeps some for its workers, and says so")
port = int(p.said().split("://127.0.0.1:")[1].split()[0])
idle = []
for _ in range(100):
    c = socket.create_connection(("127.0.0.1", port), SECONDS)
    c.sendall(b"GET /health HTTP/1.1\r\nHost: half")
    idle.append(c)
os.kill(processes(runtime)[0], signal.SIGKILL)  # two, with a part each
ok(p.says("runs again"), "a hundred half requests do not keep it from replacing a worker", p.said())
for c in idle:
    c.close()
is_(p.stop(), 0, "it is stopped")

# --- files that are none ---
for name, make, words in (("zeros", lambda p: open(p, "wb").write(bytes(5000)), "value 0"), ("folder", os.mkdir, "directory")):
    path = os.path.join(folder, name)
    make(path)
    r = run("serve", "-m", model, "--listen", "127.0.0.1:0", "--api-key-file", path)
    ok(r.status in (1, 2) and words in r.err, f"API keys in a file of {name}", r.status, r.err)
done()
