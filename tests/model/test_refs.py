"""Our answers against the truth: TAP. Models of seeded random weights are made in every quantization (and SmolLM2, where
./dev demo has fetched it), run over the texts of shared/testdata/refs, and their next-token distributions held against the
same weights' in F32. What llama.cpp's own quantized path is off by is the figure to beat: on the whole we must be nearer,
nowhere far beyond it. What is missing skips, with the reason.

The models (about 1 GB) stay in the build folder, so that a second run is quick."""
import hashlib
import math
import os
import re
import subprocess
import sys

SHARED = os.environ.get("SC_SHARED", "")
BUILD = os.environ.get("SC_BUILD", ".")
DATA = os.path.join(SHARED, "testdata")
PROGRAM = os.path.join(BUILD, "stagecoach")
KEPT = os.path.join(BUILD, "testmodels")
SMALL = 1e-4  # a divergence below says more about rounding to six decimals than about us
LIMIT, LIMIT_EXPERTS, GRACE = 2, 4, 0.001  # of a single model; random experts tip over by a hair's breadth
DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

count = failed = 0


def tap(good, text, *notes):
    global count, failed
    count += 1
    failed += not good
    print(f"{'ok' if good else 'not ok'} {count} - {text}", flush=True)
    for note in notes:
        print("# " + str(note), flush=True)


def skip(text):
    global count
    count += 1
    print(f"ok {count} # SKIP {text}", flush=True)


def skip_all(reason):
    print(f"1..0 # SKIP {reason}")
    sys.exit(0)


def python_with_gguf():
    """The Python that can make models: this one, or one that the environment names."""
    for python in (sys.executable, os.environ.get("SC_PYTHON"), os.environ.get("PYTHON3")):
        if python and subprocess.run([python, "-c", "import gguf, numpy"], capture_output=True).returncode == 0:
            return python
    return None


def read_table(path):
    """Rows of the README: name, make_model's arguments, sha256's beginning, llama.cpp's divergence."""
    row = re.compile(r"^\| (\S+) \| `([^`]*)` \| ([0-9a-f]{16}) \| kld ([0-9.]+) ")
    with open(path, encoding="utf-8") as f:
        return [(m[1], m[2].split(), m[3], float(m[4])) for m in map(row.match, f) if m]


def smollm2_divergence(path):
    with open(path, encoding="utf-8") as f:
        m = re.search(r"smollm2-135m-Q4_1\.json.*?kld ([0-9.]+)", f.read(), re.S)
    return float(m[1]) if m else None


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            h.update(piece)
    return h.hexdigest()


def made_model(python, name, args, sha):
    """Its path; None and why it could not be made."""
    path = os.path.join(KEPT, name + ".gguf")
    if os.path.exists(path) and digest(path).startswith(sha):
        return path, None
    os.makedirs(KEPT, exist_ok=True)
    done = subprocess.run([python, os.path.join(DATA, "make_model.py"), path + ".part", *args], capture_output=True, text=True, cwd=DATA)
    if done.returncode != 0:
        return None, done.stderr.strip().rsplit("\n", 1)[-1]
    if not digest(path + ".part").startswith(sha):
        os.remove(path + ".part")
        return None, "other versions of gguf and numpy make other bytes"
    os.rename(path + ".part", path)
    return path, None


def measure(model, reference):
    """(kld, max, top1), or what went wrong."""
    done = subprocess.run([PROGRAM, "eval", "-m", model, "--reference", reference], capture_output=True, text=True)
    m = re.search(r"^kld ([0-9.eE+-]+) max ([0-9.eE+-]+) top1 ([0-9.]+)", (done.stdout.strip().rsplit("\n", 1) or [""])[-1])
    if done.returncode != 0 or not m:
        return None, f"exit {done.returncode}: {done.stderr.strip()[-300:] or done.stdout[-300:]!r}"
    return tuple(float(x) for x in m.groups()), None


def check(name, model, theirs, ratios):
    got, why = measure(model, os.path.join(DATA, "refs", name + ".json"))
    if not got:
        tap(False, f"{name}: eval", why)
        return
    kld, worst, top1 = got
    limit = (LIMIT_EXPERTS if "moe" in name or "mixtral" in name else LIMIT) * theirs + GRACE
    figures = f"kld {kld:.6f} max {worst:.6f} top1 {top1:.4f}, llama.cpp's kld {theirs:.6f}"
    tap(kld <= limit, f"{name}: {figures}" + (f", ratio {kld / theirs:.3f}" if theirs > SMALL else ""), *([] if kld <= limit else [f"limit {limit:.6f}"]))
    if theirs > SMALL:
        ratios.append(max(kld, 1e-6) / theirs)


def main():
    table = os.path.join(DATA, "README.md")
    if not os.path.exists(table):
        skip_all("shared/testdata is not here")
    if not os.path.exists(PROGRAM):
        skip_all("there is no stagecoach program yet")
    ratios = []
    python = python_with_gguf()
    for name, args, sha, theirs in read_table(table):
        kept = os.path.join(KEPT, name + ".gguf")
        if not python and not os.path.exists(kept):
            skip(f"{name}: no Python with gguf and numpy (./dev setup)")
            continue
        model, why = made_model(python, name, args, sha)
        if not model:
            skip(f"{name}: {why}")
            continue
        check(name, model, theirs, ratios)
    cache = os.environ.get("STAGECOACH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "stagecoach")
    demo, theirs = os.path.join(cache, DEMO_FILE), smollm2_divergence(table)
    if not os.path.exists(demo):
        skip("SmolLM2: its file is not here (./dev demo fetches it)")
    elif theirs:
        check("smollm2-135m-Q4_1", demo, theirs, ratios)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        tap(mean <= 1, f"{len(ratios)} models: {mean:.3f} of llama.cpp's divergence in the geometric mean")
    print(f"1..{count}")
    return failed != 0


sys.exit(main())
