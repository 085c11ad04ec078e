"""Weights over the network, between real processes: only what is needed is sent, the coordinator does not hold the model, a worker
that is killed in the middle goes on where it stopped, a peer whose bytes are wrong is found out and named, a cache stays in its
bounds. TAP."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "front"))
sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "pipeline"))
from fronttest import PROGRAM, Server, done, folder, has, is_, make_model, ok, run, skip, skip_all  # noqa: E402
from relay import Relay  # noqa: E402

LAYERS = 12
model, why = make_model("big.gguf", "--quant", "Q8_0", "--layers", str(LAYERS))
if not model:
    skip_all(why)
if not os.path.exists(os.path.join(os.environ.get("SC_BUILD", "build"), "tests/pipeline/relay")):
    skip_all("tests/pipeline/relay is not there")
MIB = 1 << 20
CHUNK = 4 * MIB
SECONDS = 90
size = os.path.getsize(model)
boss_keys = os.path.join(folder, "boss")
boss = run("keygen", "--keys", boss_keys).out.strip()
prompt = {"prompt": "abc", "max_tokens": 10, "temperature": 0, "ignore_eos": True}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, seconds=SECONDS):
    end = time.time() + seconds
    while not what() and time.time() < end:
        time.sleep(0.02)
    return what()


def peak_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))


def read_bytes(pid):
    with open(f"/proc/{pid}/io", encoding="ascii") as f:
        return int(re.search(r"rchar: (\d+)", f.read()).group(1))


def tree_bytes(path):
    return sum(os.stat(os.path.join(d, f)).st_blocks * 512 for d, _, files in os.walk(path) for f in files)


class Worker:
    def __init__(self, name, *args):
        self.name, self.args, self.p = name, args, None
        self.keys, self.log = os.path.join(folder, name), os.path.join(folder, name + ".log")
        self.key = run("keygen", "--keys", self.keys).out.strip()
        run("keygen", "--keys", self.keys, "--trust", f"boss={boss}")

    def start(self):
        with open(self.log, "ab") as log:
            self.p = subprocess.Popen([PROGRAM, "worker", "--keys", self.keys, "--name", self.name, "--threads", "1", *self.args],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, number=signal.SIGKILL):
        if self.p and self.p.poll() is None:
            self.p.send_signal(number)
            self.p.wait()


port = free_port()
topology = os.path.join(folder, "cluster.yaml")


def write_topology(cut, *nodes):
    """Nodes in order; the first holds the layers before `cut`. (worker, address or None)"""
    with open(topology, "w", encoding="ascii") as f:
        f.write(f'coordinator: {{listen: "tcp://127.0.0.1:{port}"}}\nnodes:\n')
        for w, address in nodes:
            f.write(f"  {w.name}: {{ram: 2GiB, key: {w.key}{f', address: {chr(34)}{address}{chr(34)}' if address else ''}}}\n")
        f.write(f"pins: [{{layers: 0-{cut - 1}, node: {nodes[0][0].name}}}, {{layers: {cut}-{LAYERS - 1}, node: {nodes[1][0].name}}}]\n")


def serve(wait=True):
    return Server(model, "--topology", topology, "--keys", boss_keys, "--ctx", 64, wait=wait)


def loading(server, name):
    nodes = server.get("/v1/cluster")[1]["nodes"]
    return next((n["loading"]["done_bytes"] / n["loading"]["total_bytes"] for n in nodes if n["name"] == name and "loading" in n), 0)


alone = Server(model, "--workers", 1, "--ctx", 64)
want = alone.complete(**prompt)[0]["text"]
alone.stop()
stops = []
try:
    # One behind a slow link to the coordinator, killed in the middle; the other has the file.
    link = Relay(f"127.0.0.1:{port}", "rate 150")
    cache = os.path.join(folder, "cache")
    far = Worker("far", "--coordinator", f"tcp://127.0.0.1:{link.port}", "--cache", cache)
    near = Worker("near", "--listen", f"tcp://127.0.0.1:{free_port()}", "--model-dir", folder)
    stops += [far, near]
    write_topology(4, (far, None), (near, None))  # nobody else can be asked
    near.args = ("--coordinator", f"tcp://127.0.0.1:{port}", "--model-dir", folder)
    near.start()
    s = serve(wait=False)
    idle, read = peak_kib(s.p.pid), read_bytes(s.p.pid)
    far.start()
    ok(until(lambda: loading(s, "far") > 0.4), "a worker without the file loads over a slow link, and how far it is can be seen", s.lines[-5:])
    far.stop()
    before = link.stats()["bytes"]
    is_(s.get("/health")[0], 503, "it is killed in the middle")
    far.start()
    ok(s.ready.wait(SECONDS) and s.complete(**prompt)[0]["text"] == want, "started again, it goes on: the answer of one process", s.lines[-5:])
    line = [x for x in far.said().splitlines() if "ready: stage" in x][0]  # later ones, after a heartbeat was late, are from memory
    ok("cache" in line, "part of it came from its cache: " + line)
    sent = link.stats()["bytes"]
    held = s.get("/v1/cluster")[1]["stages"][0]["bytes"]["weights"]
    print(f"# {sent / MIB:.1f} MiB crossed the link, {before / MIB:.1f} before it was killed; its layers take {held / MIB:.1f} MiB, the file {size / MIB:.1f} MiB")
    ok(sent < size * 3 // 4 and sent < held * 5 // 4 + 6 * CHUNK, "no more than its layers came, and what had come did not come again")
    read = read_bytes(s.p.pid) - read
    ok(read < sent * 3 // 2 + 2 * CHUNK, f"what is sent is read once, hashed and sent: {read / MIB:.1f} MiB read")
    r = run("status", "--url", f"http://127.0.0.1:{s.port}")
    ok(r.status == 0 and re.search(r"far/cpu .* 2(\.0)? Gi?B +[0-9.]+ [GT]i?B ", r.out), "status: what plans may use, and of how much", r.out, r.err)
    grown = peak_kib(s.p.pid) - idle
    print(f"# the coordinator took {grown / 1024:.1f} MiB more")
    if os.environ.get("SC_SANITIZE", "no") != "no":
        skip("the coordinator does not hold the model: a sanitizer keeps what was freed, and its shadow counts")
    else:
        ok(grown * 1024 < size // 2, "the coordinator does not hold the model", grown)
    s.stop()
    kept = os.listdir(os.path.join(boss_keys, "hashes"))
    ok(len(kept) == 1, "the coordinator keeps the hashes that it made", kept)
    far.stop()  # its weights in memory, too
    far.start()
    s = serve(wait=False)
    read = read_bytes(s.p.pid)
    ok(s.ready.wait(SECONDS) and s.complete(**prompt)[0]["text"] == want, "started again, the same answer", s.lines[-5:])
    read = read_bytes(s.p.pid) - read
    has([x for x in far.said().splitlines() if "ready: stage" in x][-1], "from cache", "a worker that has its chunks in its cache")
    ok(read < size // 4, f"is told their hashes, for which the coordinator need not read the model again: {read / MIB:.1f} MiB read")
    s.stop()
    for w in stops:
        w.stop()
    link.close()

    # A peer whose file is damaged where the other's layers lie: its header is right, and so is its id.
    damaged = os.path.join(folder, "damaged")
    os.mkdir(damaged)
    bad = os.path.join(damaged, "big.gguf")
    shutil.copy(model, bad)
    with open(bad, "r+b") as f:  # the whole of it: what this worker has of its own is asked of nobody
        for at in range(size // 3, size - 4096, 256 << 10):
            f.seek(at)
            f.write(b"\xa5" * 64)
    liar_at, other_at = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    liar = Worker("liar", "--listen", liar_at, "--model-dir", damaged)
    # The other is of an older version, whose chunks have another hash.
    other = Worker("other", "--protocol", "2", "--listen", other_at, "--cache", os.path.join(folder, "small"), "--cache-size", "1MiB")
    stops += [liar, other]
    write_topology(6, (liar, liar_at), (other, other_at))
    liar.start()
    other.start()
    s = serve()
    said = other.said()
    ok("liar" in said and "hash" in said, "a peer that sends wrong bytes is found out, and named", said)
    has([x for x in said.splitlines() if "ready: stage" in x][-1], "from", "its layers came from others")
    ok(tree_bytes(os.path.join(folder, "small")) <= 2 * MIB, "a cache that is too small stays in its bounds", said)
    s.stop()

    # A cache that is none costs no load.
    other.stop()
    other.args = ("--listen", other_at, "--cache", bad)  # a file
    other.start()
    s = serve()
    has(other.said(), "nothing is cached", "a cache that cannot be had is done without, and that is said")
    s.stop()

    # probe --peer, as the coordinator, and over a link whose rate and delay are known.
    run("keygen", "--keys", boss_keys, "--trust", f"other={other.key}")
    r = run("probe", "--peer", f"other@{other_at}", "--keys", boss_keys)
    ok(r.status == 0 and re.search(r"(?m)^  \S+-other: \{rtt: [0-9.]+(us|ms), rate: [0-9.]+[MG](bit|B)/s\}$", r.out), "probe --peer: a line for the file's links",
       r.out, r.err)
    with Relay(other_at[len("tcp://"):], "rate 100", "delay 5") as link:
        r = run("probe", "--peer", f"other@tcp://127.0.0.1:{link.port}", "--keys", boss_keys, "--json")
        j = json.loads(r.out or "{}")
        print("#", r.out.strip(), r.err.strip())
        ok(r.status == 0 and j["rtt_us"] >= 10000 and 0 < j["up"] <= 100e6 / 8 * 1.2 and 0 < j["down"] <= 100e6 / 8 * 1.2,
           "over 100 Mbit/s and 5 ms each way it finds no better than that", r.out, r.err)
    r = run("probe", "--peer", f"stranger@{other_at}", "--keys", boss_keys)
    ok(r.status == 1 and "no key is trusted by that name" in r.err, "a peer without a known key is not asked", r.err)
finally:
    for w in stops:
        w.stop()
done()
