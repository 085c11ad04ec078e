"""run, eval and bench on a tiny model of random weights: TAP. Skips without shared/testdata or Python's gguf and numpy."""
import json
import os
import re
import signal
import subprocess
import sys
import time

from clitest import PROGRAM, done, folder, has, is_, make_model, ok, run, shared, skip, skip_all

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "2")
if not model:
    skip_all(why)


def answer(*args, data=b""):
    r = run("run", "-m", model, *args, data=data)
    ok(r.status == 0, f"run {' '.join(map(str, args))[:60]}", r.err)
    return r


# --- run ---
r = answer("-p", "The quick brown fox", "-n", 8, "--temp", 0)
ok(r.out.endswith("\n") and "loaded in" in r.err and "generated 8 tokens" in r.err, "text on stdout, figures on stderr", r.out, r.err)
is_(answer("-p", "The quick brown fox", "-n", 8, "--temp", 0, "-q").err, "", "--quiet")
j = json.loads(answer("-p", "The quick brown fox", "-n", 8, "--temp", 0, "--json").out)
is_(sorted(j), ["cases", "model"], "--json: model and cases")
is_(j["model"], "tiny.gguf", "the file's name")
case = j["cases"][0]
is_(sorted(case), ["greedy", "prompt", "text", "tokens"], "no top without --logprobs")
ok(case["tokens"][0] == 1 and len(case["greedy"]) == 8, "BOS, and as many tokens as asked for")
is_(case["text"] + "\n", r.out, "the same text")
full = json.loads(answer("-p", "The quick brown fox", "-n", 8, "--temp", 0, "--json", "--logprobs", 5).out)["cases"][0]
is_(full["greedy"], case["greedy"], "--logprobs changes nothing")
is_(len(full["top"]), len(full["tokens"]) + 7, "a row for every computed position")
ok(all(len(row) == 5 and row == sorted(row, key=lambda p: (-p[1], p[0])) for row in full["top"]), "best first")
is_([row[0][0] for row in full["top"][len(full["tokens"]) - 1:]], full["greedy"], "whose best are the greedy tokens")

prompts = ["One", "Two two two two two two", "Three " * 40]
args = [x for p in prompts for x in ("-p", p)]
together = json.loads(answer(*args, "-n", 6, "--temp", 0, "--json", "--logprobs", 3).out)["cases"]
alone = [json.loads(answer("-p", p, "-n", 6, "--temp", 0, "--json", "--logprobs", 3).out)["cases"][0] for p in prompts]
is_(together, alone, "company changes nothing, to the last digit")
is_(json.loads(answer(*args, "-n", 6, "--temp", 0, "--json", "--logprobs", 3, "--parallel", 2).out)["cases"], alone, "nor fewer slots than prompts")
is_(answer(*args, "-n", 6, "--temp", 0).out, "".join(c["text"] + "\n" for c in alone), "texts in the order of prompts")
is_(answer("-p", "One", "-n", 6, "--temp", 0, "--threads", 1, "--isa", "scalar").out, alone[0]["text"] + "\n", "nor threads, nor the ISA")

warm = ["-p", "One", "-n", 12, "--temp", "1.5", "--top-k", 0, "--top-p", 1, "--min-p", 0]
a, b, c = (answer(*warm, "--seed", s).out for s in (7, 7, 8))
ok(a == b != c, "a seed decides", a, b, c)
seed = answer(*warm)
again = seed.err.split("--seed ")[1].split()[0]
is_(answer(*warm, "--seed", again).out, seed.out, "the seed that was told gives the same text")
forbidden = alone[0]["greedy"][0]
ok(json.loads(answer("-p", "One", "-n", 1, "--temp", 0, "--bias", f"{forbidden}=-inf", "--json").out)["cases"][0]["greedy"] != [forbidden],
   "--bias forbids")
prompt_file = os.path.join(folder, "prompt.txt")
with open(prompt_file, "w") as f:
    f.write("One")
is_(answer("--file", prompt_file, "-n", 6, "--temp", 0).out, alone[0]["text"] + "\n", "--file")
is_(answer("--file", "-", "-n", 6, "--temp", 0, data="One").out, alone[0]["text"] + "\n", "--file - (standard input)")
r = answer("--chat", "-p", "Hi", "-n", 3, "--temp", 0, "--json")
has(r.err, "no chat template", "--chat says when there is no template")
is_(json.loads(answer("-p", "One", "-n", 0, "--json").out)["cases"][0]["greedy"], [], "-n 0")

n_one = len(alone[0]["tokens"])
for args, want in [
    (["-p", "word " * 100, "--ctx", 50], "the context 50 positions; raise --ctx (the model was made for"),
    (["-p", "One", "-p", "word " * 100, "--ctx", 50], "prompt 2 has"),
    (["-p", "One", "--ctx", 50, "-n", 100], f"and 100 more are to come: {n_one + 99} positions, the context has 50; raise --ctx"),
    (["-p", "One", "--bias", "999999=1"], "token 999999; the vocabulary has 0 to 31999"),
    (["-p", "One", "--bias", "nonsense"], '"nonsense" is not ID=BIAS'),
]:
    r = run("run", "-m", model, *args)
    ok(r.status == 2 and r.out == "" and want in r.err, f"refused: {want}", r.status, r.err)
r = answer("-p", "One", "--ctx", 12, "-n", -1, "--ignore-eos", "--json")
is_(len(json.loads(r.out)["cases"][0]["greedy"]), 13 - n_one, "-n -1 fills the context")
has(r.err, "the context of 12 positions is full", "and says so")
r = run("run", "-m", model, "-p", "One", "--isa", "nonsense")
ok(r.status != 0 and "nonsense" in r.err, "an unknown ISA is named", r.err)
levels = r.err[r.err.index("known here: ") + len("known here: "):].split("\n")[0].split(", ")
for level in levels:  # one that this processor lacks is a cap that is not reached: a sentence, and the same answer
    r = run("bench", "-m", model, "--pp", 20, "--tg", 2, "--batch", 1, "--reps", 1, "--isa", level, "--json")
    isa = json.loads(r.out)["isa"] if r.status == 0 else None
    said = re.search(r"--isa (\w+): .* it has (.*); computing with (\w+)", r.err)
    ok(r.status == 0 and (isa == level and not said or said and said[1] == level and said[3] == isa and isa in said[2].split(", ")),
       f"bench --isa {level} is or becomes {isa}", r.err)
    is_(answer("-p", "One", "-n", 6, "--temp", 0, "--isa", level).out, alone[0]["text"] + "\n", "and the answer is the same")

# Ctrl-C: what there is stays, the shell sees an interrupted program.
p = subprocess.Popen([PROGRAM, "run", "-m", model, "-p", "One", "-n", "8000", "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
first = p.stdout.read(1)
p.send_signal(signal.SIGINT)
out, err = p.communicate(timeout=60)
ok(p.returncode == -signal.SIGINT and out.endswith(b"\n") and b"generated" in err, "Ctrl-C stops run", p.returncode, out[-100:], err)
p = subprocess.Popen([PROGRAM, "run", "-m", model, "-p", "One", "-n", "8000", "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
p.stdout.read(1)
p.stdout.close()
err = p.stderr.read()
ok(p.wait(60) == 1 and err == b"", "a reader that goes away ends run without a word", err)

# --- devices ---
usual = json.loads(answer("-p", "One", "-n", 6, "--temp", 0, "--json").out)["cases"]
for where in (["--device", "cpu:1"], ["--device", "cpu:0,cpu:1"], ["--workers", 2, "--threads", 1, "--weights", "file", "--pin", "no"]):
    is_(json.loads(answer("-p", "One", "-n", 6, "--temp", 0, "--json", *where).out)["cases"], usual, f"{' '.join(map(str, where))}: the same tokens")
for args, status, want in [(["--device", "tpu:0"], 2, 'unknown device "tpu:0"; known: cpu,'), (["--device", "cpu,cpu:0"], 2, "cpu:0 a part of them"),
                           (["--device", "cpu:0,nothing"], 2, 'unknown device "nothing"'), (["--vram", "cuda:0=1GiB"], 2, "the devices are cpu"),
                           (["--device", "cuda:15", "--cuda", "untested"], 1, "cuda:15"), (["--topology", "x.yaml", "--pin", "no"], 2, "--pin with --topology"),
                           (["--topology", "x.yaml", "--device", "cpu"], 2, "say it to the workers there")]:
    r = run("run", "-m", model, "-p", "One", *args)
    ok(r.status == status and want in r.err, f"{' '.join(args)}: {want}", r.status, r.err)

# --- eval ---
compare = shared("testdata", "compare.py")
reference = os.path.join(folder, "ref.json")
r = run("run", "-m", model, "-p", "The quick brown fox", "-p", "Once", "-n", 6, "--temp", 0, "--ignore-eos", "--json", "--logprobs", 40)
with open(reference, "w") as f:
    f.write(r.out)
r = run("eval", "-m", model, "--reference", reference)
ok(r.status == 0 and r.out.splitlines()[-1].startswith("kld 0.0000") and r.out.endswith("top1 1.0000\n"), "eval of our own answers: no distance", r.out, r.err)
other, why = make_model("other.gguf", "--quant", "Q8_0", "--layers", "2", "--seed", "2")
r = run("eval", "-m", other, "--reference", reference)
line = r.out.splitlines()[-1] if r.out else ""
ok(r.status == 0 and line.startswith("kld ") and not line.startswith("kld 0.0000"), "eval of another model: a distance", r.out, r.err)
r = run("eval", "-m", other, "--reference", reference, "--json")
theirs = os.path.join(folder, "theirs.json")
with open(theirs, "w") as f:
    f.write(r.out)
has(r.err, line, "--json: the distance on stderr")
if compare:
    said = subprocess.run([sys.executable, compare, reference, theirs], capture_output=True, text=True).stdout.strip()
    is_(said, line + " greedy 2/2 tokens OK", "compare.py finds the same")
else:
    skip("compare.py is not there")
with open(reference) as f:
    ref = json.load(f)
ref["cases"][0]["tokens"][1] += 1
with open(reference, "w") as f:
    json.dump(ref, f)
r = run("eval", "-m", model, "--reference", reference)
ok(r.status == 1 and "case 1" in r.err and "tokens" in r.err and r.out.startswith("kld "), "other tokens are told, status 1", r.out, r.err)
for change, want in [({"cases": []}, "0 cases"), ({"cases": [{}]}, 'cases[0]: "prompt" is missing'), ([], "an object with"),
                     ({"cases": [{"prompt": "x", "tokens": [99999999], "greedy": [], "top": []}]}, '"tokens"[0] is no token'),
                     ({"cases": [{"prompt": "One", "tokens": [1], "greedy": [], "top": [[1]]}]}, '"top"[0][0]')]:
    with open(reference, "w") as f:
        json.dump(change, f)
    r = run("eval", "-m", model, "--reference", reference)
    ok(r.status == 1 and want in r.err, f"a bad reference: {want}", r.status, r.err)
text = os.path.join(folder, "text.txt")
with open(text, "w") as f:
    f.write("It was the best of times, it was the worst of times. " * 12)
r = run("eval", "-m", model, "--text", text, "--ctx", 64)
ok(r.status == 0 and r.out.splitlines()[-1].startswith("ppl ") and "chunks of 64" in r.err, "perplexity", r.out, r.err)
ok(float(r.out.split()[-1]) > 100, "random weights are perplexed")
is_(run("eval", "-m", model, "--text", "-", "--ctx", 64, data=open(text, "rb").read()).out, r.out, "from standard input")
ok(abs(json.loads(run("eval", "-m", model, "--text", text, "--ctx", 64, "--json").out)["ppl"] - float(r.out.split()[-1])) < 1e-3, "--json")
r = run("eval", "-m", model, "--text", "-", data="")
ok(r.status == 1 and "at least 2" in r.err, "no text", r.err)

# --- bench ---
r = run("bench", "-m", model, "--pp", 32, "--tg", 4, "--batch", "1,3", "--reps", 1)
is_([s.split()[0] for s in r.out.splitlines()], ["pp32", "tg4", "batch3"], "bench: its lines", r.err)
ok(all(float(s.split()[1]) > 0 for s in r.out.splitlines()), "with figures")
j = json.loads(run("bench", "-m", model, "--pp", 0, "--tg", 4, "--batch", "2", "--depth", 8, "--reps", 1, "--json").out)
is_([x["name"] for x in j["results"]], ["batch2"], "bench --json")
trace = os.path.join(folder, "bench.trace")
r = run("bench", "-m", model, "--workers", 2, "--threads", 1, "--pp", 40, "--tg", 4, "--batch", 1, "--concurrent", 3, "--depth", 8, "--prefix", 70, "--beside", 120,
        "--reps", 1, "--json", "--trace", trace)
results = json.loads(r.out)["results"]
is_([x["name"] for x in results], ["pp40", "tg4", "concurrent3", "beside120", "prefix70"], "bench over two workers: its figures", r.err)
ok(all(len(x["stages"]) == 2 and x["stages"][0]["steps"] > 0 and 0 < x["saturation"] for x in results[:3]), "what the stages did meanwhile", r.out)
is_([s["rows"] for s in results[2]["stages"]], [3 * (8 + 3)] * 2, "every row went through both", r.out)
ok(results[1]["predicted"] > 0 and results[4]["first_ms"] > 0 and results[4]["again_ms"] > 0, "what the plan promised; a prefix's times", r.out)
ok(0 < results[3]["usual_ms"] <= results[3]["longest_ms"] or results[3]["longest_ms"] > 0, "running answers beside a prompt", r.out)
with open(trace) as f:
    lines = [json.loads(line) for line in f]
rows = [line["rows"] for line in lines if line.get("d") == "step"]
ok(lines[0]["trace"] > 0 and len(rows[-1]) == 16, "the trace: only the other rest is computed", str(rows[-1:]))
done()
