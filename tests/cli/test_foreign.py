"""What files, options, the environment and clients of HTTP write reaches a terminal or the log without escape sequences. TAP."""
import os
import pty
import socket
import sys

sys.path[:0] = [os.path.join(os.environ.get("SC_SRC", "."), "tests", part) for part in ("topology", "front")]
from clitest import PROGRAM, done, folder, has, make_model, ok, run, skip  # noqa: E402
from fronttest import Server  # noqa: E402
from header_model import make  # noqa: E402

ESCAPE = "\x1b]0;x\x07\x1b[2J"


def clean(text):
    """No control characters but line ends and tabs; colors are ours."""
    return not any(ord(c) < 32 and c not in "\n\t\r" or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in text)


def terminal(*args):
    """What the program writes to a terminal, without colors."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"})
        os.execv(PROGRAM, [PROGRAM, *args])
    raw = b""
    try:
        while piece := os.read(fd, 65536):
            raw += piece
    except OSError:
        pass
    os.close(fd)
    os.waitpid(pid, 0)
    return raw.decode("utf-8", "surrogateescape")


def refused(word, *args, env=None):
    r = run(*args, env=env)
    ok(r.status != 0 and clean(r.err) and word in r.err, f"{args[0]}: {word}", r.status, repr(r.err))


def written(name, text):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
    return path


# --- options, paths, the environment ---
refused("no?]0;x??[2J", "inspect", os.path.join(folder, "no" + ESCAPE))
refused("no?]0;x??[2J", "plan", "-m", "x", "--topology", os.path.join(folder, "no" + ESCAPE))
refused("?]0;x?", "drain", "n", "--for", ESCAPE)
refused("?]0;x?", "run", "--" + ESCAPE)
refused("?]0;x?", ESCAPE)
refused("?]0;x?", "status", "--url", "http://" + ESCAPE)
refused("?", "inspect", os.fsdecode(b"/no\x9b2J\xff"))
r = run("run", "--show-config", env={"STAGECOACH_RUN_SYSTEM": "a" + ESCAPE})
ok(clean(r.out) and "a?]0;x" in r.out, "run --show-config: a value of the environment", r.status, repr(r.out[-400:]), r.err)

# --- a topology file ---
model = make(os.path.join(folder, "8b.gguf"), "8b", "Q8_0")
for i, text in enumerate(('nodes: {"a\\e[2J": {ram: 1GiB}}', 'nodes: {a: {ram: "1\\e[2J"}}', 'model: {kv: "\\e[2J"}', 'nodes: {a: {ram: 1GiB, address: "tcp://\\x9B2J:1"}}',
                          'nodes: {a: {ram: 1GiB, devices: {"\\e]0;x\\a": {memory: 1GiB}}}}', '"\\e[2J": 1', 'pins: [{head: "\\e[2J"}]\nnodes: {a: {ram: 1GiB}}',
                          'nodes: {a: {ram: 1GiB, address: "tcp://\\u202Emoc.elpmaxe:1"}}')):
    refused("?", "plan", "-m", model, "--topology", written(f"{i}.yaml", text))

# --- a model's metadata ---
good = written("good.yaml", "nodes: {a: {ram: 64GiB}}\n")
with open(model, "rb") as f:
    header = f.read()
named = written("named.gguf", header.replace(b"8b Q8_0", b"\x1b[2J\x9b!\xff"[:7]))
for args in (("inspect", named), ("plan", "-m", named, "--topology", good)):
    r, shown = run(*args), terminal(*args)
    ok(r.status == 0 and clean(r.out) and "?[2J" in r.out, f"{args[0]}: a model's name", repr(r.out[:300]), r.err)
    ok(clean(shown) and "?[2J" in shown, f"{args[0]} on a terminal", repr(shown[:300]))
ok(clean(terminal("inspect", "--json", named)), "inspect --json on a terminal")
refused("?[2Jx", "plan", "-m", written("arch.gguf", header.replace(b"llama", b"\x1b[2Jx")), "--topology", good)
source = written("t.jinja", "{{ s }}")
context = written("t.json", '{"s": "a\\u001b[2Jb\\u009bc"}')
ok(run("template", source, context).raw.rstrip(b"\n") == b"a\x1b[2Jb\xc2\x9bc", "a template's text is what it is in a pipe")
ok(clean(terminal("template", source, context)), "and not on a terminal")
refused("?[2J", "template", written("e.jinja", "{{ raise_exception(s) }}"), context)

# --- HTTP ---
tiny, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "2")
if not tiny:
    skip(why)
    done()
s = Server(tiny, "--workers", 1, "--threads", 1, "--ctx", 64)


def raw(request):
    with socket.create_connection(("127.0.0.1", s.port), timeout=30) as c:
        c.sendall(request)
        answer = b""
        while piece := c.recv(65536):
            answer += piece
    return answer.decode("utf-8", "replace")


E = ESCAPE.encode()
for name, request in (("path", b"GET /" + E + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
                      ("method", E + b" / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
                      ("Host", b"GET /v1/models HTTP/1.1\r\nHost: " + E + b"\r\nConnection: close\r\n\r\n"),
                      ("Origin", b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://" + E + b"\r\nConnection: close\r\n\r\n"),
                      ("model", b"GET /v1/models/%1B%5B2J%9B HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")):
    answer = raw(request)
    ok(answer.startswith("HTTP/1.1 4") and clean(answer), f"HTTP: an escape sequence as {name}", repr(answer[-300:]))
body = b'{"model": "\\u001b[2J\\u009b", "prompt": "a", "max_tokens": 1}'
answer = raw(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
ok(clean(answer), "and in a body", repr(answer[-300:]))
ok(s.stop() == 0 and all(clean(line) for line in s.lines), "nothing of it in the log", *map(repr, s.lines))
done()
