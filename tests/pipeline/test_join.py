"""A cluster that nobody wrote a file for: serve --join-listen, invitations, workers that join, one whose key is removed, a start
from what was remembered. TAP."""
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "front"))
from fronttest import PROGRAM, Server, done, folder, has, is_, make_model, ok, run, skip, skip_all  # noqa: E402

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)
os.environ["XDG_CONFIG_HOME"] = os.path.join(folder, "boss")  # the coordinator's keys
os.environ["XDG_RUNTIME_DIR"] = os.path.join(folder, "run")  # where no other test's server runs: invite asks the only one
os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
CLUSTER = os.path.join(folder, "boss", "stagecoach", "cluster.yaml")
SECONDS = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, seconds=SECONDS):
    end = time.time() + seconds
    while not what() and time.time() < end:
        time.sleep(0.05)
    return what()


class Worker:
    """With a home of its own, as on another machine."""

    def __init__(self, name, *args):
        self.name, self.args, self.p = name, args, None
        self.log = os.path.join(folder, name + ".log")

    def start(self, *more):
        with open(self.log, "ab") as log:
            self.p = subprocess.Popen([PROGRAM, "worker", "--keys", os.path.join(folder, self.name), "--name", self.name, "--threads", "1",
                                       "--model-dir", folder, *self.args, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, number=signal.SIGKILL):
        if self.p and self.p.poll() is None:
            self.p.send_signal(number)
            self.p.wait()


def node(server, name):
    nodes = server.get("/v1/cluster")[1]["nodes"]
    return next((n for n in nodes if n["name"] == name), {"state": "unknown"})


def state(server, name):
    return node(server, name)["state"]


def remembered():
    with open(CLUSTER, encoding="utf-8") as f:
        return f.read()


listen = f"tcp://127.0.0.1:{free_port()}"
workers = [Worker("attic"), Worker("cellar", "--listen", f"tcp://0.0.0.0:{free_port()}")]
prompt = {"prompt": "abc", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
alone = Server(model, "--workers", 1, "--ctx", 64)
want = alone.complete(**prompt)[0]["text"]
alone.stop()

try:
    r = run("serve", "-m", model, "--join-listen", listen, "--workers", "2", "--listen", "127.0.0.1:0")
    ok(r.status == 2 and "--workers" in r.err, "own workers and joining ones at once are refused", r.err)
    s = Server(model, "--join-listen", listen, "--ctx", 64, wait=False)
    ok(s.port and s.get("/health")[0] == 503, "serve waits for workers, and says that it is not ready", s.lines)
    ok(not os.path.exists(CLUSTER), "nothing is remembered yet")
    token = run("invite", "--address", listen).out.strip()
    workers[0].start("--join", token)
    ok(s.ready.wait(SECONDS) and s.port, "one worker joins: ready", s.lines)
    is_(s.complete(**prompt)[0]["text"], want, "it answers as one process does")
    has(remembered(), "attic", "it is remembered")
    with open(CLUSTER, "a", encoding="utf-8") as f:
        f.write("# a note of mine\n")
    workers[1].start("--join", run("invite", "--address", listen).out.strip())
    ok(until(lambda: state(s, "cellar") == "here"), "another joins", s.lines[-5:])
    has(remembered(), "cellar", "it is remembered, too")
    has(remembered(), "# a note of mine", "and what a person wrote meanwhile is kept")
    has(remembered(), workers[1].args[1].replace("0.0.0.0", "127.0.0.1"), "with the address that it came from, since it listens everywhere")
    r = run("worker", "--listen", "tcp://127.0.0.1:0", "--advertise", "tcp://0.0.0.0:7101", "--model", model)
    ok(r.status == 2 and "every address of a machine" in r.err, "everywhere is no address to advertise", r.err)
    is_(s.complete(**prompt)[0]["text"], want, "the same answer")
    r = run("worker", "--keys", os.path.join(folder, "thief"), "--name", "thief", "--join", token)
    ok(r.status == 1 and "thief" not in remembered(), "a token is good once", r.err)

    stray = Worker("coordinator")
    stray.start("--join", run("invite", "--address", listen).out.strip())
    is_(stray.p.wait(SECONDS), 1, "a worker with a name that topology files need is turned away")
    has(stray.said(), 'no worker can be called "coordinator"', "that is said, with what to do")
    has(stray.said(), "--name", "the option, too")
    long = Worker("n" * 64)
    long.start("--join", run("invite", "--address", listen).out.strip())
    ok(until(lambda: "n" * 64 in remembered()), "the longest name that a host can have is written down", s.lines[-5:])
    long.stop()
    ok(until(lambda: s.get("/health")[0] == 200), "the cluster goes on", s.lines[-5:])
    is_(run("keygen", "--remove", "n" * 64).status, 0, "it is removed again")

    is_(run("keygen", "--remove", "attic").status, 0, "the key of one is removed")
    ok(until(lambda: state(s, "attic") == "away", 10), "it is gone at once", s.get("/v1/cluster")[1]["nodes"])
    ok(until(lambda: s.get("/health")[0] == 200), "the other goes on alone", s.lines[-5:])
    is_(s.complete(**prompt)[0]["text"], want, "and answers")
    time.sleep(1)
    ok(state(s, "attic") == "away", "it is not let in again", workers[0].said()[-500:])
    s.stop()
    workers[0].stop()

    s = Server(model, "--join-listen", listen, "--ctx", 64)
    named = Worker("guest")
    workers.append(named)
    named.start("--join", run("invite", "--address", listen.replace("127.0.0.1", "localhost")).out.strip())
    ok(until(lambda: state(s, "guest") == "here"), "an invitation with a host's name brings a worker that stays", named.said()[-500:])
    named.stop()
    is_(run("keygen", "--remove", "guest").status, 0, "it is removed")
    is_(state(s, "cellar"), "here", "a start from what is remembered finds the node that is trusted")
    is_(s.complete(**prompt)[0]["text"], want, "and answers")
    has(workers[1].said(), "from memory", "with the weights that it kept")
    ok(any("attic is left out" in line for line in s.lines), "the one whose key was removed is left out, and that is said", s.lines)
    workers[0] = Worker("attic")
    workers[0].start("--join", run("invite", "--address", listen).out.strip())
    ok(until(lambda: state(s, "attic") == "here"), "until it is invited again", s.lines[-5:], workers[0].said()[-500:])
    is_(remembered().count("attic"), 1, "it stands in the file once")

    # what is closed on purpose is no trouble
    def settled():
        """Both are at work, and for longer than it takes until a node that came is taken in."""
        end, since = time.time() + SECONDS, None
        while time.time() < end and not (since and time.time() - since > 2):
            at_work = s.get("/health")[0] == 200 and all(state(s, w.name) == "here" for w in workers[:2])
            since = (since or time.time()) if at_work else None
            time.sleep(0.05)
        return since is not None

    ok(settled(), "both are at work", s.lines[-5:])
    marks = [len(w.said()) for w in workers[:2]] + [len(s.lines)]
    for order, told in ((["replan"], "planned anew: it was asked for"), (["drain", "cellar", "--for", "1s"], "node cellar is drained"),
                        (["drain", "attic", "--for", "1s"], "node attic is drained")):
        r = run(*order)
        ok(r.status == 0 and until(lambda: any(told in line for line in s.lines[marks[-1]:])) and settled(), " ".join(order), r.err, s.lines[-8:],
           *(w.said()[-900:] for w in workers[:2]))
        is_(sum(told in line for line in s.lines[marks[-1]:]), 1, f"{' '.join(order)}: told once", s.lines[-8:])
    said = [line for w, mark in zip(workers[:2], marks) for line in w.said()[mark:].splitlines()]
    ok(any("this epoch is over: " in line and "it was asked for" in line for line in said), "who was in the pipeline says why it ended", said)
    workers[0].stop(signal.SIGTERM)
    ok(until(lambda: state(s, "attic") == "away") and until(lambda: s.get("/health")[0] == 200), "one is told to stop", s.lines[-8:])
    said += s.lines[marks[-1]:]
    if any(word in line for line in said for word in ("sign of life", "no heartbeat")):
        skip("the machine stood still for so long that nodes took each other for dead")
    else:
        is_([line for line in said if "warning" in line or "error" in line], [], "orders are no trouble: nobody warns")
    s.stop()
    with socket.socket(socket.AF_INET6) as six:
        try:
            six.bind(("::", 0))
            everywhere = f"tcp://[::]:{six.getsockname()[1]}"
        except OSError:
            everywhere = None
    if everywhere:
        s = Server(model, "--join-listen", everywhere, "--ctx", 64, wait=False)
        visitor = Worker("visitor")
        workers.append(visitor)
        visitor.start("--join", run("invite").out.strip())
        ok(until(lambda: state(s, "visitor") == "here"), "an invitation of a server that listens at [::] names addresses that can be dialed", visitor.said())
        s.stop()
finally:
    for w in workers:
        w.stop()
done()
