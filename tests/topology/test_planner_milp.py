"""The planner against a solver of mixed integer programs (HiGHS, in scipy) on inputs that brute force cannot do: TAP.

A variable for every node and every range of layers that it could hold, a flow through the cuts between layers, and for every
cut the pair of nodes that meet there. Costs are computed here from the formulas of docs/planning.md."""
import json
import math
import os
import subprocess
import sys

try:
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix
except ImportError as e:
    print(f"1..0 # SKIP Python has no {e.name}")
    sys.exit(0)

LONG = bool(os.environ.get("SC_LONG"))
CASE = os.path.join(os.environ.get("SC_BUILD", "."), "tests/topology/plan_case")


def part_bytes(c, node, weights):
    return sum(w * (b if b > 0 else m) / 8 for w, b, m in zip(weights, node["bits"], c["model"]["bits"]))


def part_memory(c, node, p):
    return math.ceil(part_bytes(c, node, p["weights"]) + part_bytes(c, node, p["experts"])) + p["other"]


def allowed(c, what, layer, i):
    pins = [p for p in c["pins"] if p["what"] == what and (what != 0 or p["first"] <= layer < p["last"])]
    if any(p["never"] and p["node"] == i for p in pins):
        return False
    must = [p["node"] for p in pins if not p["never"]]
    return not must or i in must


def ranges(c, i):
    """{(p, q): bytes that memory lacks} of node i."""
    m, node = c["model"], c["nodes"][i]
    n, found = len(m["layers"]), {}
    for p in range(n):
        if p == 0 and not allowed(c, 1, 0, i):
            continue
        weights = part_memory(c, node, m["embed"]) if p == 0 else 0
        rest = m["scratch"] + m["wire"] + node["reserve"]
        for q in range(p + 1, n + 1):
            if not allowed(c, 0, q - 1, i):
                break
            weights += part_memory(c, node, m["layers"][q - 1])
            rest += m["layers"][q - 1]["kv"]
            w, r = weights, rest
            if q == n:
                if not allowed(c, 2, 0, i):
                    continue
                head = part_memory(c, node, m["head"])
                w += head - (min(head, part_memory(c, node, m["embed"])) if p == 0 and m["tied"] else 0)
                r += m["scratch_head"]
            lacks = max(w + r - node["memory"], 0)
            if r > node["memory"] or (lacks > 0 and node["disk"] <= 0):
                continue
            found[p, q] = lacks
    return found


def products(node, weights, rows):
    return row_times([sum(2 * w / o for w, o in zip(weights, ops)) for ops in node["ops"]], rows)


def row_times(seconds, rows):
    """Microseconds: measured with 1, 8 and 512 rows, in between on the straight line."""
    anchors = [(0, 0.0)] + [(n, n * s * 1e6) for n, s in zip((1, 8, 512), seconds)]
    for (a, low), (b, high) in zip(anchors, anchors[1:]):
        if rows <= b:
            return low + (high - low) * (rows - a) / (b - a)
    return anchors[-1][1] * rows / 512


def costs(c, i, seqs, rows):
    """Running sums of what reading and multiplying layers takes, and the head's: microseconds."""
    m, node = c["model"], c["nodes"][i]
    used = m["used"] / m["experts"] if m["experts"] else 0
    touched = 1 - (1 - used) ** rows if m["experts"] else 0
    read, compute = [0.0], [0.0]
    for p in m["layers"]:
        context = min(c["context"], m["window"]) if p["sliding"] else c["context"]
        b = part_bytes(c, node, p["weights"]) + p["other"] + touched * part_bytes(c, node, p["experts"]) + seqs * context * p["kv_position"]
        t = products(node, p["weights"], rows) + (touched * products(node, p["experts"], rows * used / touched) if touched else 0)
        read.append(read[-1] + b / node["read"] * 1e6)
        compute.append(compute[-1] + t + row_times([context * p["attn_ops"] / ops for ops in node["attn"]], rows))
    head_read = part_memory(c, node, m["head"]) / node["read"] * 1e6
    head_compute = products(node, m["head"]["weights"], seqs)
    return read, compute, head_read, head_compute


class Program:
    def __init__(self):
        self.cost, self.integer, self.rows, self.low, self.high = [], [], [], [], []

    def variable(self, cost=0.0, integer=False):
        self.cost.append(cost)
        self.integer.append(int(integer))
        return len(self.cost) - 1

    def constrain(self, terms, low, high):
        self.rows.append(terms)
        self.low.append(low)
        self.high.append(high)

    def solve(self):
        n = len(self.cost)
        data, row, col = [], [], []
        for i, terms in enumerate(self.rows):
            for j, v in terms:
                row.append(i), col.append(j), data.append(v)
        high = np.full(n, np.inf)
        high[[j for j in range(n) if self.integer[j]]] = 1
        r = milp(np.array(self.cost), integrality=np.array(self.integer), bounds=Bounds(np.zeros(n), high),
                 constraints=LinearConstraint(csr_matrix((data, (row, col)), shape=(len(self.rows), n)), self.low, self.high),
                 options={"mip_rel_gap": 1e-9, "time_limit": 120})
        return r.fun if r.status == 0 else None if r.status == 2 else "time"


def solve(c, seqs, form, weight, prompts=0):
    """Least S (form "sum"), S + weight M ("added") or max(S, weight M) ("max"), with so many prompt rows a sequence."""
    rows = seqs * (1 + prompts)
    m, n, k = c["model"], len(c["model"]["layers"]), len(c["nodes"])
    unit = 1e-3  # milliseconds: HiGHS' tolerances are absolute
    prog, total, busy = Program(), [], {}  # total: terms of S; busy: shared resource or stage -> terms
    starts, ends = {}, {}
    for i in range(k):
        read, compute, head_read, head_compute = costs(c, i, seqs, rows)
        node, mine = c["nodes"][i], []
        for (p, q), lacks in ranges(c, i).items():
            r = read[q] - read[p] + (head_read if q == n else 0)
            us = max(r, compute[q] - compute[p] + (head_compute if q == n else 0)) + node["fixed"]
            copies = ([node["copy"]] if p else []) + ([node["back"]] if q < n else [])
            us += rows * sum(m["copy"] / bps * 1e6 for bps in copies if bps)
            y = prog.variable(integer=True)
            mine.append((y, 1))
            total.append((y, us * unit))
            busy.setdefault(("stage", i), []).append((y, (us + (lacks / node["disk"] * 1e6 if lacks else 0)) * unit))
            if node["bus"] >= 0:
                have, processors = c["groups"][node["bus"]]
                busy.setdefault(("group", node["bus"]), []).append((y, (us * node["processors"] if processors else r * node["read"]) / have * unit))
            starts.setdefault((i, p), []).append((y, 1))
            ends.setdefault((i, q), []).append((y, 1))
        if mine:
            prog.constrain(mine, 0, 1)

    def hop(a, b, amount):
        """amount: terms that are 1 where the hop is taken."""
        latency, bps = c["links"][a * (k + 1) + b]
        wire = rows * (m["token"] if k in (a, b) else m["row"]) / bps * 1e6
        total.extend((y, v * (latency + wire) * unit) for y, v in amount)
        busy.setdefault(("link", a, b), []).extend((y, v * wire * unit) for y, v in amount)
        ga = c["nodes"][a]["uplink"] if a < k else -1
        gb = c["nodes"][b]["uplink"] if b < k else -1
        for g in (ga, gb):
            if g >= 0 and ga != gb:
                busy.setdefault(("group", g), []).extend((y, v * wire * bps / c["groups"][g][0] * unit) for y, v in amount)

    first = [(y, 1) for i in range(k) for y, _ in starts.get((i, 0), [])]
    if not first or not any((i, n) in ends for i in range(k)):
        return None
    prog.constrain(first, 1, 1)
    prog.constrain([(y, 1) for i in range(k) for y, _ in ends.get((i, n), [])], 1, 1)
    for i in range(k):
        hop(k, i, starts.get((i, 0), []))
        hop(i, k, ends.get((i, n), []))
    for cut in range(1, n):
        pairs = {(i, j): prog.variable() for i in range(k) for j in range(k) if i != j and (i, cut) in ends and (j, cut) in starts}
        for (i, j), z in pairs.items():
            hop(i, j, [(z, 1)])
        for i in range(k):
            out, into = [(z, -1) for (a, _), z in pairs.items() if a == i], [(z, -1) for (_, b), z in pairs.items() if b == i]
            if (i, cut) in ends:
                prog.constrain(ends[i, cut] + out, 0, 0)
            if (i, cut) in starts:
                prog.constrain(starts[i, cut] + into, 0, 0)
    if form == "max":
        value = prog.variable(cost=1)
        prog.constrain([(value, 1)] + [(y, -v) for y, v in total], 0, np.inf)
        for terms in busy.values():
            prog.constrain([(value, 1)] + [(y, -v * weight) for y, v in terms], 0, np.inf)
    else:
        for y, v in total:
            prog.cost[y] += v
        if weight > 0:
            value = prog.variable(cost=weight)
            for terms in busy.values():
                prog.constrain([(value, 1)] + [(y, -v) for y, v in terms], 0, np.inf)
    found = prog.solve()
    return found if found is None or found == "time" else found / unit


def truth(c, objective):
    disk = any(node["disk"] > 0 for node in c["nodes"])
    if objective == 0:
        return solve(c, 1, "max", 1) if disk else solve(c, 1, "added", 0)
    if objective == 2:
        return solve(c, 1, "added", c["parallel"] - 1, c["prompt_share"])
    found = [solve(c, c["parallel"] / m, "max", m, c["prompt_share"]) for m in range(1, min(c["parallel"], len(c["nodes"]) + 2) + 1)]
    if "time" in found:
        return "time"
    found = [f for f in found if f is not None]
    return min(found) if found else None


def main():
    count = failed = slow = 0
    for objective, name, cases, nodes, layers in ((0, "latency", 40 if LONG else 8, 7, 20), (1, "throughput", 12 if LONG else 2, 5, 12),
                                                  (2, "balanced", 24 if LONG else 4, 6, 14)):
        for i in range(cases):
            seed, uneven, room = 900 + 31 * i + objective, i % 4 != 0, (1.1, 1.5, 2.5)[i % 3]
            c = json.loads(subprocess.run([CASE, str(seed), str(nodes), str(layers), str(int(uneven)), str(room)], capture_output=True, check=True,
                                          timeout=120).stdout)
            plan, want = c["plans"][objective], truth(c, objective)
            if want == "time":
                slow += 1
                continue
            good = plan is None if want is None else plan is not None and abs(plan["value"] - want) <= 1e-4 * want and plan["gap"] == 0
            count += 1
            failed += not good
            print(f"{'' if good else 'not '}ok {count} - {name}, {nodes} nodes, {layers} layers, seed {seed}: "
                  f"solver {want and round(want, 3)}, planner {plan and round(plan['value'], 3)} us")
            sys.stdout.flush()
    if slow:
        print(f"# {slow} inputs took the solver too long")
    print(f"1..{count}")
    return failed != 0 or count == 0


sys.exit(main())
