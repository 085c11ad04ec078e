"""What plan and status show on terminals of all widths: nothing wider, no number cut, what is dropped in which order. TAP."""
import fcntl
import http.server
import json
import os
import pty
import re
import struct
import sys
import termios
import threading
import unicodedata

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests/topology"))
from clitest import PROGRAM, done, folder, has, is_, ok, run  # noqa: E402
from header_model import make  # noqa: E402

ESCAPES = re.compile(r"\033\[[?0-9;]*[A-Za-z]")
os.environ.pop("COLUMNS", None)


def columns(line):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def terminal(args, wide, high=50, locale="C.UTF-8", more=None, until=None):
    """The bytes that the program writes to a terminal of that size."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", high, wide, 0, 0))
        os.environ.update({"TERM": "xterm", "LC_ALL": locale, **(more or {})})
        os.execv(PROGRAM, [PROGRAM, *map(str, args)])
    raw = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        raw += piece
        if until and until(raw):
            os.write(fd, b"\x03")
            until = None
        if not piece:
            break
    os.close(fd)
    os.waitpid(pid, 0)
    return raw


def screen(args, wide, **how):
    return ESCAPES.sub("", terminal(args, wide, **how).decode("utf-8", "replace")).replace("\r\n", "\n").splitlines()


def too_wide(lines, wide):
    return [line for line in lines if columns(line) > wide]


def header(lines, first):
    return next((line.split() for line in lines if line.split()[:1] == [first]), [])


def numbers(lines):
    return set(re.findall(r"(?<![\w.…-])\d+(?:\.\d+)?(?: [KMGT]iB| ms|%)?(?![\w.-])", "\n".join(lines)))


def long_name(i):
    return ("workstation-of-the-people-in-the-attic-of-the-old-house-" + "x" * 64)[:61] + f"-{i:02d}"


# --- plan ---
model = make(os.path.join(folder, "70b.gguf"), "70b", "Q4_K_M")
ORDER = ["memory", "hop", "other", "kv", "ms/chunk", "of", "weights", "ms/token", "layers"]
for n in (1, 3, 16):
    path = os.path.join(folder, f"{n}.yaml")
    with open(path, "w") as f:
        f.write("nodes:\n" + "".join(f"  {long_name(i)}: {{ram: {256 // n + 2}GiB, threads: 8, address: \"tcp://h{i}:7101\"}}\n" for i in range(n)))
    command = ("plan", "-m", model, "--topology", path, "--no-advice", "--ctx", 1024)
    whole = run(*command)
    is_(whole.status, 0, f"plan of {n}", whole.err)
    lines = whole.out.splitlines()
    has(whole.out, long_name(0) + "/cpu", f"{n} nodes, no terminal: names are whole")
    ok(all(w in header(lines, "stage") for w in ORDER), f"{n} nodes, no terminal: all is there", lines)
    is_([line for line in lines if columns(line) > 120 and long_name(0)[:20] not in line and not line.strip().startswith("stage")], [],
        f"{n} nodes, no terminal: no sentence is wider than 120")
    shown = {}
    for wide in (200, 120, 100, 80, 60, 40):
        lines = screen(command, wide)
        is_(too_wide(lines, wide), [], f"plan, {n} nodes, {wide} columns: nothing is wider")
        title = shown[wide] = header(lines, "stage")
        gone = [w for w in ORDER if w not in title]
        is_(gone, ORDER[:len(gone)], f"plan, {n} nodes, {wide} columns: what is dropped, in order", title)
        rows = next(lines[i + 1:i + 1 + n] for i, line in enumerate(lines) if line.split()[:1] == ["stage"])
        ok(all("/cpu" in r.split()[0] for r in rows) and len({r.split()[0] for r in rows}) == n, f"plan, {n} nodes, {wide} columns: each has its line, by its own name", *lines)
        is_(numbers(rows) - numbers(whole.out.splitlines()), set(), f"plan, {n} nodes, {wide} columns: no number is another")
    is_(shown[120], ["stage", "layers", "memory", "weights", "kv", "other", "of", "ms/token", "ms/chunk", "hop", "ms"], f"plan, {n} nodes, 120 columns: all is there")
    ok({"layers", "ms/token"} <= set(shown[40]), f"plan, {n} nodes, 40 columns: the least", shown[40])
r = run(*command, env={"COLUMNS": "70"})
is_(too_wide(r.out.splitlines(), 70), [], "COLUMNS counts where there is no terminal")
is_(too_wide(screen(command, 120, more={"COLUMNS": "50"}), 50), [], "and makes one narrower")
is_(too_wide(screen(command, 80, more={"COLUMNS": "500"}), 80), [], "never wider")
raw = terminal(command, 60, locale="C")
ok(all(b < 128 for b in raw) and b".." in raw, "a terminal that knows no UTF-8 gets none", raw[:2000])
ok("…" in terminal(command, 60).decode(), "one that does, does")

# --- status ---


def cluster(n, name=long_name, text="node a is here", model="SmolLM2 模型 é"):
    gib = 1 << 30
    return {"health": "ok", "model": model, "state": "running", "epoch": 12, "up_s": 4000, "layers": 80,
            "stages": [{"node": name(i), "device": "cuda:0", "layers": [i * 5, i * 5 + 4], "memory_bytes": 20 * gib,
                        "bytes": {"weights": 11 * gib + i, "kv": gib, "scratch": 1 << 20},
                        "measured": {"batch_ms": 123.4 + i, "compute_us": 9000 + i, "bubble_us": 1000, "wire_us": 100}} for i in range(n)],
            "nodes": [{"name": name(i), "state": "here", "stage": i, "devices": [{"name": "cuda:0", "memory_bytes": 24 * gib}]} for i in range(n)] +
                     [{"name": "spare", "state": "here", "standby": True}],
            "schedule": {"running": 3, "waiting": 12, "blocks_used": [1234], "blocks_cached": [100], "blocks_free": [2000]},
            "requests": {"open": 15, "served": 12345, "failed": 2, "tokens": 9876543}, "predicted": {"tokens_per_s_now": 33.3},
            "events": [{"at_s": 1.5 * i, "kind": "info", "text": f"{text} {i} " + "and has a lot to say about the whole of it " * (i % 4)} for i in range(9)]}


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.server.said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}"
ORDER = ["memory", "there", "a", "time", "stage", "of", "wire", "wait", "busy", "used", "layers"]
for n in (1, 3, 16):
    server.said = cluster(n)
    whole = run("status", "--url", url)
    is_(whole.status, 0, f"status of {n}", whole.err)
    lines = whole.out.splitlines()
    ok(long_name(0) + "/cuda:0" in whole.out and all(w in header(lines, "stage") for w in ("there", "busy", "wire", "batch")),
       f"{n} stages, no terminal: all numbers, whole names", *lines)
    is_([line for line in lines if columns(line) > 120 and "/cuda:0" not in line and "where" not in line], [], f"{n} stages, no terminal: no sentence is wider than 120")
    for wide in (160, 120, 100, 80, 60, 40):
        lines = screen(("status", "--once", "--url", url), wide)
        is_(too_wide(lines, wide), [], f"status, {n} stages, {wide} columns: nothing is wider")
        title = header(lines, "stage") or header(lines, "where")
        gone = [w for w in ORDER if w not in title]
        is_(gone, ORDER[:len(gone)], f"status, {n} stages, {wide} columns: what is dropped, in order", *lines)
        rows = [line for line in lines if "cuda:0" in line]
        ok(len({w for row in rows for w in row.split() if "cuda:0" in w}) == len(rows) == n, f"status, {n} stages, {wide} columns: each has its line, by its own name", *lines)
        is_(numbers(rows) - numbers(whole.out.splitlines()), set(), f"status, {n} stages, {wide} columns: no number is another")
        ok("busy" in title and "90%" in "".join(rows), f"status, {n} stages, {wide} columns: how busy they are", *lines)
        if wide >= 120:
            is_(gone, [], f"status, {n} stages, {wide} columns: all is there", *lines)
    for wide, high in ((80, 24), (120, 40), (40, 12)):
        raw = terminal(("status", "--url", url, "--interval", "0.1"), wide, high=high, until=lambda b: b.count(b"\033[H\033[J") >= 3)
        frame = ESCAPES.sub("", raw.split(b"\033[H\033[J")[2].decode()).replace("\r\n", "\n").splitlines()
        is_((too_wide(frame, wide), len(frame) < high), ([], True), f"followed, {n} stages, {wide} columns, {high} lines: within them", *frame)
        if (wide, n) == (80, 3):
            ok(any("busy" in line for line in frame) and any("100%" in line or "0%" in line for line in frame), "80 columns: how busy they are", *frame)
server.said = cluster(3, name=lambda i: f"node{i}")
lines = screen(("status", "--once", "--url", url), 120)
ok(header(lines, "stage") == ["stage", "where", "layers", "memory", "used", "of", "there", "time", "busy", "wait", "wire", "a", "batch"] and "[" in lines[2],
   "ordinary names, 120 columns: all is there", *lines)
raw = terminal(("status", "--once", "--url", url), 80, locale="POSIX")
ok(all(b < 128 for b in raw) and b"SmolLM2 ?? ?" in raw, "a terminal that knows no UTF-8 gets none", raw)
raw = terminal(("status", "--once", "--url", url), 80, locale="de_DE.utf8")
has(raw.decode(), "模型", "one that does, gets names as they are")
done()
