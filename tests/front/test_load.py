"""serve under load: 64 streams at once, with clients that go, that read slowly, that ask for nonsense: no error but those, the
answers what they are alone, memory flat, nothing left open. 6 s, 60 with SC_LONG=1; the time between tokens is shown. TAP."""
import http.client
import json
import os
import random
import socket
import threading
import time

from fronttest import Server, done, is_, joined, make_model, ok, read_events, skip_all

LONG = os.environ.get("SC_LONG") == "1"
SECONDS = float(os.environ.get("SC_SECONDS", 60 if LONG else 6))
STREAMS = 64
model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)
s = Server(model, "--workers", 3, "--threads", 1, "--ctx", 512, "--parallel", STREAMS)
PROMPTS = ["The quick brown fox", "Once upon a time", "One", "A goose and", "In the beginning there was"]
BODY = {"max_tokens": 40, "temperature": 0, "ignore_eos": True}
alone = {p: s.text(p, **BODY) for p in PROMPTS}
lock = threading.Lock()
gaps, errors, counts = [], [], {"read": 0, "gone": 0, "slow": 0, "broken": 0, "whole": 0}


def pages(pid):
    """Resident memory of a process, bytes; 0: it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return sum(int(line.split()[1]) << 10 for line in f if line.startswith(("Anonymous:",)))
    except OSError:
        return 0


def memory():
    return sum(pages(pid) for pid in [s.p.pid, *(n["pid"] for n in s.get("/v1/cluster")[1]["nodes"] if "pid" in n)])


def descriptors():
    return len(os.listdir(f"/proc/{s.p.pid}/fd"))


def stream(prompt, conn):
    conn.request("POST", "/v1/completions", json.dumps({"prompt": prompt, "stream": True, **BODY}))
    r = conn.getresponse()
    if r.status != 200:
        errors.append((r.status, r.read()))
        return None
    return r


def read_all(rng, conn, slow):
    prompt, events, times = rng.choice(PROMPTS), [], []
    r = stream(prompt, conn)
    for e in read_events(r) if r else []:
        if slow:
            time.sleep(0.02)
        elif isinstance(e, dict):
            times.append(time.perf_counter())
        events.append(e)
    if r and (joined(events)[:2] != (alone[prompt], "length") or events[-1] != "[DONE]"):
        errors.append(("another text", prompt, joined(events), events[-1:]))
    with lock:
        gaps.extend(b - a for a, b in zip(times, times[1:]))


def go_away(rng):
    conn = s.connect()
    r = stream(rng.choice(PROMPTS), conn)
    for _, e in zip(range(rng.randrange(1, 20)), read_events(r) if r else []):
        pass
    conn.sock and conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0" if rng.random() < 0.5 else b"\0" * 8)
    conn.close()


def nonsense(rng, conn):
    body = rng.choice([b"{", b"[]", b'{"prompt": 5}', b'{"prompt": "x", "temperature": "hot"}', rng.randbytes(50), b'{"prompt": "' + b"x " * 2000 + b'"}'])
    status, _, text = s.ask("POST", "/v1/completions", body, conn=conn)
    if status != 400:
        errors.append(("nonsense", status, text))


def whole(rng, conn):
    prompt = rng.choice(PROMPTS)
    status, _, text = s.ask("POST", "/v1/completions", {"prompt": prompt, **BODY}, conn=conn)
    if status != 200 or json.loads(text)["choices"][0]["text"] != alone[prompt]:
        errors.append(("whole", status, text[:200]))


def client(seed, until):
    rng, conn = random.Random(seed), s.connect()
    while time.time() < until:
        x = rng.random()
        kind = "gone" if x < 0.15 else "slow" if x < 0.25 else "broken" if x < 0.4 else "whole" if x < 0.5 else "read"
        try:
            if kind == "gone":
                go_away(rng)
            elif kind == "broken":
                nonsense(rng, conn)
            elif kind == "whole":
                whole(rng, conn)
            else:
                read_all(rng, conn, kind == "slow")
        except (OSError, http.client.HTTPException, ValueError) as e:
            errors.append((kind, repr(e)))
            conn = s.connect()
        with lock:
            counts[kind] += 1
    conn.close()


def run(seconds, seed):
    until = time.time() + seconds
    threads = [threading.Thread(target=client, args=(seed * 1000 + i, until)) for i in range(STREAMS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return s.wait_open(0, 20)


# Until every page of the KV caches has been written once, since prefixes stay in them.
before, closed, beginnings = memory(), True, 0
while closed and beginnings < 10:
    closed, held = run(max(2.0, SECONDS / 3), 1 + 100 * beginnings), before
    before = memory()
    beginnings += 1
    if before - held < (4 << 20):
        break
ok(closed, f"nothing is left open after a beginning ({beginnings} rounds)")
fds = descriptors()
gaps.clear()
ok(run(SECONDS, 2), f"nor after {SECONDS:g} s of {STREAMS} streams")
after = memory()
ok(not errors, f"no error but those provoked: {counts}", *errors[:10])
until = time.time() + 10
while descriptors() > fds + 4 and time.time() < until:
    time.sleep(0.1)
ok(descriptors() <= fds + 4, "nor connections", descriptors(), fds)
grown = after - before
ok(grown < (16 << 20) + before // 10, "memory is flat", f"{before >> 20} MiB before, {after >> 20} after")
print(f"# memory {before / 2**20:.1f} MiB, after {after / 2**20:.1f}; {sum(counts.values())} requests")
gaps.sort()
if gaps:
    p50, p99 = gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100]
    print(f"# between tokens: {len(gaps)} gaps, p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, p99/p50 {p99 / p50:.2f}")
metrics = s.get("/metrics")[1]
ok("stagecoach_requests_open 0" in metrics, "/metrics: nothing open")
is_(s.text(PROMPTS[0], **BODY), alone[PROMPTS[0]], "and all is as before")
is_(s.stop(), 0, "stops")
done()
