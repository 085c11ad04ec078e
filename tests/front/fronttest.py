"""What the tests of the HTTP front share: a real `stagecoach serve` over worker processes, and a client that shows everything."""
import atexit
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "cli"))
from clitest import PROGRAM, done, folder, has, is_, make_model, ok, run, shared, skip, skip_all  # noqa: E402,F401

READY_S = 120
ANSWER_S = 120


class Server:
    """Runs until stop(); .port, .lines (what it said)."""

    def __init__(self, model, *args, wait=True, env=None, tls=None):
        """tls: the certificate to trust."""
        self.lines = []
        self.context = ssl.create_default_context(cafile=tls) if tls else None
        command = [PROGRAM, "serve", "-m", model, "--listen", "127.0.0.1:0", *map(str, args)]
        self.p = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
                                  errors="replace", env={**os.environ, **(env or {})})
        atexit.register(self.kill)
        self.port = None
        self.ready = threading.Event()
        self.listening = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if wait and not self.ready.wait(READY_S):
            self.kill()
            print("Bail out! serve is not ready: " + " | ".join(self.lines[-8:]))
            sys.exit(1)
        if not wait:
            self.listening.wait(READY_S)

    def read(self):
        for line in self.p.stderr:
            self.lines.append(line.rstrip())
            if "://127.0.0.1:" in line and self.port is None:
                self.port = int(line.split("://127.0.0.1:")[1].split()[0].rstrip(";"))
                self.listening.set()
            if "stagecoach: ready: http" in line:
                self.ready.set()
        self.ready.set()
        self.listening.set()

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()

    def stop(self, number=signal.SIGTERM, timeout=30):
        """Tells it to stop; its exit status, or None when it does not end."""
        self.p.send_signal(number)
        try:
            return self.p.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    # --- asking ---

    def connect(self, timeout=ANSWER_S):
        if self.context:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, conn=None):
        """(status, headers, text)"""
        c = conn or self.connect()
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        text = r.read().decode("utf-8", "replace")
        if not conn:
            c.close()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, text

    def get(self, path):
        status, _, text = self.ask("GET", path)
        return status, json.loads(text) if text[:1] in "{[" else text

    def post(self, path, **body):
        status, _, text = self.ask("POST", path, body)
        return status, json.loads(text)

    def complete(self, prompt, **body):
        """The choices of a completion; an error is shown and gives []."""
        status, j = self.post("/v1/completions", prompt=prompt, **body)
        if status != 200:
            ok(False, "a completion is answered", status, j)
            return [{"text": None, "finish_reason": None, "logprobs": None}]
        return j["choices"]

    def text(self, prompt, **body):
        return self.complete(prompt, **body)[0]["text"]

    def stream(self, path, on_event=None, **body):
        """All events of a stream: objects; comments as strings ": …"; "[DONE]"."""
        c = self.connect()
        c.request("POST", path, json.dumps({"stream": True, **body}))
        r = c.getresponse()
        events = []
        for event in read_events(r):
            events.append(event)
            if on_event:
                on_event(event)
        c.close()
        return events

    def requests_open(self):
        return self.get("/v1/cluster")[1]["requests"]["open"]

    def wait_open(self, n, seconds=10):
        """Whether the engine comes to hold n answers."""
        until = time.time() + seconds
        while self.requests_open() != n:
            if time.time() > until:
                return False
            time.sleep(0.05)
        return True


def read_events(r):
    for line in r:
        line = line.decode("utf-8").rstrip("\n")
        if line.startswith(":"):
            yield line
        elif line.startswith("data: "):
            yield "[DONE]" if line == "data: [DONE]" else json.loads(line[6:])


def joined(events, index=0):
    """(text, finish_reason, number of chunks) of one choice of a stream."""
    text, finish, n = "", None, 0
    for e in events:
        for choice in e["choices"] if isinstance(e, dict) and "choices" in e else []:
            if choice["index"] == index:
                text += choice.get("text") or choice.get("delta", {}).get("content") or ""
                finish = choice["finish_reason"] or finish
                n += 1
    return text, finish, n
