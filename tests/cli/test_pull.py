"""pull: whole and split files from a server of our own, with cuts, wrong ranges, redirects, changes in between, TLS. TAP; no network."""
import hashlib
import http.server
import json
import os
import signal
import ssl
import subprocess
import threading
import time

from clitest import PROGRAM, done, folder, has, is_, make_model, ok, run, skip

if "without libcurl" in run("pull", "http://127.0.0.1:1/a.gguf").err:
    print("1..0 # SKIP built without libcurl")
    raise SystemExit(0)
home = os.path.join(folder, "home")
os.makedirs(home)
os.environ["XDG_DATA_HOME"] = home
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
    os.environ.pop(name, None)
models = os.path.join(home, "stagecoach", "models")
BODY = b"GGUF" + bytes(range(256)) * 4000
OTHER = b"GGUF" + bytes(reversed(range(256))) * 4000
SHA, OTHER_SHA = hashlib.sha256(BODY).hexdigest(), hashlib.sha256(OTHER).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plan = {}  # path -> list of what to do, one a request (the last one again and again)
    seen = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        Handler.seen.append((self.path, dict(self.headers)))
        steps = Handler.plan.get(self.path.split("?")[0], [{"status": 404}])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        body, tag = step.get("body", BODY), step.get("tag", '"v1"')
        status, start = step.get("status", 200), 0
        if "to" in step:
            self.send_response(302)
            self.send_header("Location", step["to"])
            self.send_header("X-Linked-Etag", '"%s"' % step.get("linked", SHA))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        if wanted and status == 200 and not step.get("no_ranges") and self.headers.get("If-Range", tag) in (tag, step.get("date")):
            start = int(wanted[6:].rstrip("-"))
            status = 206 if start < len(body) else 416
        self.send_response(status)
        data = b"" if status >= 400 else body[start:]
        if tag:
            self.send_header("ETag", tag)
        if "date" in step:
            self.send_header("Last-Modified", step["date"])
        if status == 206:
            at = step.get("claims", start)
            self.send_header("Content-Range", f"bytes {at}-{len(body) - 1}/{len(body)}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(body)}")
        self.send_header("Content-Length", str(step.get("length", len(data))))
        self.end_headers()
        data = data[: step.get("cut", len(data))]
        for i in range(0, len(data), 65536):
            self.wfile.write(data[i : i + 65536])
            time.sleep(step.get("slow", 0))
        if "cut" in step or "length" in step:
            self.wfile.flush()
            self.close_connection = True


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that go away are part of the test


def serve(context=None):
    s = Quiet(("127.0.0.1", 0), Handler)
    if context:
        s.socket = context.wrap_socket(s.socket, server_side=True)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s.server_address[1]


port = serve()
base = f"http://127.0.0.1:{port}"
out = os.path.join(folder, "out")
os.makedirs(out)


def pull(name, steps, *args, env=None):
    """Fetches base/name by the steps; (result, bytes of the file or None, requests)."""
    Handler.plan["/" + name], Handler.seen[:] = steps, []
    r = run("pull", f"{base}/{name}", "--dir", out, *args, env=env)
    path = os.path.join(out, name)
    data = open(path, "rb").read() if os.path.exists(path) else None
    return r, data, list(Handler.seen)


def left(name):
    return sorted(f for f in os.listdir(out) if f.startswith(name) and f != name)


r, data, seen = pull("whole.gguf", [{}])
ok(r.status == 0 and data == BODY and len(seen) == 1, "a file", r.err, seen)
is_(r.out, os.path.join(out, "whole.gguf") + "\n", "its path is printed")
ok(SHA in r.err and left("whole.gguf") == [], "its hash is told, nothing else is left", r.err, left("whole.gguf"))
r, data, seen = pull("whole.gguf", [{"status": 500}])
ok(r.status == 0 and seen == [], "what is there is not asked for again", r.err)
r, data, seen = pull("whole.gguf", [{"status": 500}], "--sha256", SHA.upper())
ok(r.status == 0 and seen == [], "its hash is what was said", r.err)
r, data, seen = pull("whole.gguf", [{"status": 500}], "--sha256", OTHER_SHA)
ok(r.status == 1 and SHA in r.err and "remove it" in r.err, "or is not", r.err)

# --- cuts ---
r, data, seen = pull("cut.gguf", [{"cut": 100000}, {"cut": 200000}, {}])
ok(r.status == 0 and data == BODY and len(seen) == 3, "two cuts", r.err, len(seen))
ok(seen[1][1]["Range"] == "bytes=100000-" and seen[1][1]["If-Range"] == '"v1"', "goes on where it ended, if it is the same file", seen[1:])
r, data, seen = pull("changed.gguf", [{"cut": 100000}, {"body": OTHER, "tag": '"v2"'}])
ok(r.status == 0 and data == OTHER, "another file in between: from the beginning", r.err)
r, data, seen = pull("silly.gguf", [{"cut": 100000}, {"claims": 5}, {}])
ok(r.status == 0 and data == BODY and len(seen) == 3, "a wrong range is not believed", r.err, len(seen))
r, data, seen = pull("noranges.gguf", [{"cut": 100000}, {"no_ranges": True}])
ok(r.status == 0 and data == BODY, "a server without ranges", r.err)
r, data, seen = pull("dated.gguf", [{"cut": 9999, "tag": None, "date": "Sat, 01 Jan 2000 00:00:00 GMT"}, {"tag": None, "date": "Sat, 01 Jan 2000 00:00:00 GMT"}])
ok(r.status == 0 and data == BODY and seen[1][1].get("If-Range", "").startswith("Sat"), "a date instead of a tag", r.err, seen[1:])
r, data, seen = pull("busy.gguf", [{"status": 503}, {"status": 429}, {}])
ok(r.status == 0 and data == BODY, "a server that is busy is asked again", r.err)
r, data, seen = pull("long.gguf", [{"length": len(BODY) + 5}, {}])
ok(r.status == 0 and data == BODY, "fewer bytes than announced", r.err)

# --- a later run ---
Handler.plan["/later.gguf"] = [{"slow": 0.3}]
p = subprocess.Popen([PROGRAM, "pull", f"{base}/later.gguf", "--dir", out], stderr=subprocess.PIPE)
part = os.path.join(out, "later.gguf.part")
until = time.time() + 60
while (not os.path.exists(part) or os.path.getsize(part) < 65536) and time.time() < until:
    time.sleep(0.02)
r = run("pull", f"{base}/later.gguf", "--dir", out)
ok(r.status == 1 and "another process is fetching it already" in r.err, "not two at once", r.err)
p.send_signal(signal.SIGINT)
p.communicate(timeout=60)
ok(p.returncode == -signal.SIGINT and os.path.getsize(part) >= 65536, "Ctrl-C keeps what came", p.returncode)
r, data, seen = pull("later.gguf", [{}])
ok(r.status == 0 and data == BODY and "Range" in seen[0][1], "a later run goes on", r.err, seen)
ok(left("later.gguf") == [], "nothing is left", left("later.gguf"))
with open(part, "wb") as f:
    f.write(b"GGUFjunk")
os.unlink(os.path.join(out, "later.gguf"))
r, data, seen = pull("later.gguf", [{}])
ok(r.status == 0 and data == BODY and "Range" not in seen[0][1], "a part of which nobody knows what it belongs to counts for nothing", r.err, seen)

# --- hashes ---
r, data, seen = pull("wrong.gguf", [{}], "--sha256", OTHER_SHA)
ok(r.status == 1 and SHA in r.err and OTHER_SHA in r.err and data is None and left("wrong.gguf") == [], "a wrong hash: nothing stays", r.err)
r, data, seen = pull("hash.gguf", [{}], "--sha256", SHA)
ok(r.status == 0 and "nobody said" not in r.err, "a right one", r.err)

# --- the hub ---
hub = {"HF_ENDPOINT": base, "HF_TOKEN": "hf-secret"}
other = serve()
Handler.plan["/me/some-repo/resolve/main/sub/m.gguf"] = [{"to": f"http://127.0.0.1:{other}/blob"}]
Handler.plan["/blob"] = [{}]
Handler.seen[:] = []
r = run("pull", "hf:me/some-repo:sub/m.gguf", env=hub)
path = os.path.join(models, "me", "some-repo", "m.gguf")
ok(r.status == 0 and r.out.strip() == path and open(path, "rb").read() == BODY, "a file of a repository", r.err)
is_([h.get("Authorization") for _, h in Handler.seen], ["Bearer hf-secret", None], "the token is shown to the hub alone")
ok("nobody said" not in r.err, "the hub says what its hash is", r.err)
Handler.plan["/me/some-repo/resolve/main/bad.gguf"] = [{"to": f"http://127.0.0.1:{other}/blob", "linked": OTHER_SHA}]
r = run("pull", "hf:me/some-repo:bad.gguf", env=hub)
ok(r.status == 1 and OTHER_SHA in r.err, "and it is checked", r.err)
r = run("pull", "hf:me/some-repo:none.gguf", env=hub)
ok(r.status == 1 and "answers 404" in r.err, "a file that is not there", r.err)

# --- splits, and -m ---
model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "2")
if model:
    body = open(model, "rb").read()
    Handler.plan["/x/m.gguf"] = [{"body": body}]
    want = run("run", "-m", model, "-p", "hello", "-n", "4", "--temp", "0").out
    r = run("run", "-m", f"{base}/x/m.gguf", "-p", "hello", "-n", "4", "--temp", "0")
    is_((r.status, r.out), (0, want), "run -m URL fetches first", r.err)
    Handler.seen[:] = []
    is_(run("run", "-m", f"{base}/x/m.gguf", "-p", "hello", "-n", "4", "--temp", "0").out, want, "and not a second time")
    is_(Handler.seen, [], "nothing is asked for")
else:
    skip(why)
for i in (1, 2, 3):
    Handler.plan[f"/s/m-0000{i}-of-00003.gguf"] = [{"body": BODY + bytes([i])}]
r = run("pull", f"{base}/s/m-00002-of-00003.gguf?download=true", "--dir", out)
ok(r.status == 0 and r.out.strip().endswith("m-00001-of-00003.gguf"), "a split model by any part", r.err)
is_([open(os.path.join(out, f"m-0000{i}-of-00003.gguf"), "rb").read()[-1] for i in (1, 2, 3)], [1, 2, 3], "all parts")
is_(run("pull", f"{base}/s/m-00002-of-00003.gguf", "--sha256", SHA).status, 2, "a hash for each")

# --- refused ---
r, data, seen = pull("page.gguf", [{"body": b"<html>sorry</html>"}])
ok(r.status == 1 and "no GGUF file" in r.err and data is None and left("page.gguf") == [], "a page instead of a model", r.err)
r, data, seen = pull("huge.gguf", [{"length": 1 << 44}])
ok(r.status == 1 and "more are to come" in r.err and "are free" in r.err, "more than the disk has room for", r.err)
r, data, seen = pull("loop.gguf", [{"to": "/loop.gguf"}])
ok(r.status == 1 and data is None, "a redirect to itself", r.err)
r, data, seen = pull("file.gguf", [{"to": "file:///etc/passwd"}])
ok(r.status == 1 and data is None, "a redirect to a file", r.err)
for what in ("ftp://x/a.gguf", "hf:only", "hf:a/b:../c.gguf", "hf:a/b:c.txt", "https://", f"{base}/a.bin", f"{base}/.gguf", "https://u:p@h/a.gguf",
             "hf:a/b/c:d.gguf", f"{base}/m-00009-of-00003.gguf", f"{base}/m-00001-of-99999.gguf", "some.gguf"):
    r = run("pull", what)
    is_(r.status, 2, f"refused: {what}", r.err)

# --- TLS ---
cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                       "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert], capture_output=True).returncode == 0
if made:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    tls = serve(context)
    Handler.plan["/t.gguf"] = [{}]
    r = run("pull", f"https://127.0.0.1:{tls}/t.gguf", "--dir", out)
    ok(r.status == 1 and not os.path.exists(os.path.join(out, "t.gguf")), "an unknown certificate is refused", r.err)
    r = run("pull", f"https://127.0.0.1:{tls}/t.gguf", "--dir", out, "--ca-file", cert)
    ok(r.status == 0 and open(os.path.join(out, "t.gguf"), "rb").read() == BODY, "a known one is not", r.err)
    Handler.plan["/down.gguf"] = [{"to": f"{base}/t.gguf"}]
    r = run("pull", f"https://127.0.0.1:{tls}/down.gguf", "--dir", out, "--ca-file", cert)
    ok(r.status == 1, "https does not lead to http", r.err)
else:
    skip("openssl makes no certificate here")
done()
