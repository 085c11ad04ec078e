#!/usr/bin/env python3
"""Clusters drawn by lot on this machine, and how well the plan predicted what they did: what ./dev bench predict runs.

    predict.py --program build/stagecoach -m FILE [--clusters 10] [--seed 1] [--tg 24] [--parallel 16] [--whole] [--json]

Each cluster has two to four nodes of one thread, each a worker process that stays on one processor and that a control group lets have only
a share of it, behind a relay with the delay and rate of the cluster's links. The workers measure
themselves when they start, `bench --topology` plans with that and runs one stream and --parallel streams, and says what the plan
had promised. Where the plan leaves a node out, it is put in by a pin and the two are compared: the plan should be the faster one.
Control groups need root; without them, or with --whole, nodes are as fast as the machine lets them be.

Wanted: one stream within 15%, many within 20%, on nine of ten. Markdown on stdout (or JSON), what it is doing on stderr. Exit status:
0 measured, 1 a program failed, 2 wrong usage."""
import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
from relay import Relay  # noqa: E402

WITHIN = {"one": 0.15, "many": 0.20}
LINKS = ((0.1, 10000), (0.5, 1000), (1, 1000), (2, 300), (5, 300))  # round trip in ms, Mbit/s
SHARES = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
ROOM = 0.85  # of each processor; the rest is for the coordinator and the relays
PERIOD_US = 10000
START_SECONDS, BENCH_SECONDS = 120, 600


class Failed(Exception):
    pass


def say(text):
    print(f"predict: {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Throttle:
    """A control group with a share of one processor; version 1 or 2. name None: none."""

    def __init__(self, name):
        self.folder = None
        for top, v2 in (("/sys/fs/cgroup/cpu", False), ("/sys/fs/cgroup", True)) if name else ():
            folder = f"{top}/{name}"
            try:
                os.mkdir(folder)
            except OSError:
                continue
            self.folder, self.v2 = folder, v2
            if os.path.exists(f"{folder}/{'cpu.max' if v2 else 'cpu.cfs_quota_us'}"):
                return
            self.close()

    def limit(self, share):
        quota = int(share * PERIOD_US)
        for name, value in [("cpu.max", f"{quota} {PERIOD_US}")] if self.v2 else [("cpu.cfs_period_us", PERIOD_US), ("cpu.cfs_quota_us", quota)]:
            with open(f"{self.folder}/{name}", "w") as f:
                f.write(str(value))

    def add(self, pid):
        with open(f"{self.folder}/cgroup.procs", "w") as f:
            f.write(str(pid))

    def close(self):
        for _ in range(50):
            try:
                if self.folder:
                    os.rmdir(self.folder)
                break
            except OSError:
                time.sleep(0.1)  # its processes are just ending
        self.folder = None


class Node:
    def __init__(self, folder, name, share):
        self.name, self.share, self.keys = name, share, os.path.join(folder, name)
        self.throttle = self.process = self.relay = self.log = None

    def start(self, a, folder, cpu, link, coordinator_key):
        name, share = self.name, self.share
        self.throttle = Throttle(None if a.whole else f"stagecoach-{os.getpid()}-{name}")
        self.key = keygen(a, self.keys, "--name", name, "--trust", f"coordinator={coordinator_key}")
        self.port = free_port()
        models = os.path.dirname(os.path.abspath(a.model))
        if self.throttle.folder:
            self.throttle.limit(share)
        self.log = open(os.path.join(folder, f"{name}.log"), "w+")
        argv = [a.program, "worker", "--listen", f"tcp://127.0.0.1:{self.port}", "--keys", self.keys, "--name", name, "--model-dir", models,
                "--threads", "1"]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log,
                                        preexec_fn=lambda: self.enter(cpu))
        self.relay = Relay(f"127.0.0.1:{self.port}", f"delay {link[0] / 2}", f"rate {link[1]}")
        until = time.monotonic() + START_SECONDS
        while "listening" not in self.said():  # it has measured itself by then; the next one starts only now
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failed(f"{name} did not start: {self.said()[-300:]}")
            time.sleep(0.05)

    def enter(self, cpu):
        """On one processor: what a group may use is handed out by processor, and is lost on those that it leaves."""
        os.sched_setaffinity(0, {cpu})
        if self.throttle.folder:
            self.throttle.add(os.getpid())

    def said(self):
        with open(self.log.name) as f:
            return f.read()

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        for part in (self.relay, self.log, self.throttle):
            if part:
                part.close()


def keygen(a, folder, *args):
    p = subprocess.run([a.program, "keygen", "--keys", folder, *args], capture_output=True, text=True, timeout=60)
    if p.returncode != 0:
        raise Failed(f"keygen: {p.stderr.strip()}")
    return p.stdout.split()[0]


def write_topology(path, nodes, link, pins):
    with open(path, "w") as f:
        f.write("cluster: drawn\nnodes:\n")
        for n in nodes:
            f.write(f"  {n.name}: {{address: \"tcp://127.0.0.1:{n.relay.port}\", key: {n.key}, ram: 64GiB}}\n")
        f.write(f"links: {{default: {{rtt: {link[0]}ms, rate: {link[1]}Mbit/s}}")
        ends = [*(n.name for n in nodes), "coordinator"]
        for i, x in enumerate(ends):
            for y in ends[i + 1:]:
                f.write(f", {x}-{y}: {{rtt: {link[0]}ms, rate: {link[1]}Mbit/s}}" if y != "coordinator"
                        else f", coordinator-{x}: {{rtt: {link[0]}ms, rate: {link[1]}Mbit/s}}")
        f.write("}\n")
        if pins:
            f.write("pins: [" + ", ".join(pins) + "]\n")


def bench(a, keys, topology):
    argv = [a.program, "bench", "-m", a.model, "--topology", topology, "--keys", keys, "--pp", "0", "--tg", str(a.tg), "--batch", f"1,{a.parallel}",
            "--reps", "1", "--json"]
    p = subprocess.run(argv, capture_output=True, text=True, timeout=BENCH_SECONDS)
    if p.returncode != 0:
        raise Failed(f"bench: {p.stderr.strip()[-400:]}")
    one, many = json.loads(p.stdout)["results"]
    return {"one": one, "many": many, "cut": [(s["node"], s["layers"][1] - s["layers"][0] + 1) for s in one["stages"]]}


def draw(rng, cpus):
    """Shares, each with its processor, and the links."""
    n = rng.randint(2, 4)
    while True:
        shares, load = [rng.choice(SHARES) for _ in range(n)], dict.fromkeys(cpus, 0.0)
        placed = []
        for share in shares:
            cpu = min(load, key=load.get)
            load[cpu] += share
            placed.append((share, cpu))
        if max(load.values()) <= ROOM and sum(shares) >= 0.5 * ROOM * min(n, len(cpus)):
            return placed, rng.choice(LINKS)


def figures(run):
    return {k: (run[k].get("predicted", 0), run[k]["tokens_per_s"]) for k in WITHIN}


def cluster(a, number, rng):
    placed, link = draw(rng, sorted(os.sched_getaffinity(0)))
    shares = [share for share, _ in placed]
    folder, nodes = tempfile.mkdtemp(prefix="sc-predict-"), []
    try:
        keys = os.path.join(folder, "coordinator")
        key = keygen(a, keys, "--name", "coordinator")
        for i, (share, cpu) in enumerate(placed):
            nodes.append(Node(folder, f"n{i}", share))
            nodes[-1].start(a, folder, cpu, link, key)
            keygen(a, keys, "--trust", f"n{i}={nodes[-1].key}")
        topology = os.path.join(folder, "cluster.yaml")
        write_topology(topology, nodes, link, [])
        run = bench(a, keys, topology)
        result = {"cluster": number, "shares": shares, "link": link, "cut": run["cut"], **figures(run), "dropped": [],
                  "stages": {k: run[k]["stages"] for k in WITHIN}}
        used = {name for name, _ in run["cut"]}
        for n in nodes:
            if n.name in used or len(used) == len(nodes):
                continue
            write_topology(topology, nodes, link, [f"{{layers: 0-0, node: {n.name}}}"])
            other = bench(a, keys, topology)
            result["dropped"].append({"node": n.name, "cut": other["cut"], **figures(other)})
        return result
    finally:
        for n in nodes:
            n.close()
        shutil.rmtree(folder, ignore_errors=True)


def error(pair):
    return pair[0] / pair[1] - 1


def row(r):
    cut = " ".join(f"{name}:{layers}" for name, layers in r["cut"])
    cells = [f"{r[k][0]:.1f} | {r[k][1]:.1f} | {100 * error(r[k]):+.0f}%" for k in WITHIN]
    return f"| {r['cluster']} | {' '.join(map(str, r['shares']))} | {r['link'][0]} ms, {r['link'][1]} | {cut} | " + " | ".join(cells) + " |"


def main():
    p = argparse.ArgumentParser(prog="./dev bench predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", required=True, help=argparse.SUPPRESS)
    p.add_argument("-m", "--model", required=True, metavar="FILE")
    p.add_argument("--clusters", type=int, default=10)
    p.add_argument("--first", type=int, default=1, help="number of the first one: to take them in several runs")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--tg", type=int, default=24)
    p.add_argument("--parallel", type=int, default=16)
    p.add_argument("--whole", action="store_true", help="no control groups: all nodes are equal")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    if min(a.clusters, a.first, a.tg) < 1 or a.parallel < 2:
        p.error("--clusters, --first and --tg are at least 1, --parallel at least 2")
    results = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that workers and control groups are taken down
    try:
        if not a.json:
            print("| cluster | shares of a processor | links: rtt, Mbit/s | layers | one: predicted | measured | | many: predicted | measured | |")
            print("| " + "--- | " * 10)
        for number in range(a.first, a.first + a.clusters):
            r = cluster(a, number, random.Random(f"{a.seed} {number}"))
            results.append(r)
            if not a.json:
                print(row(r), flush=True)
            for k in WITHIN:
                say(f"cluster {number}, {k}: " + "; ".join(f"{s['node']} computing {100 * s['busy']:.0f}%, {s['steps']} steps of "
                                                           f"{s['rows'] / max(s['steps'], 1):.1f} rows, {s['step_ms']:.0f} ms" for s in r["stages"][k]))
            for d in r["dropped"]:
                say(f"cluster {number}: with {d['node']}, which the plan leaves out ({d['cut']}): one {d['one'][1]:.1f} instead of {r['one'][1]:.1f}, "
                    f"many {d['many'][1]:.1f} instead of {r['many'][1]:.1f}")
    except (Failed, subprocess.TimeoutExpired, OSError) as e:
        say(str(e))
        return 1
    within = {k: sum(abs(error(r[k])) <= limit for r in results) for k, limit in WITHIN.items()}
    if a.json:
        print(json.dumps({"results": results, "within": within}))
    else:
        print(f"\nWithin 15% for one stream: {within['one']} of {len(results)}; within 20% for {a.parallel}: {within['many']} of {len(results)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
