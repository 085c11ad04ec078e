"""The time between tokens of 64 streams at once: python3 tests/front/bench_streams.py [MODEL [SECONDS [STREAMS]]]. One thread reads
all of them, so that the client adds little of its own; a tenth goes away in the middle, prompts are 4 to 60 tokens, answers 20 to
100. Prints percentiles in ms and p99/p50, as the client sees it and as /metrics counts it. Not a test: nothing is asserted."""
import json
import random
import selectors
import socket
import sys
import time

from fronttest import Server, make_model

model = sys.argv[1] if len(sys.argv) > 1 else make_model("tiny.gguf", "--quant", "Q4_K_M")[0]
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20
streams = int(sys.argv[3]) if len(sys.argv) > 3 else 64
s = Server(model, "--workers", 3, "--threads", 1, "--ctx", 512, "--parallel", streams)
selector, rng = selectors.DefaultSelector(), random.Random(1)
gaps, first, ended, gone = [], [], 0, 0


class Stream:
    def __init__(self):
        self.c = socket.create_connection(("127.0.0.1", s.port))
        self.begin()
        selector.register(self.c, selectors.EVENT_READ, self)

    def begin(self):
        prompt = [rng.randrange(100, 200) for _ in range(rng.randrange(4, 60))]
        body = json.dumps({"prompt": prompt, "max_tokens": rng.randrange(20, 100), "ignore_eos": True, "stream": True, "temperature": 1}).encode()
        self.c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.last, self.n, self.tail = time.perf_counter(), 0, b""
        self.until = rng.randrange(5, 20) if rng.random() < 0.1 else 1 << 30

    def read(self):
        global ended, gone
        data, now = self.tail + self.c.recv(1 << 16), time.perf_counter()
        lines = data.split(b"\n\n")
        self.tail = lines.pop()
        for line in lines:
            if b'"text":"' not in line:
                continue
            (gaps if self.n else first).append(now - self.last)
            self.last, self.n = now, self.n + 1
        if b"data: [DONE]" in data:
            ended += 1
            self.begin()
        elif self.n >= self.until:
            gone += 1
            selector.unregister(self.c)
            self.c.close()
            Stream()


for _ in range(streams):
    Stream()
until, warm = time.perf_counter() + seconds + 2, time.perf_counter() + 2
while time.perf_counter() < until:
    if warm and time.perf_counter() > warm:
        gaps.clear()
        first.clear()
        warm = None
    for key, _ in selector.select(0.1):
        key.data.read()


def show(name, list_):
    list_.sort()
    at = [list_[min(len(list_) - 1, int(len(list_) * q))] * 1e3 for q in (0.5, 0.9, 0.99, 0.999)]
    print(f"{name}: {len(list_)}; p50 {at[0]:.2f}, p90 {at[1]:.2f}, p99 {at[2]:.2f}, p99.9 {at[3]:.2f} ms; p99/p50 {at[2] / max(at[0], 1e-6):.2f}")


show("between tokens", gaps)
show("first token", first)
print(f"{ended} ended, {gone} went away, {len(gaps) / seconds:.0f} tokens/s")
print("\n".join(line for line in s.ask("GET", "/metrics")[2].splitlines() if line.startswith("stagecoach_time_between_tokens_seconds_bucket")))
s.stop()
