"""Each worker in a network namespace of its own, joined by virtual cables whose rate the kernel limits (tc): 1 to 6 workers, layers
divided unevenly, one that nobody can dial. Tokens and the 40 likeliest with their logarithms must be those of one process, at
temperature 0 and at 1. Where the kernel lets us make no namespaces, it skips; delays and jitter are test_recovery's (relay). TAP.
SC_LONG=1: every number of workers over both links."""
import json
import os
import shutil
import subprocess
import sys
import time

INSIDE = "SC_NETNS_INSIDE"
if INSIDE not in os.environ:  # as root of a user namespace: an ordinary user may, too
    if not shutil.which("unshare") or not shutil.which("ip") or not shutil.which("nsenter"):
        print("1..0 # SKIP unshare, nsenter or ip is not there")
        sys.exit(0)
    probe = subprocess.run(["unshare", "-rnm", "sh", "-c", "ip link add v0 type veth peer name v1 && echo 1 > /proc/sys/net/ipv4/ip_forward"],
                           capture_output=True, text=True)
    if probe.returncode != 0:
        print("1..0 # SKIP no network namespaces here:", probe.stderr.strip().replace("\n", " ")[:200])
        sys.exit(0)
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-rnm", sys.executable, "-B", *sys.argv])

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "cli"))
from clitest import PROGRAM, done, folder, make_model, ok, run, skip, skip_all  # noqa: E402

LAYERS = 6
LONG = "SC_LONG" in os.environ
LINKS = {"1 Gbit/s": "1gbit", "300 Mbit/s": "300mbit"}
TEXTS = ["The quick brown fox jumps over the lazy dog and", "abc"]

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", str(LAYERS))
if not model:
    skip_all(why)


def ip(*args, at=None):
    command = (["nsenter", "-t", str(at), "-n"] if at else []) + ["ip", *map(str, args)]
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode != 0:
        print("Bail out!", " ".join(command), p.stderr)
        sys.exit(1)


def shape(device, rate, at=None):
    command = (["nsenter", "-t", str(at), "-n"] if at else []) + ["tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate,
                                                                  "burst", "256kb", "latency", "20ms"]
    return subprocess.run(command, capture_output=True, text=True).returncode == 0


class Machine:
    """A namespace at the end of a cable: 10.77.N.2, this one being 10.77.N.1 and the router between all of them."""

    def __init__(self, n):
        self.n, self.name, self.worker = n, f"w{n}", None
        self.keys = os.path.join(folder, self.name)
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "100000"])
        self.pid = self.holder.pid
        deadline = time.time() + 10
        while os.readlink(f"/proc/{self.pid}/ns/net") == os.readlink("/proc/self/ns/net") and time.time() < deadline:
            time.sleep(0.01)
        ip("link", "add", f"v{n}", "type", "veth", "peer", "name", "e0", "netns", self.pid)
        ip("addr", "add", f"10.77.{n}.1/24", "dev", f"v{n}")
        ip("link", "set", f"v{n}", "up")
        ip("addr", "add", f"10.77.{n}.2/24", "dev", "e0", at=self.pid)
        ip("link", "set", "e0", "up", at=self.pid)
        ip("link", "set", "lo", "up", at=self.pid)
        ip("route", "add", "default", "via", f"10.77.{n}.1", at=self.pid)
        self.address = f"tcp://10.77.{n}.2:7101"
        self.key = run("keygen", "--keys", self.keys).out.strip()
        run("keygen", "--keys", self.keys, "--trust", f"boss={boss}")

    def start(self, dialed, *how):
        how = how or (["--listen", self.address] if dialed else ["--coordinator", f"tcp://10.77.{self.n}.1:7100"])
        with open(os.path.join(folder, self.name + ".log"), "ab") as log:
            self.worker = subprocess.Popen(["nsenter", "-t", str(self.pid), "-n", PROGRAM, "worker", "--name", self.name, "--keys", self.keys,
                                            "--threads", "1", "--model-dir", folder, *how], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        for p in (self.worker, self.holder):
            if p:
                p.kill()
                p.wait()


def cuts(n):
    """Uneven: the first takes what the others leave."""
    sizes = [1] * n
    sizes[0 if n % 2 else -1] += LAYERS - n
    return sizes


class Home(Machine):
    """A worker beside the coordinator."""

    def __init__(self):
        self.n, self.name, self.keys, self.holder, self.worker, self.pid = 0, "home", os.path.join(folder, "home"), None, None, os.getpid()
        self.key = run("keygen", "--keys", self.keys).out.strip()
        run("keygen", "--keys", self.keys, "--trust", f"boss={boss}")


def topology(machines, nat, addresses=True):
    path = os.path.join(folder, "cluster.yaml")
    with open(path, "w", encoding="ascii") as f:
        f.write('coordinator: {listen: "tcp://0.0.0.0:7100"}\nnodes:\n')
        for m in machines:
            f.write(f"  {m.name}: {{ram: 1GiB, key: {m.key}{'' if m is nat or not addresses else ', address: ' + chr(34) + m.address + chr(34)}}}\n")
        f.write("pins:\n")
        first = 0
        for m, size in zip(machines, cuts(len(machines))):
            f.write(f"  - {{layers: {first}-{first + size - 1}, node: {m.name}}}\n")
            first += size
    return path


def answers(*where):
    """What run --json says of tokens and likeliest tokens, at temperature 0 and 1."""
    result = []
    for how in (["--temp", "0"], ["--temp", "1", "--seed", "77"]):
        prompts = [a for text in TEXTS for a in ("-p", text)]
        r = run("run", "-m", model, *prompts, "-n", "20", "--json", "--logprobs", "40", "--ctx", "128", "--threads", "1", *how, *where)
        if r.status != 0:
            return r.err
        result.append([{k: case[k] for k in ("tokens", "greedy", "text", "top")} for case in json.loads(r.out)["cases"]])
    return result


ip("link", "set", "lo", "up")
with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as f:
    f.write("1")
chief = os.path.join(folder, "boss")
boss = run("keygen", "--keys", chief).out.strip()
want = answers()
if isinstance(want, str):
    print("Bail out!", want)
    sys.exit(1)
ok(len(want[0][0]["top"][-1]) == 40 and want[0] != want[1], "one process: 40 log-probabilities of each token; temperature 1 is another answer")
machines = []
try:
    machines = [Machine(n) for n in range(LAYERS if LONG else 3)]
    nat = machines[2]
    for m in machines:
        m.start(m is not nat)
    plan = [(name, n) for name in LINKS for n in range(1, LAYERS + 1)] if LONG else [("1 Gbit/s", 3), ("300 Mbit/s", 2)]
    for name, n in plan:
        if not all(shape(f"v{m.n}", LINKS[name]) and shape("e0", LINKS[name], at=m.pid) for m in machines):
            skip(f"{n} workers over {name}: this kernel has no tbf")
            continue
        got = answers("--topology", topology(machines[:n], nat), "--keys", chief)
        ok(got == want, f"{n} worker{'s' if n > 1 else ''} over {name}, layers {cuts(n)}{', one that dials' if n > 2 else ''}: the same, bit for bit",
           got if isinstance(got, str) else "other tokens or log-probabilities")

    # Both listen everywhere and say no more. One is on the coordinator's own machine, and came by loopback, where the other cannot dial it.
    home, guest = Home(), machines[0]
    machines.append(home)
    guest.worker.kill()
    guest.worker.wait()
    guest.start(False, "--listen", "tcp://0.0.0.0:7101", "--coordinator", f"tcp://10.77.{guest.n}.1:7100")
    home.start(False, "--listen", "tcp://0.0.0.0:7102", "--coordinator", "tcp://127.0.0.1:7100")
    for chain in ((home, guest), (guest, home)):
        got = answers("--topology", topology(chain, None, addresses=False), "--keys", chief)
        ok(got == want, f"{chain[0].name} before {chain[1].name}, which listen everywhere: the same", got)
finally:
    for m in machines:
        m.stop()
done()
