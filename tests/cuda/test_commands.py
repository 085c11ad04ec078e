"""Commands on an emulated CUDA device, processes and all: TAP. The same answers as on the processor, to the last digit of their
log-probabilities: alone, beside the processor, on two devices; alone no logits come to the host, whatever is asked of them; and
sentences where there is no device. Skips without the emulated driver, shared/testdata or Python's gguf and numpy."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from clitest import BUILD, done, folder, has, is_, make_model, ok, run, skip_all  # noqa: E402

EMULATED = os.path.join(BUILD, "tests", "cuda", "emulated")
LEFT = "emulated CUDA device: at exit"
if not os.path.exists(os.path.join(EMULATED, "libcuda.so.1")):
    skip_all("no emulated CUDA device was built")
if os.environ.get("SC_SANITIZE", "no") != "no":
    skip_all("sanitizers want to be the first library")
model, why = make_model("tiny.gguf", "--quant", "Q4_K", "--layers", "3")
if not model:
    skip_all(why)
PROMPTS = ["-p", "The quick brown fox", "-p", "One two three four five six seven", "-n", 3, "--temp", 0, "--json", "--logprobs", 3]


def command(devices, *args, settings="", driver=True):
    env = {"SC_EMULATED_CUDA": settings}
    if driver:
        env["LD_LIBRARY_PATH"] = EMULATED + ":" + os.environ.get("LD_LIBRARY_PATH", "")
    return run(*args, "-m", model, *(("--device", devices) if devices else ()), env=env)


def on(devices, *args, **how):
    return command(devices, "run", *PROMPTS, *args, **how)


def write(name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    return path


right = on(None)
ok(right.status == 0, "on the processor", right.err)
cases = json.loads(right.out)["cases"] if right.status == 0 else None
for devices, args, settings in (("cuda:0", [], ""), ("cuda:0,cpu", [], ""), ("cpu,cuda:1,cuda:0", [], "devices=2"), ("cuda:0", ["--kv", "q8_0"], "")):
    want = cases if "--kv" not in args else json.loads(on(None, *args).out)["cases"]
    r = on(devices, "--cuda", "untested", *args, settings=settings)
    name = " ".join([devices, *args])
    if ok(r.status == 0, f"on {name}", r.err):
        is_(json.loads(r.out)["cases"], want, f"{name}: the processor's answers")
    ok(LEFT not in r.err, f"{name}: nothing is left on a device", r.err)

# One process and one device: tokens are chosen there, and of the logits no row comes to the host.
REFERENCE = write("reference.json", right.out)
TEXT = write("text.txt", "It was a bright cold day in April, and the clocks were striking thirteen.")
SCHEMA = write("schema.json", '{"enum": ["yes", "no", "perhaps"]}')
SAMPLED = ["-p", "Once upon a time", "-p", "Two", "-p", "One two three", "-n", 2, "--parallel", 2, "--seed", 7, "--ignore-eos"]
ROW = 4 * json.loads(run("inspect", model, "--json").out)["metadata"]["tokenizer.ggml.tokens"]["count"]
for args in (["run", *SAMPLED, "--json", "--logprobs", 5],
             ["run", *SAMPLED, "--temp", 1.5, "--top-k", 0, "--top-p", 0.9, "--repeat-penalty", 1.3, "--frequency-penalty", 0.4],
             ["run", "-p", "Is it?", "-n", 12, "--json-schema", SCHEMA, "--seed", 3],
             ["chat", "--once", "Hello", "--seed", 5, "--ctx", 24, "--no-history"],
             ["eval", "--text", TEXT, "--ctx", 12],
             ["eval", "--reference", REFERENCE, "--json"]):
    want, r = command(None, *args), command("cuda:0", *args, "--cuda", "untested", settings="tell=1")
    name = " ".join(map(str, args[:2]))
    if ok(want.status == 0 and r.status == 0, f"{name}: done", want.err, r.err):
        is_(r.out, want.out, f"{name}: as on the processor")
    back = re.search(r"(\d+) bytes came back", r.err)
    ok(back and 0 < int(back[1]) < ROW, f"{name}: less comes back than one row of logits ({ROW} bytes)", r.err)
r = command("cuda:0", "bench", "--pp", 20, "--tg", 2, "--batch", "1,2", "--reps", 1, "--cuda", "untested", settings="tell=1")
back = re.search(r"(\d+) bytes came back", r.err)
ok(r.status == 0 and all(name in r.out for name in ("pp20 ", "tg2 ", "batch2 ")), "bench", r.out, r.err)
ok(back and 0 < int(back[1]) < ROW, "bench: tokens are chosen there, too", r.err)

r = on("cuda:0")
ok(r.status != 0, "kernels that no device has proved are not used unasked")
has(r.err, "--cuda untested", "which says how")
r = run("probe", "--json", "--cuda", "untested", "--threads", 1,
        env={"SC_EMULATED_CUDA": "", "LD_LIBRARY_PATH": EMULATED + ":" + os.environ.get("LD_LIBRARY_PATH", "")})
gpus = json.loads(r.out)["gpus"] if r.status == 0 else []
ok(len(gpus) == 1 and gpus[0]["measured"] and min(gpus[0][k] for k in ("read", "to_device", "from_device")) > 0 and gpus[0]["peers"] == {} and
   all(set(rows) == {"1", "8", "512"} and min(rows.values()) > 0 for rows in (gpus[0]["attention"], *gpus[0]["rates"].values())) and
   set(gpus[0]["rates"]) == set(json.loads(r.out)["rates"]), "probe measures a device", r.out, r.err)
# Two, as lines for a topology file: a plan has nothing left to guess of them.
r = run("probe", "--cuda", "untested", "--threads", 1,
        env={"SC_EMULATED_CUDA": "devices=2", "LD_LIBRARY_PATH": EMULATED + ":" + os.environ.get("LD_LIBRARY_PATH", "")})
ok(r.status == 0 and 'peers: {"cuda:1": ' in r.out and 'peers: {"cuda:0": ' in r.out and r.out.count("back: ") == 2, "probe measures two, and the way between them",
   r.out, r.err)
topology = os.path.join(os.path.dirname(model), "probed.yaml")
with open(topology, "w") as f:
    f.write(f"nodes:\n  box:\n    ram: 8GiB\n{r.out}links: {{default: {{rtt: 1ms, rate: 1Gbit/s}}}}\n")
r = run("plan", "-m", model, "--topology", topology, "--json")
ok(r.status == 0 and json.loads(r.out)["guessed"] == [], "a plan knows all of its devices", r.out, r.err)
r = command(None, "run", "-p", "Hi", "-n", 1, "--cuda", "untested")
ok(r.status == 0 and "no GPU is named" in r.err, "kernels for GPUs without a GPU: the processor computes, and says so", r.err)
doctor = run("doctor", env={"SC_EMULATED_CUDA": "devices=2,memory=2048", "LD_LIBRARY_PATH": EMULATED + ":" + os.environ.get("LD_LIBRARY_PATH", "")})
ok(all(f"cuda:{i}: emulated (9.0), 2.0 GiB" in doctor.out for i in (0, 1)), "doctor names the devices", doctor.out)
r = on("cuda:3", "--cuda", "untested")
ok(r.status != 0, "a device that is not there")
has(r.err, "cuda:3", "is named")
r = on("cuda:0", "--cuda", "untested", settings="memory=1")
ok(r.status != 0 and LEFT not in r.err, "too little memory", r.err)
has(r.err, "MiB", "with numbers")
if not any(os.path.exists(os.path.join(d, "libcuda.so.1")) for d in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")):
    r = on("cuda:0", "--cuda", "untested", driver=False)
    ok(r.status != 0, "no driver")
    has(r.err, "driver", "which is said")
    r = on("cuda:0,cpu", "--cuda", "untested", driver=False)
    ok(r.status != 0, "no driver, and a worker process that needs one")
    is_(r.err.count("driver"), 1, "which is said once", r.err)
    has(r.err, "did not start", "and that it is the end")
done()
