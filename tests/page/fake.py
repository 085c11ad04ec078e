"""A server that stands in for `stagecoach serve`: it serves the page as the build made it and answers the few paths that the page
asks, from a script: any number of stages, answers of any kind, failures. Its pipeline is worked out, not drawn by chance: each
step passes every stage in its time."""
import base64
import hashlib
import http.server
import json
import os
import socket
import threading
import time

MIB = 1 << 20


def policy(html):
    """The Content-Security-Policy of front/page.c."""
    def of(tag):
        inner = html.split(f"<{tag}>".encode(), 1)[1].split(f"</{tag}>".encode(), 1)[0]
        return base64.b64encode(hashlib.sha256(inner).digest()).decode()
    return (f"default-src 'none'; script-src 'sha256-{of('script')}'; style-src 'sha256-{of('style')}'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


class Pipeline:
    """Steps of `seqs` sequences through stages that take times_ms, as many at once as there are stages, while `open` is set."""

    def __init__(self, names, times_ms, layers=30, hop_ms=0.2, memory=8 << 30, model="SmolLM2-135M-Instruct"):
        self.names, self.times, self.hop, self.layers, self.memory, self.model = names, times_ms, hop_ms * 1000, layers, memory, model
        self.start, self.told, self.pending, self.open, self.tokens, self.batch = time.monotonic(), [], [], 0, 0, 0
        self.free, self.done_us = [0.0] * len(names), 0.0
        self.lost, self.state, self.epoch, self.events, self.extra = None, "running", 1, [], []
        self.lock = threading.Lock()
        self.event("info", f"the pipeline is ready: {len(names)} stages")

    def now(self):
        return (time.monotonic() - self.start) * 1e6

    def event(self, kind, text):
        self.events.append({"at_s": self.now() / 1e6, "kind": kind, "text": text})

    def advance(self):
        """Works out everything up to now."""
        now = self.now()
        if not self.open or self.state != "running":
            self.done_us = now
            return
        slowest = max(self.times) * 1000
        at = max(self.done_us, now - 3e6)
        while at < now:
            self.batch += 1
            rows = 128 if self.batch % 60 == 1 else 1
            begin, sent = at, at
            mine = [(0, [0, self.batch, int(sent), rows, 1])]
            for i, ms in enumerate(self.times):
                received = begin + self.hop * (1 if i else 0.4)
                started = max(received, self.free[i])
                ended = started + ms * 1000 * (0.92 + 0.16 * ((self.batch * 7 + i * 3) % 10) / 10) * (2.5 if rows > 1 else 1)
                self.free[i] = begin = ended
                mine.append((ended, [1, self.batch, i, int(received), int(started), int(ended), rows, 2304 * rows if i + 1 < len(self.times) else 16]))
            mine.append((begin + self.hop, [2, self.batch, int(begin + self.hop), 0, 0]))
            self.pending += mine
            self.tokens += 1
            at = max(at + slowest, self.free[0])
        self.done_us = at

    def activity(self, since):
        with self.lock:
            self.advance()
            now = self.now()
            self.pending.sort(key=lambda r: r[0])
            while self.pending and self.pending[0][0] <= now:
                self.told.append(self.pending.pop(0)[1])
            told = self.told
            from_ = len(told) if since is None else min(since, len(told))
            flying = sum(1 for r in told if r[0] == 0) - sum(1 for r in told if r[0] == 2)
            return {"now_us": int(now), "fresh": since is not None, "state": self.state, "epoch": self.epoch, "events": len(self.events),
                    "tokens": self.tokens, "open": self.open, "running": self.open, "waiting": 0, "in_flight": flying if self.open else 0,
                    "in_flight_wanted": len(self.names), "blocks": [90, 40, 900], "cursor": len(told), "missed": 0, "records": told[from_:]}

    def status(self):
        n = len(self.names)
        cuts = [round(i * self.layers / n) for i in range(n + 1)]
        each = 112 * MIB / n
        nodes = [{"name": name, "state": "away" if i == self.lost else "here", "standby": False, "stage": i, "isa": "avx512vnni", "threads": 8,
                  "restarts": 0, "address": "", "devices": [{"name": "cpu", "memory_bytes": self.memory * (2 if i == 1 else 1)}]} for i, name in enumerate(self.names)] + self.extra
        stages = [{"node": name, "device": "cpu", "layers": [cuts[i], cuts[i + 1] - 1], "ready": True, "memory_bytes": self.memory,
                   "bytes": {"weights": int(each), "kv": 90 * MIB, "scratch": 12 * MIB},
                   "measured": {"batch_ms": self.times[i] if self.batch else 0, "batches": self.batch, "rows": self.batch, "sent_bytes": 0,
                                "compute_us": 0, "wait_us": 0, "wire_us": 0, "bubble_us": 0},
                   "predicted": {"decode_ms": self.times[i] * 0.93, "chunk_ms": 40}} for i, name in enumerate(self.names)]
        links = [{"form": "f32" if 0 < i < n else "tokens", "predicted_ms": self.hop / 1000, "predicted_bytes_per_s": 1e8,
                  "measured_ms": self.hop / 1000 if self.batch else 0, "relayed": False} for i in range(n + 1)]
        up = self.state == "running"
        rate = 1000 / max(self.times)
        return {"state": self.state, "health": "ok" if up else "recovering", "epoch": self.epoch, "model": self.model, "layers": self.layers,
                "up_s": self.now() / 1e6, "nodes": nodes, "stages": stages if up else [], "links": links if up else [], "events": self.events,
                "predicted": {"tokens_per_s_1": 1000 / sum(self.times), "tokens_per_s_n": rate * 1.1, "n": n, "ttft_ms_512": 900,
                              "tokens_per_s_now": rate * 1.06 if self.open else 0, "decoding": self.open, "bottleneck_stage": 0} if up else None,
                "requests": {"open": self.open, "served": 0, "failed": 0, "tokens": self.tokens}}

    def lose(self, i):
        with self.lock:
            self.advance()
            self.lost, self.state = i, "gathering"
            self.pending = [(self.now(), [4, 0, int(self.now()), 0, 0])]
        self.event("trouble", f"node {self.names[i]} is lost: the process was ended by signal 9")

    def repair(self):
        with self.lock:
            self.lost, self.state, self.epoch = None, "running", self.epoch + 1
            self.free, self.done_us = [0.0] * len(self.names), self.now()
            self.pending.append((self.now(), [3, self.epoch, int(self.now()), len(self.names), 0]))
        self.event("info", "the pipeline runs again after 740 ms")


class Fake:
    """answers: called with the body of a chat, yields what is to be sent: strings (pieces of the answer), dicts (whole deltas),
    floats (seconds to wait), ("comment", words), ("error", words), ("status", number, words) first of all, "break"."""

    def __init__(self, html, pipeline, answers, key=None):
        self.html, self.pipeline, self.answers, self.key, self.bodies, self.gone = html, pipeline, answers, key, [], False
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def reply(self, status, body, kind="application/json", **more):
                self.send_response(status)
                for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def fail(self, status, words):
                self.reply(status, json.dumps({"error": {"message": words, "type": "x", "param": None, "code": None}}).encode())

            def hang_up(self):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def may(self):
                if fake.key and self.headers.get("Authorization") != "Bearer " + fake.key:
                    self.fail(401, "an API key is needed, as \"Authorization: Bearer KEY\"")
                    return False
                return True

            def do_GET(self):
                if fake.gone:
                    return self.hang_up()
                path, _, query = self.path.partition("?")
                if path == "/":
                    self.reply(200, fake.html, "text/html; charset=utf-8", Content_Security_Policy=policy(fake.html))
                elif not self.may():
                    pass
                elif path == "/v1/cluster/activity":
                    self.reply(200, json.dumps(fake.pipeline.activity(int(query[6:]) if query else None)).encode())
                elif path == "/v1/cluster":
                    self.reply(200, json.dumps(fake.pipeline.status()).encode())
                else:
                    self.fail(404, "there is nothing here")

            def do_POST(self):
                if fake.gone:
                    return self.hang_up()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.may():
                    fake.bodies.append(body)
                    try:
                        self.answer(body)
                    except OSError:
                        pass  # the page went

            def send(self, data):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def answer(self, body):
                parts = fake.answers(body)
                first = next(parts)
                if isinstance(first, tuple) and first[0] == "status":
                    self.fail(first[1], first[2])
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                fake.pipeline.open += 1
                try:
                    self.parts(first, parts)
                finally:
                    fake.pipeline.open -= 1

            def parts(self, first, parts):
                n = 0
                for part in [first, *([] if first == "break" else parts)] if not hasattr(parts, "send") else chained(first, parts):
                    if isinstance(part, float):
                        time.sleep(part)
                    elif part == "break":
                        return self.hang_up()
                    elif isinstance(part, tuple) and part[0] == "comment":
                        self.send(f": {part[1]}\n\n".encode())
                    elif isinstance(part, tuple):
                        self.send(b"data: " + json.dumps({"error": {"message": part[1]}}).encode() + b"\n\n")
                        return self.send(b"")
                    else:
                        n += 1
                        self.event({"choices": [{"index": 0, "delta": {"content": part} if isinstance(part, str) else part, "finish_reason": None}]})
                self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                self.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": n}})
                self.send(b"data: [DONE]\n\n")
                self.send(b"")

            def event(self, what):
                self.send(b"data: " + json.dumps(what).encode() + b"\n\n")

        def chained(first, rest):
            yield first
            yield from rest

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.gone = True  # connections that are open end, too
        self.server.shutdown()
        self.server.server_close()


def built_page():
    """The page as the build made it."""
    with open(os.path.join(os.environ.get("SC_BUILD", "build"), "web", "page.html"), "rb") as f:
        return f.read()
