"""What HTTP costs: python3 tests/front/bench_http.py [MODEL]. A tiny model (or MODEL) in one worker process, one client on a raw
socket, by turns with the same answers as one piece, and without HTTP (`bench`). Prints, in ms:
  health     there and back, nothing computed
  first      a first token as the client sees it, less what the engine takes for it (by /metrics' own sums)
  further    a further token streamed, less the same token of an answer that comes whole; and less `bench`'s
Not a test: nothing is asserted."""
import json
import os
import socket
import statistics
import sys
import time

from fronttest import Server, make_model, run

REQUESTS, TOKENS, ROUNDS = 300, 400, 6
model = sys.argv[1] if len(sys.argv) > 1 else make_model("tiny.gguf", "--quant", "Q4_K_M")[0]
s = Server(model, "--workers", 1, "--threads", 1, "--ctx", 1024)


class Raw:
    def __init__(self):
        self.c = socket.create_connection(("127.0.0.1", s.port))
        self.c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, path, body=None):
        data = json.dumps(body).encode() if body else b""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        self.c.sendall(head.encode() + data)

    def until(self, word):
        got = b""
        while word not in got:
            more = self.c.recv(1 << 16)
            if not more:
                raise EOFError
            got += more
        return got


def sums(name):
    text = s.ask("GET", "/metrics")[2]
    return [float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"stagecoach_{name}_{x} "))) for x in ("sum", "count")]


def health(raw):
    t = time.perf_counter()
    raw.send("/health")
    raw.until(b'"ok"}')
    return time.perf_counter() - t


def first(raw, i):
    """To a first token; the prompt differs in its first token each time."""
    body = {"prompt": [100 + i % 150, 5, 6, 7, 8], "max_tokens": 1, "temperature": 0, "ignore_eos": True, "stream": True}
    t = time.perf_counter()
    raw.send("/v1/completions", body)
    raw.until(b"data: {")
    took = time.perf_counter() - t
    return took


def answer(raw, stream):
    body = {"prompt": [11, 5, 6, 7, 8], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": stream}
    t = time.perf_counter()
    raw.send("/v1/completions", body)
    raw.until(b"[DONE]" if stream else b'"usage"')
    return time.perf_counter() - t


raw = Raw()
for _ in range(50):
    health(raw)
print(f"health   {statistics.median(health(raw) for _ in range(REQUESTS)) * 1e3:.3f}")
seen = []
for i in range(REQUESTS + 20):
    if i == 20:
        before = sums("time_to_first_token_seconds")
        seen.clear()
    one = Raw()
    seen.append(first(one, i))
    one.c.close()
after = sums("time_to_first_token_seconds")
mean = (after[0] - before[0]) / (after[1] - before[1])
print(f"first    {(statistics.mean(seen) - mean) * 1e3:.3f}   seen {statistics.mean(seen) * 1e3:.3f} (median {statistics.median(seen) * 1e3:.3f}), engine {mean * 1e3:.3f}")
answer(raw, True), answer(Raw(), False)
streamed, whole = [], []
for _ in range(ROUNDS):
    streamed.append(answer(Raw(), True))
    whole.append(answer(Raw(), False))
s.stop()
bench = json.loads(run("bench", "-m", model, "--workers", 1, "--threads", 1, "--pp", 5, "--tg", TOKENS, "--reps", ROUNDS, "--json").out)
print(f"further  {(min(streamed) - min(whole)) / TOKENS * 1e3:.4f}   streamed {min(streamed) / TOKENS * 1e3:.4f}, whole {min(whole) / TOKENS * 1e3:.4f}; bench {json.dumps(bench)[:300]}")
