"""serve: what operators look at and set: /metrics by Prometheus' rules, TLS, keys with limits, the queue's bound, CORS. TAP."""
import json
import os
import shutil
import ssl
import subprocess
import threading
import time

import prometheus
from fronttest import Server, done, folder, has, is_, make_model, ok, read_events, run, skip, skip_all

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)

# --- wrong options ---
cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
for args, word in ((["--tls-cert", cert], "--tls-key"), (["--tls-cert", "/nonexistent", "--tls-key", key], "/nonexistent"), (["--queue", "0"], "queue"), *((["--cors", o], "origin") for o in (
                       "app.example", "https://", "https://app.example/", "https://app.example/page", "https://a:b@app.example", "https://*.example", "https://app.example:0",
                       "https://app.example:443", "http://app.example:80", "https://app example", "://x", "null", "https://a.example https://b.example", "https://[::1", "\x1b[31m://x"))):
    r = run("serve", "-m", model, *args)
    ok(r.status in (1, 2) and word in r.err, f"wrong: {' '.join(args)[:40]}", r.status, r.err)
keys = os.path.join(folder, "keys")
for line, word in (("sk-key-number-one at-once=0", "at-once"), ("sk-key-number-one tokens-per-minute=many", "tokens-per-minute"),
                   ("sk-key-number-one at-most=3", "at-most"), ("short", "5")):
    with open(keys, "w") as f:
        f.write("# keys\n" + line + "\n")
    r = run("serve", "-m", model, "--api-key-file", keys)
    ok(r.status == 2 and word in r.err and ":2:" in r.err, f"a key file's line {line!r}: named with its place", r.err)

# --- metrics ---
s = Server(model, "--workers", 2, "--threads", 1, "--ctx", 512)
for _ in range(3):
    s.text("The quick brown fox", max_tokens=12, temperature=0)
s.ask("POST", "/v1/completions", "{")
s.ask("GET", "/nothing")
samples, types, wrong = prometheus.read(s.ask("GET", "/metrics")[2])
ok(not wrong, "/metrics is in Prometheus' form", *wrong)


def value(name, **labels):
    return samples.get(("stagecoach_" + name, tuple(sorted(labels.items()))))


is_(value("http_requests_total", status="404"), 1.0, "requests by status")
is_(value("answer_tokens_total"), 36.0, "tokens of answers")
is_((value("time_to_first_token_seconds_count"), value("time_between_tokens_seconds_count"), value("request_seconds_count")), (3.0, 33.0, 3.0),
    "histograms: first tokens, further ones, whole requests")
need = ["requests_open", "answers_total", "sequences_waiting", "sequences_running", "kv_blocks_used", "kv_blocks_free", "prefix_hit_tokens_total",
        "steps_total", "epoch", "http_clients_gone_total"]
is_([n for n in need if value(n) is None], [], "queue, KV blocks, prefix hits")
for name in ("stage_compute_seconds_total", "stage_wait_seconds_total", "stage_wire_seconds_total", "stage_bubble_seconds_total", "stage_sent_bytes_total",
             "stage_batches_total", "stage_weight_bytes"):
    is_(len([k for k in samples if k[0] == "stagecoach_" + name]), 2, f"of both stages: {name}")
is_(len([k for k in samples if k[0] == "stagecoach_node_restarts_total"]), 2, "restarts of both nodes")

# --- models ---
m = s.get("/v1/models")[1]["data"][0]
ok(m["max_model_len"] == 512 and m["meta"]["architecture"] == "llama" and m["meta"]["n_layers"] == 4, "/v1/models says what it is", m)
is_(s.get("/v1/models/tiny")[1], m, "/v1/models/NAME")
status, error = s.get("/v1/models/other")
ok(status == 404 and error["error"]["code"] == "model_not_found" and "tiny" in error["error"]["message"], "another: 404 that names the one", error)
is_(s.stop(), 0, "stops")
for origin in ("*", "http://localhost:3000", "https://[::1]:8443", "http://[::1]", "chrome-extension://abcdef", "HTTPS://App.Example"):
    s = Server(model, "--workers", 1, "--threads", 1, "--ctx", 512, "--cors", origin)
    status, headers, _ = s.ask("OPTIONS", "/v1/models", None, {"Origin": "http://any.example" if origin == "*" else origin.lower(), "Access-Control-Request-Method": "GET"})
    is_((status, s.stop()), (204, 0), f"--cors {origin}: taken")

# --- keys with limits, the queue, CORS ---
with open(keys, "w") as f:
    f.write("sk-unlimited-key  name=ann\nsk-two-at-once at-once=2 # a comment\nsk-few-requests requests-per-minute=1\nsk-few-tokens tokens-per-minute=20\n")
s = Server(model, "--workers", 1, "--threads", 1, "--ctx", 2048, "--api-key-file", keys, "--queue", 6, "--cors", "https://app.example")
LONG = {"prompt": "One", "max_tokens": 1500, "temperature": 0, "ignore_eos": True, "stream": True}


def ask(key, **body):
    return s.ask("POST", "/v1/completions", {"prompt": "One", "max_tokens": 4, **body}, {"Authorization": "Bearer " + key})


def open_stream(key, **body):
    c = s.connect()
    c.request("POST", "/v1/completions", json.dumps({**LONG, **body}), {"Authorization": "Bearer " + key})
    r = c.getresponse()
    if r.status == 200:
        next(read_events(r))
    return c, r


is_([ask("sk-few-requests")[0] for _ in range(2)], [200, 429], "requests-per-minute=1: the second is a 429")
status, headers, text = ask("sk-few-requests")
ok(1 <= int(headers["retry-after"]) <= 60 and "1 request a minute" in json.loads(text)["error"]["message"], "which says when to come again", headers, text)
is_(json.loads(text)["error"]["code"], "rate_limit_exceeded", "with OpenAI's code")
is_(s.ask("GET", "/v1/models", None, {"Authorization": "Bearer sk-few-requests"})[0], 200, "what computes nothing is free")
is_([ask("sk-few-tokens", max_tokens=30, ignore_eos=True)[0], ask("sk-few-tokens")[0]], [200, 429], "tokens-per-minute=20: more than that, and the next waits")
two = [open_stream("sk-two-at-once") for _ in range(2)]
status, headers, text = ask("sk-two-at-once")
ok(status == 429 and "2 requests at once" in text, "at-once=2: a third is a 429", status, text)
is_(ask("sk-unlimited-key")[0], 200, "of others nothing is taken")
two[0][0].close()
until = time.time() + 10
while ask("sk-two-at-once")[0] != 200 and time.time() < until:
    time.sleep(0.05)
is_(ask("sk-two-at-once")[0], 200, "one that ends makes room")
two[1][0].close()
until = time.time() + 10
while json.loads(s.ask("GET", "/v1/cluster", None, {"Authorization": "Bearer sk-unlimited-key"})[2])["requests"]["open"] and time.time() < until:
    time.sleep(0.05)
four = [open_stream("sk-unlimited-key", n=3) for _ in range(2)]
status, headers, text = ask("sk-unlimited-key")
ok(status == 429 and "retry-after" in headers and "6 answers" in text, "--queue 6: what would be the seventh answer is a 429", status, text)
for c, _ in four:
    c.close()
until = time.time() + 10
while ask("sk-unlimited-key")[0] != 200 and time.time() < until:
    time.sleep(0.05)
is_(ask("sk-unlimited-key")[0], 200, "until there is room")
status, headers, _ = s.ask("OPTIONS", "/v1/chat/completions", None, {"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
                                                                     "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"})
ok(status == 204 and "x-stainless-os" in headers["access-control-allow-headers"], "CORS: the headers that a client asks for", headers)
is_(s.stop(), 0, "stops")

# --- TLS ---
if not shutil.which("openssl"):
    skip("openssl is not installed")
else:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    os.chmod(key, 0o644)
    r = run("serve", "-m", model, "--tls-cert", cert, "--tls-key", key)
    ok(r.status == 2 and "chmod" in r.err, "a private key that others may read is refused", r.err)
    os.chmod(key, 0o600)
    r = run("serve", "-m", model, "--tls-cert", key, "--tls-key", cert)
    ok(r.status == 2 and "CERTIFICATE" in r.err, "so are the two the wrong way round", r.err)
    s = Server(model, "--workers", 1, "--threads", 1, "--tls-cert", cert, "--tls-key", key, tls=cert)
    is_(s.get("/health"), (200, {"status": "ok"}), "TLS: /health, the certificate checked")
    text = s.text("One", max_tokens=20, temperature=0)
    ok(text and s.stream("/v1/completions", prompt="One", max_tokens=20, temperature=0)[-1] == "[DONE]", "answers, whole and streamed")
    plain = s.connect()
    try:
        import http.client
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=10)
        c.request("GET", "/health")
        ok(c.getresponse().status >= 400, "plain HTTP is not answered")
    except (OSError, http.client.HTTPException):
        ok(True, "plain HTTP is not answered")
    threads = [threading.Thread(target=lambda: texts.append(s.text("One", max_tokens=20, temperature=0))) for _ in range(16)]
    texts = []
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    is_(texts, [text] * 16, "sixteen at once")
    c = s.connect()
    c.request("POST", "/v1/completions", json.dumps(LONG))
    next(read_events(c.getresponse()))
    c.close()
    ok(s.wait_open(0), "a client that goes ends its answer")
    has(s.lines[0] + "".join(s.lines), "https://127.0.0.1", "it says https")

    # --- commands that ask such a server: its user's own, and anybody's ---
    url, foreign = f"https://127.0.0.1:{s.port}", f"https://localhost:{s.port}"
    r = run("status", "--url", url)
    if "without libcurl" in r.err:
        skip("built without libcurl")
    else:
        ok(r.status == 0 and "worker0/cpu" in r.out, "status of an own server by https", r.out, r.err)
        is_(run("status", "--url", url, "--once", env={"https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}).status, 0, "asks no proxy for it")
        r = run("status", "--url", foreign)
        ok(r.status == 1 and "not trusted" in r.err and "--ca-file" in r.err, "another's certificate must be trusted", r.err)
        r = run("status", "--url", foreign, "--ca-file", cert, "--wait-ready", "--json")
        ok(r.status == 0 and json.loads(r.out)["health"] == "ok", "--ca-file: it is", r.out, r.err)
        other = os.path.join(folder, "other.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", os.path.join(folder, "k.pem"), "-out", other, "-days", "2", "-subj", "/CN=x"],
                       check=True, capture_output=True)
        for u in (url, foreign):
            r = run("status", "--url", u, "--ca-file", other)
            ok(r.status == 1 and "not trusted" in r.err, f"a certificate by another, {u.split(':')[1]}", r.err)
        r = run("status", "--url", foreign, "--ca-file", "/nonexistent")
        ok(r.status == 1 and "--ca-file /nonexistent" in r.err, "a file that is not there is named", r.err)
        ask = ("chat", "--once", "One", "--seed", 5, "-n", 12, "--temp", 1)
        there, by_name = run(*ask, "--url", url), run(*ask, "--url", foreign, "--ca-file", cert)
        ok(there.status == 0 and there.out, "chat by https", there.err)
        is_((by_name.status, by_name.out), (0, there.out), "the same by --ca-file", by_name.err)
        r = run("chat", "--url", url, data="one two " * 9000 + "\n")
        ok(r.status == 1 and "400" in r.err and "context" in r.err, "what does not fit: the server's words", r.err)
        is_((run("replan", "--url", url).status, run("drain", "nobody", "--url", url).status), (0, 1), "replan; drain of nobody")
        r = run("replan", "--url", foreign, "--ca-file", cert)
        ok(r.status == 1 and "401" in r.err, "no orders without the server's own key", r.err)
        r = run("status", "--url", f"https://127.0.0.1:1")
        ok(r.status == 1 and "nobody answers" in r.err, "nobody there", r.err)
    r = run("stop", "--url", url)
    is_((r.status, s.p.wait(30)), (0, 0), "stop", r.err)
done()
