"""How fast a worker gets a whole model over loopback tcp with CURVE, both ends on this machine: bench_fetch.py MODEL [ROUNDS].
In each round bare libzmq with CURVE (tests/proto/bench_hop rate) sends before and after it, and the rate is told as a share of the
faster; beside it what both ends' processors took. The file is read once before, so that it is in the page cache. No test.
SC_BUILD names the build's folder, PROGRAM another program to measure (an older one, by turns)."""
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("SC_BUILD", "build")
PROGRAM = os.environ.get("PROGRAM", os.path.join(BUILD, "stagecoach"))
PATIENCE = 120


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def keygen(keys, *more):
    return subprocess.run([PROGRAM, "keygen", "--keys", keys, *more], check=True, capture_output=True, text=True).stdout.split("\n")[0].strip()


def raw_rate():
    said = subprocess.run([os.path.join(BUILD, "tests/proto/bench_hop"), "rate"], check=True, capture_output=True, text=True).stdout
    return float(re.search(r"(\d+) MB/s", said).group(1)) * 1e6


def until(path, what):
    end = time.time() + PATIENCE
    while time.time() < end:
        with open(path, encoding="utf-8", errors="replace") as f:
            found = re.search(what, f.read())
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"bench_fetch: the worker did not say {what!r}; see {path}")


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def load(model):
    """Seconds until the stage is ready, as the worker tells; processor seconds of both ends, from start to end."""
    before = processor_seconds()
    room = tempfile.mkdtemp(prefix="bench_fetch-")
    boss, keys, log, topology = (os.path.join(room, x) for x in ("boss", "worker", "log", "cluster.yaml"))
    boss_key, key = keygen(boss), keygen(keys)
    keygen(keys, "--trust", f"boss={boss_key}")
    keygen(boss, "--trust", f"w={key}")
    address = f"tcp://127.0.0.1:{free_port()}"
    with open(topology, "w", encoding="ascii") as f:
        f.write(f'coordinator: {{listen: "tcp://127.0.0.1:{free_port()}"}}\nnodes:\n  w: {{address: "{address}", key: {key}, ram: {os.path.getsize(model) * 2 >> 20}MiB}}\n')
    with open(log, "wb") as out:
        worker = subprocess.Popen([PROGRAM, "worker", "--listen", address, "--keys", keys, "--name", "w"], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        until(log, "listening on")
        r = subprocess.run([PROGRAM, "run", "-m", model, "--topology", topology, "--keys", boss, "-p", "hi", "-n", "1", "--ctx", "64"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if r.returncode != 0:
            sys.exit("bench_fetch: " + r.stderr)
        seconds = float(until(log, r"ready: stage .* in ([0-9.]+) s from").group(1))
    finally:
        worker.terminate()
        worker.wait()
    shutil.rmtree(room)
    return seconds, processor_seconds() - before


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: bench_fetch.py MODEL [ROUNDS]")
    model, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    size = os.path.getsize(model)
    with open(model, "rb", buffering=0) as f:
        while f.read(1 << 22):
            pass
    raw = raw_rate()
    for _ in range(rounds):
        seconds, processor = load(model)
        after = raw_rate()
        rate, best = size / seconds, max(raw, after)
        print(f"{size / 1e9:.2f} GB in {seconds:.1f} s: {rate / 1e9:.2f} GB/s; bare libzmq with CURVE {best / 1e9:.2f}: {rate / best:.2f} of it; "
              f"both ends took {processor / size * 1e9:.1f} processor seconds for each GB", flush=True)
        raw = after


main()
