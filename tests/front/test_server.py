"""serve: what clients, signals and faults do to it: slow readers, clients that go, keys, garbage, a killed worker, stopping. TAP."""
import http.client
import json
import os
import random
import signal
import socket
import threading
import time

from fronttest import PROGRAM, Server, done, folder, has, is_, joined, make_model, ok, read_events, run, skip_all

FOX = "The quick brown fox"
model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)

# --- who may ask ---
r = run("serve", "-m", model, "--listen", "0.0.0.0:0")
ok(r.status == 2 and "--api-key-file" in r.err, "an address for others needs a key file", r.err)
r = run("serve", "-m", model, "--listen", "nonsense")
ok(r.status == 2 and "nonsense" in r.err, "a wrong address", r.err)
r = run("serve", "-m", os.path.join(folder, "none.gguf"))
ok(r.status == 1 and "none.gguf" in r.err, "no such model", r.err)
keys = os.path.join(folder, "keys")
with open(keys, "w") as f:
    f.write("# who may\nsk-first-key-of-all alice\n\nsk-second-key-there\n")
r = run("serve", "-m", model, "--api-key-file", keys, "--no-auth")
ok(r.status == 2 and "contradict" in r.err, "keys and --no-auth contradict each other", r.err)
empty = os.path.join(folder, "empty")
open(empty, "w").close()
r = run("serve", "-m", model, "--api-key-file", empty)
ok(r.status == 2 and "no key" in r.err, "a key file without keys", r.err)

s = Server(model, "--workers", 1, "--threads", 1, "--ctx", 512, "--api-key-file", keys, "--cors", "https://app.example", "--alias", "fox")
r = run("serve", "-m", model, "--listen", f"127.0.0.1:{s.port}")
ok(r.status == 1 and str(s.port) in r.err, "a port that is taken", r.err)
want = {"/health": 200, "/v1/models": 401, "/v1/cluster": 401, "/metrics": 401, "/nothing": 401}
is_({p: s.ask("GET", p)[0] for p in want}, want, "without a key only /health answers")
for key, status in (("sk-first-key-of-all", 200), ("sk-second-key-there", 200), ("sk-second-key-ther", 401), ("alice", 401), ("", 401)):
    is_(s.ask("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1}, {"Authorization": f"Bearer {key}"})[0], status, f"key \"{key}\"")
status, headers, text = s.ask("GET", "/v1/models", None, {"Authorization": "Bearer sk-first-key-of-all", "Origin": "https://app.example"})
is_(headers.get("access-control-allow-origin"), "https://app.example", "--cors: that origin's pages may read")
is_(json.loads(text)["data"][0]["id"], "fox", "--alias")
status, headers, text = s.ask("OPTIONS", "/v1/completions", None, {"Origin": "https://app.example"})
ok(status == 204 and "POST" in headers.get("access-control-allow-methods", ""), "and ask whether they may", status, headers)
status, headers, text = s.ask("OPTIONS", "/v1/completions", None, {"Origin": "https://evil.example"})
ok(status == 403 and "access-control-allow-origin" not in headers, "others not", status, headers)
ok(not any("quick brown" in line for line in s.lines), "prompts are not logged")
is_(s.stop(signal.SIGINT), 0, "Ctrl-C: exit status 0")

# --- clients ---
s = Server(model, "--workers", 2, "--threads", 1, "--ctx", 4096, "--parallel", 8)
long = {"prompt": FOX, "max_tokens": 1200, "temperature": 0, "ignore_eos": True}
whole = s.text(**long)
ok(len(whole) > 1200, "a long answer")


def open_stream(body, rcvbuf=None):
    """A raw socket whose stream has begun; nothing of the answer is read yet."""
    c = socket.socket()
    if rcvbuf:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    c.connect(("127.0.0.1", s.port))
    data = json.dumps({"stream": True, **body}).encode()
    c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return c


slow = open_stream({**long, "n": 4, "logprobs": 20}, 4096)  # some 6 MB: more than any socket's buffers
is_(s.text(**long), whole, "beside a reader that does not read, another gets its answer")
ok(s.wait_open(0), "the engine is done with both, though nobody read")
time.sleep(1)
response = http.client.HTTPResponse(slow)
response.begin()
events = list(read_events(response))
is_([joined(events, i)[0] for i in range(4)], [whole] * 4, "and then the slow one reads it all")
slow.close()

endless = {**long, "max_tokens": 4000}
for what, body in (("a stream", endless), ("four answers", {**endless, "n": 4}), ("a whole answer", {**endless, "stream": False})):
    c = open_stream(body)
    ok(s.wait_open(body.get("n", 1)), f"{what} runs")
    if body.get("stream", True):
        c.recv(200)
    c.close()
    start = time.time()
    gone = s.wait_open(0)
    ok(gone and time.time() - start < 2, f"{what} whose client goes is ended at once", time.time() - start)
has(s.get("/metrics")[1], "stagecoach_http_clients_gone_total", "and counted")

# --- garbage ---
rng = random.Random(4)
for i in range(200):
    with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
        kind = i % 4
        if kind == 0:
            data = rng.randbytes(rng.randrange(1, 400))
        elif kind == 1:
            data = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n" + rng.randbytes(20)
        elif kind == 2:
            data = b"GET /" + b"a" * rng.randrange(1, 100000) + b" HTTP/1.1\r\n\r\n"
        else:
            data = b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + rng.randbytes(10) + b"\r\n"
        try:
            c.sendall(data)
        except OSError:
            pass
body = json.dumps({"prompt": FOX, "max_tokens": 3, "temperature": 0, "stop": ["a", "b"], "logit_bias": {"5": 1}, "n": 2, "stream": False})
wrong = []
for i in range(600):
    b = bytearray(body.encode())
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(b))
        b[at:at + rng.randrange(3)] = rng.choice([b"", b'"', b"{", b"]", b"-", b"1e999", b"null", b"\\u0000", b"\xff", b"[[[["])
    status, _, text = s.ask("POST", "/v1/completions", bytes(b))
    if status >= 500 or status != 200 and not json.loads(text)["error"]["message"]:
        wrong.append((status, bytes(b), text))
ok(not wrong, "600 bodies with a few bytes changed: an answer or a 4xx with a sentence", *wrong[:5])
is_(s.text(**long), whole, "and all is as before")

# --- a worker dies ---
nodes = s.get("/v1/cluster")[1]["nodes"]
texts, comments = [None] * 3, []


def reader(i):
    events = []
    c = s.connect()
    c.request("POST", "/v1/completions", json.dumps({"stream": True, **long}))
    for e in read_events(c.getresponse()):
        events.append(e)
        counts[i] += 1
    texts[i] = joined(events)[0]
    comments.extend(e for e in events if isinstance(e, str) and e.startswith(":"))


counts = [0] * 3
threads = [threading.Thread(target=reader, args=(i,)) for i in range(3)]
for t in threads:
    t.start()
until = time.time() + 60
while min(counts) < 50 and time.time() < until:
    time.sleep(0.005)
os.kill(nodes[1]["pid"], signal.SIGKILL)
for t in threads:
    t.join()
is_([t == whole for t in texts], [True] * 3, "a worker is killed while three answers stream: they go on, the same texts", *texts)
ok(comments, "comments meanwhile", comments)
ok(s.get("/v1/cluster")[1]["epoch"] > 1, "it was replaced")
is_(s.text(**long), whole, "and all is as before")

# --- stopping ---
c = open_stream({**long, "max_tokens": 600})
ok(s.wait_open(1), "an answer runs")
start = time.time()
status = s.stop()
response = http.client.HTTPResponse(c)
response.begin()
events = list(read_events(response))
ok(status == 0 and events[-1] == "[DONE]" and whole.startswith(joined(events)[0]) and joined(events)[1] == "length",
   "SIGTERM lets it end", status, events[-2:])
s = Server(model, "--workers", 1, "--threads", 1, "--ctx", 4096, "--grace", 0)
c = open_stream(endless)
ok(s.wait_open(1), "an answer runs")
start = time.time()
status = s.stop()
response = http.client.HTTPResponse(c)
response.begin()
events = list(read_events(response))
took = time.time() - start
ok(status == 0 and took < 8 and "stopping" in str(events[-1:]), "--grace 0 ends it with an error", status, took, events[-2:])
done()
