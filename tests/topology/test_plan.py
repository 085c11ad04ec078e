"""stagecoach plan: output, JSON, sums, wrong input. TAP; makes header-only models, needs nothing else."""
import json
import os
import sys

sys.path[:0] = [os.path.join(os.environ.get("SC_SRC", "."), "tests/cli"), os.path.join(os.environ.get("SC_SRC", "."), "tests/topology")]
from clitest import SRC, done, folder, has, is_, ok, run  # noqa: E402
from header_model import make  # noqa: E402


def write(name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def plan(model, topology, *args):
    r = run("plan", "-m", model, "--topology", topology, "--json", *args)
    return json.loads(r.out) if r.status == 0 else r


def example(name):
    return os.path.join(SRC, "examples", name + ".yaml")


m70 = make(os.path.join(folder, "70b.gguf"), "70b", "Q4_K_M")
m8 = make(os.path.join(folder, "8b.gguf"), "8b", "Q4_K_M")
moe = make(os.path.join(folder, "moe.gguf"), "moe", "Q4_K_M")
tiny = make(os.path.join(folder, "tiny.gguf"), "tiny", "Q8_0")

# --- the form ---
KEYS = {"model": dict, "objective": str, "prompt_share": float, "stages": list, "predicted": dict, "bottleneck": str, "bound": float, "gap": float, "failover": str,
        "cost_per_mtok": float, "advice": list, "guessed": list, "value_ms": float, "watts": float, "placement_bound_tokens_per_s": float}
for model, topology, layers in ((m70, "two-pcs", 80), (m8, "homelab", 32), (moe, "homelab", 32)):
    for objective in ("latency", "throughput", "balanced"):
        p, name = plan(model, example(topology), "--objective", objective), f"{topology} {objective}"
        if not ok(isinstance(p, dict), f"{name}: a plan", getattr(p, "err", "")):
            continue
        wrong = [k for k, t in KEYS.items() if not isinstance(p.get(k), t)]
        is_(wrong, [], f"{name}: keys and types")
        stages = p["stages"]
        chain = [s["layers"] for s in stages]
        ok(chain[0][0] == 0 and chain[-1][1] == layers - 1 and all(b[0] == a[1] + 1 for a, b in zip(chain, chain[1:])), f"{name}: a chain", chain)
        nodes = [s["node"] for i, s in enumerate(stages) if i == 0 or stages[i - 1]["node"] != s["node"]]
        is_(len(nodes), len(set(nodes)), f"{name}: each node once")
        ok(all(sum(v for k, v in s["bytes"].items() if k != "disk") <= s["memory"] for s in stages), f"{name}: it fits", stages)
        ok(p["gap"] == 0 and p["bound"] <= p["value_ms"], f"{name}: proved best")
        ok(p["failover"] in ("identical", "continuing", "none"), f"{name}: failover")
        times = sum(sum(s["predicted_ms"][k] for k in ("decode", "hop")) for s in stages)
        one = 1000 / p["predicted"]["tokens_per_s_1"]
        ok(0 <= one - times <= 5.1, f"{name}: one token takes its stages and hops (and the way back)", times, one)
        ok(p["predicted"]["tokens_per_s_n"] >= p["predicted"]["tokens_per_s_1"] * 0.99, f"{name}: several are no slower in sum")

# --- objectives, settings ---
v = {o: plan(m70, example("two-pcs"), "--objective", o, "--parallel", 8, "--ctx", 2048) for o in ("latency", "throughput")}
ok(v["throughput"]["predicted"]["tokens_per_s_n"] >= v["latency"]["predicted"]["tokens_per_s_n"] * 0.97, "throughput gives more for many")
ok(v["latency"]["predicted"]["tokens_per_s_1"] >= v["throughput"]["predicted"]["tokens_per_s_1"] * 0.999, "latency gives more for one")
kv = {t: sum(s["bytes"]["kv"] for s in plan(m8, example("homelab"), "--kv", t)["stages"]) for t in ("f16", "f32", "q8_0")}
ok(kv["f32"] == 2 * kv["f16"] and 0.5 * kv["f16"] < kv["q8_0"] < 0.6 * kv["f16"], "bytes of the KV cache by type", kv)
is_(kv["f16"], 32 * 8192 * 4 * 2 * 8 * 128 * 2, "and exactly: layers, positions, sequences, K and V, heads, width, bytes")
wire = {t: plan(m70, example("two-pcs"), "--wire", t)["stages"][1]["bytes"]["wire"] for t in ("f32", "f16")}
ok(0.49 < wire["f16"] / wire["f32"] < 0.51, "f16 on the wire takes half", wire)
p = plan(m8, write("small.yaml", "nodes:\n  a: {ram: 4GiB, threads: 4, address: tcp://a:1}\n  b: {ram: 3GiB, threads: 4, address: tcp://b:1}\n"))
ok(p["model"]["ctx_lowered"] and p["model"]["ctx"] < 8192 and p["model"]["ctx"] % 256 == 0, "a context that was not asked for is lowered", p["model"])
more = plan(m8, os.path.join(folder, "small.yaml"), "--ctx", p["model"]["ctx"] + 256)
ok(getattr(more, "status", 0) == 1, "256 more do not fit", more)
ok(len(p["guessed"]) >= 4 and any("guess" in s for s in p["guessed"]), "what was not measured is named", p["guessed"])
is_(p["cost_per_mtok"], None, "no price, no cost")

# --- what does not fit ---
r = run("plan", "-m", m70, "--topology", os.path.join(folder, "small.yaml"))
ok(r.status == 1 and r.out == "", "too large: status 1, nothing on stdout")
for part in ("the model does not fit", "are missing", " bytes;", "a 3.", "b 2.", "--ctx"):
    has(r.err, part, f"too large: {part}")

# --- nodes that can hold nothing ---
little = write("little.yaml", """nodes:
  crumb: {ram: 100MiB, threads: 4, address: "tcp://c:1"}
  big: {ram: 64GiB, threads: 16, address: "tcp://b:1"}
pins: [{never: apart, what: 0-31}]
""".replace("pins", "  apart: {ram: 64GiB, threads: 4, address: \"tcp://d:1\"}\npins"))
p = plan(m8, little)
is_([s["node"] for s in p["stages"]], ["big"], "a node that holds no layer is left out, the rest is planned")
is_({x["node"]: x["why"].split(":")[0] for x in p["left_out"]}, {"crumb": "no layer fits", "apart": "pins keep all layers away"}, "and why")
out = run("plan", "-m", m8, "--topology", little).out
for part in ("crumb is left out: no layer fits: the smallest takes ", "apart is left out: pins keep all layers away"):
    has(out, part, f"for people, too: {part}")
is_(plan(m8, example("two-pcs"))["left_out"], [], "nobody is left out of others")

# --- nodes that only slow it down ---
slow = write("slow.yaml", """nodes:
  fast: {ram: 64GiB, threads: 16, address: "tcp://f:1", profile: {cpu: {read: 200GB/s, Q4_K: 4TOP/s, Q6_K: 4TOP/s}}}
  snail: {ram: 64GiB, threads: 2, address: "tcp://s:1", profile: {cpu: {read: 5GB/s, Q4_K: 50GOP/s, Q6_K: 50GOP/s}}}
links: {default: {rtt: 5ms, rate: 100Mbit/s}}
""")
p = plan(m8, slow, "--objective", "latency")
is_([s["node"] for s in p["stages"]], ["fast"], "a slow node is dropped")
ok(any(s.startswith("drop node snail: ") and "% faster" in s for s in p["advice"]), "and what that buys is said", p["advice"])
pinned = plan(m8, write("pinned.yaml", open(slow, encoding="utf-8").read() + "pins: [{layers: 0-0, node: snail}]\n"), "--objective", "latency")
said = [int(s.split(": ")[1].split("%")[0]) for s in p["advice"] if s.startswith("drop node snail")]
ok(said and pinned["value_ms"] >= p["value_ms"] * (1 + (said[0] - 1) / 100), "by as much as planning with it shows", said, pinned["value_ms"], p["value_ms"])

# --- layers on disk ---
p = plan(make(os.path.join(folder, "70b-Q4_K.gguf"), "70b", "Q4_K"), example("prima-home"), "--objective", "latency")
ok(sum(s["bytes"]["disk"] for s in p["stages"]) > 0, "prima's home cluster: layers stay on disk")
ok(540 <= 1000 / p["predicted"]["tokens_per_s_1"] <= 1200, "a 70B takes about a second there, more than the floor of 540 ms", p["predicted"])

# --- Helix' 24 nodes ---
p = plan(make(os.path.join(folder, "70b-F16.gguf"), "70b", "F16"), example("helix-24"), "--objective", "throughput", "--no-advice")
counts = {k: max([s["layers"][1] - s["layers"][0] + 1 for s in p["stages"] if s["node"].startswith(k)] + [0]) for k in ("a100", "l4", "t4")}
ok(counts["a100"] <= 12 and counts["l4"] <= 7 and counts["t4"] <= 4, "helix-24: no machine takes more layers than the paper lets it", counts)

# --- for people ---
r = run("plan", "-m", m8, "--topology", example("homelab"))
for part in ("stage ", "layers", "tower/cuda:0", "[#", "one sequence", "first token", "bottleneck", "bound ", "a node fails", "EUR for a million tokens"):
    has(r.out, part, f"table: {part}")
ok("\x1b" not in r.out and r.err == "", "no colors, nothing on stderr")
is_(run("plan", "-m", m8, "--topology", example("homelab")).out, r.out, "the same input gives the same plan")

# --- what a load is like: the head is for answers alone ---
even = "{ram: 16GiB, profile: {cpu: {read: 200GB/s, Q4_K: 60GOP/s, Q6_K: 60GOP/s}}}"
even = write("even.yaml", f"nodes:\n  a: {even}\n  b: {even}\n")
p = {x: plan(m8, even, "--objective", "throughput", "--parallel", 16, "--prompt-share", x, "--ctx", 512) for x in (0, 2, 100)}
last = {x: p[x]["stages"][1]["layers"][1] - p[x]["stages"][1]["layers"][0] + 1 for x in p}
ok(last[0] < last[2] <= last[100] <= 16, "the last stage has fewer layers for answers alone, more for prompts", last)
is_(last[2], (lambda s: s["layers"][1] - s["layers"][0] + 1)(plan(m8, even, "--objective", "throughput", "--parallel", 16, "--ctx", 512)["stages"][1]), "two prompt rows unless told")
r = run("plan", "-m", m8, "--topology", even, "--prompt-share", "-1")
ok(r.status == 2 and "--prompt-share" in r.err and "10000" in r.err, "a share below nothing", r.err)

# --- how long to look: many odd machines with hardly enough memory ---
lines = [f"  n{i}: {{ram: {3150 + i * 137 % 900}MiB, profile: {{cpu: {{read: {20 + i * 37 % 60}GB/s, Q4_K: {200 + i * 91 % 500}GOP/s, Q6_K: {150 + i * 53 % 400}GOP/s}}}}}}"
         for i in range(14)]
lines += ["links:", "  default: {rtt: 0.3ms, rate: 1Gbit/s}"]
lines += [f"  n{j}-n{i}: {{rtt: {0.2 + i * j % 7}ms, rate: 2.5Gbit/s}}" for i in range(14) for j in range(i) if (i * 5 + j * 3) % 4 == 0]
many = write("many.yaml", "nodes:\n" + "\n".join(lines) + "\n")
m70 = make(os.path.join(folder, "70b-Q4_K_M.gguf"), "70b", "Q4_K_M")
p = {x: plan(m70, many, "--ctx", 512, "--parallel", 1, "--objective", "latency", "--effort", x, "--no-advice") for x in (0, 0.001, 1, 20)}
ok(p[0]["gap"] > p[20]["gap"] and p[0.001]["gap"] > p[20]["gap"] and p[0.001]["value_ms"] >= p[1]["value_ms"] >= p[20]["value_ms"] and p[20]["bound"] * 1.000001 >= p[0.001]["bound"],
   "with more effort the chain and its bound come nearer to each other", [(x, p[x]["value_ms"], p[x]["bound"], p[x]["gap"]) for x in p])
r = run("plan", "-m", m8, "--topology", even, "--effort", "1001")
ok(r.status == 2 and "--effort" in r.err and "1000" in r.err, "a thousand times as long is the most", r.err)

# --- two that dial in; a thin line ---
nat = write("nat.yaml", "nodes:\n  a: {ram: 4GiB}\n  b: {ram: 4GiB}\nlinks: {default: {rtt: 1ms, rate: 1Mbit/s}}\n")
p = plan(m8, nat, "--ctx", 512)
ok(any("relayed by the coordinator" in s for s in p["advice"]), "the relay is named", p["advice"])
p = {w: plan(m8, nat, "--ctx", 512, "--wire", w, "--parallel", 16, "--objective", "throughput") for w in ("f32", "f16", "auto")}
ok(p["f32"]["bottleneck"].startswith("link ") and p["auto"]["model"]["wire"] == "f16", "auto takes f16 where a link is the bottleneck", p["f32"]["bottleneck"])
is_(p["auto"]["predicted"], p["f16"]["predicted"], "and plans with it")
is_(plan(m8, example("two-pcs"), "--wire", "auto")["model"]["wire"], "f32", "and f32 where none is")

# --- wrong input ---
for text, want in (("nodes:\n  a: {ram: 8}\n", "bad.yaml:2:12: ram: \"8\" has no unit"),
                   ("nodes:\n  a: {ram: 64GiB}\npins: [{layers: 30-40, node: a}]\n", "line 3 of the topology pins layers 30-40; the model has 0-31"),
                   ("nodes:\n  a: {ram: 64GiB}\n  b: {ram: 64GiB}\npins: [{head: a}, {never: a, what: head}]\n", "with these pins")):
    r = run("plan", "-m", m8, "--topology", write("bad.yaml", text))
    ok(r.status == 1 and r.out == "" and want in r.err, f"refused: {want}", r.err)
r = run("plan", "-m", m8, "--topology", os.path.join(folder, "none.yaml"))
ok(r.status == 1 and "none.yaml" in r.err, "no such file", r.err)
r = run("plan", "-m", m8, "--topology", slow, "--objective", "speed")
ok(r.status == 2 and "latency, throughput or balanced" in r.err, "an unknown objective", r.err)
r = run("plan", "-m", tiny, "--topology", slow)
ok(r.status == 0, "a tiny model", r.err)
done()
