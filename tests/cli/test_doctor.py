"""doctor: what it finds, what it says to do, its exit status. TAP; needs no model."""
import json
import os
import socket

from clitest import done, folder, has, is_, ok, run

os.environ["XDG_CONFIG_HOME"] = os.path.join(folder, "config")
os.environ["XDG_RUNTIME_DIR"] = folder
keys = os.path.join(folder, "config", "stagecoach")


def doctor(*args, env=None):
    """(status, {check: [(verdict, text, what to do)]}, stderr)"""
    r = run("doctor", "--json", *args, env=env)
    j = json.loads(r.out)
    checks = {}
    for c in j["checks"]:
        checks.setdefault(c["check"], []).append((c["verdict"], c["text"], c["do"]))
        ok(c["verdict"] in ("pass", "warn", "fail") and (c["do"] is None) == (c["verdict"] == "pass"), f"{c['check']}: {c['verdict']}, and what to do", c)
    n = [sum(c["verdict"] == v for c in j["checks"]) for v in ("pass", "warn", "fail")]
    is_(n, [j["pass"], j["warn"], j["fail"]], "counted")
    is_(r.status, 1 if j["fail"] else 0, "exit status")
    return r.status, checks, r.err


status, checks, err = doctor()
for name in ("processor", "memory", "models' folder", "io_uring", "huge pages", "RLIMIT_MEMLOCK", "open files", "GPU", "clock", "keys", "address", "port 8080"):
    ok(name in checks, f"looks at {name}", list(checks))
ok(not os.path.exists(keys), "changes nothing")
r = run("doctor")
ok(r.out.count("\npass ") >= 5 and "\033" not in r.out and r.out.rstrip().endswith("fail"), "for people", r.out)

run("keygen", "--name", "me")
is_(doctor()[1]["keys"][0][0], "pass", "keys")
os.chmod(os.path.join(keys, "node.secret"), 0o644)
verdict, text, _ = doctor()[1]["keys"][0]
ok(verdict == "fail" and "chmod" in text, "keys that others may read", text)
os.chmod(os.path.join(keys, "node.secret"), 0o600)

verdict, text, _ = doctor(env={"STAGECOACH_CTXX": "1", "STAGECOACH_CTX": "1", "STAGECOACH_SERVE_LISTEN": "x"})[1]["variables"][0]
ok(verdict == "warn" and text.endswith("by STAGECOACH_CTXX"), "a variable that sets nothing", text)
is_(doctor("--model-dir", os.path.join(folder, "nowhere"))[1]["models' folder"][0][0], "fail", "a folder that is not there")

listener = socket.create_server(("127.0.0.1", 0))
taken = listener.getsockname()[1]
with socket.create_server(("127.0.0.1", 0)) as s:
    free = s.getsockname()[1]
key = run("keygen").out.strip()
path = os.path.join(folder, "t.yaml")
with open(path, "w") as f:
    f.write(f"""nodes:
  there: {{address: "tcp://127.0.0.1:{taken}", key: "{key}", ram: 1GiB}}
  gone: {{address: "tcp://127.0.0.1:{free}", key: "{key}", ram: 1GiB}}
  unknown: {{address: "tcp://localhost:{taken}", ram: 1GiB}}
  behind: {{key: "{key}", ram: 1GiB}}
""")
status, checks, err = doctor("--topology", path)
is_(checks["topology"][0][0], "pass", "a topology")
is_([c[0] for c in checks["node there"]], ["pass"], "a node that is reached")
ok(checks["node gone"][0][0] == "fail" and "refused" in checks["node gone"][0][1], "one that is not", checks["node gone"])
ok(checks["node unknown"][0][0] == "fail" and "no key" in checks["node unknown"][0][1], "one without a key", checks["node unknown"])
ok("dials in" in checks["node behind"][0][1], "one that dials in", checks["node behind"])
ok(status == 1 and "checks failed" in err, "status 1", err)
with open(path, "w") as f:
    f.write("nodes: [")
ok(doctor("--topology", path)[1]["topology"][0][0] == "fail", "a file with a mistake")
done()
