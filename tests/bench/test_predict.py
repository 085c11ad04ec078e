"""./dev bench predict on one small cluster of a tiny model: what it prints, and that nothing stays behind. TAP. How near predictions
come is for a quiet machine and a real model."""
import glob
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "cli"))
from clitest import BUILD, PROGRAM, SRC, done, is_, make_model, ok, skip_all  # noqa: E402

if not os.access(os.path.join(BUILD, "tests/pipeline/relay"), os.X_OK):
    skip_all("the relay is not built")
model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)


def predict(*args):
    return subprocess.run([sys.executable, "-B", os.path.join(SRC, "tests", "bench", "predict.py"), "--program", PROGRAM, *args],
                          capture_output=True, text=True, timeout=300)


p = predict("-m", model, "--clusters", "1", "--seed", "2", "--tg", "4", "--parallel", "3", "--whole", "--json")
ok(p.returncode == 0, "one cluster", p.stderr, p.stdout)
if p.returncode == 0:
    found = json.loads(p.stdout)
    r = found["results"][0]
    is_(len(found["results"]), 1, "one result")
    is_(sum(layers for _, layers in r["cut"]), 4, "all layers are somewhere", r)
    ok(2 <= len(r["shares"]) <= 4 and len(r["cut"]) <= len(r["shares"]), "two to four nodes", r)
    ok(all(min(r[k]) > 0 for k in ("one", "many")), "predicted and measured, of one stream and of several", r)
    ok(all(s["steps"] > 0 for k in ("one", "many") for s in r["stages"][k]), "and what the stages did", r)
    is_(sorted({n for n, _ in r["cut"]} | {d["node"] for d in r["dropped"]}), [f"n{i}" for i in range(len(r["shares"]))],
        "whoever is left out is tried as well", r)
is_(predict("-m", model, "--parallel", "1").returncode, 2, "--parallel 1 is refused")
p = predict("-m", "/nonexistent.gguf", "--clusters", "1")
ok(p.returncode == 1 and "predict:" in p.stderr, "a model that is not there: it says so", p.stderr)
is_(glob.glob(os.path.join(tempfile.gettempdir(), "sc-predict-*")), [], "no folder stays behind")
done()
