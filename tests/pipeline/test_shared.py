"""Workers of our own that share processors are planned as sharing them: TAP. Skips without shared/testdata or Python's gguf and numpy."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from clitest import BUILD, done, make_model, ok, skip_all  # noqa: E402

if not hasattr(os, "sched_setaffinity"):
    skip_all("processors cannot be chosen here")
model, why = make_model("tiny.gguf", "--quant", "Q4_K", "--layers", "48")
if not model:
    skip_all(why)
CPUS = sorted(os.sched_getaffinity(0))
MANY = 64  # with 8, two workers' steps of 4 rows promise 1.08 of one's of 8 where a processor multiplies fast; with 64, 1.74


def predicted(workers, threads, cpus):
    """What the plan promises for MANY sequences, tokens a second, on so many processors."""
    p = subprocess.run([os.path.join(BUILD, "stagecoach"), "bench", "-m", model, "--workers", str(workers), "--threads", str(threads), "--pp", "0", "--tg", "2",
                        "--batch", str(MANY), "--reps", "1", "--json"], capture_output=True, text=True, timeout=300, check=False,
                       preexec_fn=lambda: os.sched_setaffinity(0, CPUS[:cpus]))
    if not ok(p.returncode == 0, f"bench with {workers} workers of {threads} threads on {cpus} of the processors", p.stderr):
        done()
    return json.loads(p.stdout)["results"][0]["predicted"]


one = predicted(1, 1, 1)
ok(predicted(3, 1, 1) < 1.1 * one, "three workers on one processor promise no more than one")
ok(predicted(1, 4, 1) < 1.1 * one, "nor does one of four threads")
if len(CPUS) > 1:
    two = predicted(2, 1, 2)
    ok(two > 1.4 * one, "two on two processors promise more", two, one)
    ok(predicted(4, 1, 2) < 1.1 * two, "four on them no more than two")
done()
