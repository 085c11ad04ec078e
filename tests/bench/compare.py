#!/usr/bin/env python3
"""Stagecoach and llama.cpp in turn on the same files, and the ratios: what ./dev bench runs.

    compare.py --program build/stagecoach [--peer PYTHON SCRIPT] -m FILE [-m FILE ...]
               [--threads 2,1] [--rounds 3] [--pp 512] [--tg 64] [--batch 1,2,4,8] [--depth 0] [--isa CAP] [--json]

Every round runs both programs once for each file and number of threads, the other one first every second time, so that a
machine that grows slower, or a neighbour's burst, meets both. A ratio is of one round's two figures; shown are the median, the
smallest and the largest, beside each side's best figure. Without --peer only our own figures. Markdown on stdout (or one JSON
object), what it is doing on stderr. Exit status: 0 done, 1 a program failed, 2 wrong usage."""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys

TELLING_FLAGS = ("avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_int8 amx_bf16 "
                 "asimd asimddp i8mm sve bf16").split()
FIGURE = re.compile(r"^(pp|tg|batch)(\d+) (\d+(?:\.\d+)?)$")
RUN_SECONDS = 1800  # one run of one program; what takes longer hangs


class Failed(Exception):
    pass


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def cpuinfo(key):
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return ""


def machine():
    flags = (cpuinfo("flags") or cpuinfo("Features")).split()
    memory = 0
    for line in open("/proc/meminfo", encoding="utf-8"):
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) * 1024
    return {
        "processor": cpuinfo("model name") or platform.machine(),
        "family": "/".join(filter(None, (cpuinfo("cpu family"), cpuinfo("model")))),
        "flags": [f for f in TELLING_FLAGS if f in flags],
        "processors": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in flags,
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
    }


def first_line(*command):
    try:
        p = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return (p.stdout or p.stderr).strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def figures(who, command):
    """{figure: tokens/s} that a program prints, in its order."""
    try:
        p = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    except OSError as e:
        raise Failed(f"{who}: {command[0]}: {e.strerror}") from e
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{who}: no end after {RUN_SECONDS} s: {' '.join(command)}") from e
    found = {m[1] + m[2]: float(m[3]) for m in map(FIGURE.match, p.stdout.splitlines()) if m}
    if p.returncode != 0 or not found:
        last = (p.stderr.strip() or p.stdout.strip() or "nothing was said").splitlines()[-1]
        raise Failed(f"{who}: status {p.returncode}, {len(found)} figures: {last[:300]}\n  {' '.join(command)}")
    return found


def measure(a, file, threads):
    """{figure: {"ours": [...], "theirs": [...]}}, a value a round."""
    sizes = ["--pp", str(a.pp), "--tg", str(a.tg), "--batch", a.batch, "--depth", str(a.depth), "--reps", str(a.reps)]
    ours = [a.program, "bench", "-m", file, "--threads", str(threads), *sizes, *(["--isa", a.isa] if a.isa else []), *a.ours]
    sides = [("ours", "stagecoach", ours)]
    if a.peer:
        sides.append(("theirs", "llama.cpp", [*a.peer, "bench", file, "-t", str(threads), *sizes]))
    result = {}
    for r in range(a.rounds):
        for side, who, command in sides if r % 2 == 0 else reversed(sides):
            say(f"{os.path.basename(file)}, {threads} thread{'s' if threads > 1 else ''}, round {r + 1} of {a.rounds}: {who}")
            for name, value in figures(who, command).items():
                result.setdefault(name, {}).setdefault(side, []).append(value)
    return result


def summary(values):
    """Of one figure's rounds. Ratios are of figures that were taken side by side."""
    s = {"ours": max(values.get("ours", [0])), "rounds_ours": values.get("ours", [])}
    if values.get("theirs") and len(values["theirs"]) == len(s["rounds_ours"]):
        ratios = [o / t for o, t in zip(values["ours"], values["theirs"])]
        s.update(theirs=max(values["theirs"]), rounds_theirs=values["theirs"], ratio_median=statistics.median(ratios),
                 ratio_min=min(ratios), ratio_max=max(ratios))
    return s


def table(results):
    lines = ["| file | threads | figure | ours | llama.cpp | ratio | smallest to largest |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for r in results:
        peer = f"{r['theirs']:.1f} | {r['ratio_median']:.2f} | {r['ratio_min']:.2f} to {r['ratio_max']:.2f}" if "theirs" in r else "– | – | –"
        lines.append(f"| {r['file']} | {r['threads']} | {r['figure']} | {r['ours']:.1f} | {peer} |")
    return "\n".join(lines)


def numbers(text):
    try:
        values = [int(x) for x in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': numbers from 1 on are expected, separated by commas (2,1)")
    return values


def number(low):
    def parse(text):
        if not text.isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(f"'{text}': a whole number from {low} on is expected")
        return int(text)
    return parse


def arguments():
    cpus = len(os.sched_getaffinity(0))
    p = argparse.ArgumentParser(prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", required=True, help=argparse.SUPPRESS)
    p.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCRIPT"))
    p.add_argument("--peer-version", default="unknown", help=argparse.SUPPRESS)
    p.add_argument("--command", help=argparse.SUPPRESS)  # as it was typed
    p.add_argument("-m", "--model", action="append", required=True, metavar="FILE")
    p.add_argument("--threads", type=numbers, default=[cpus, 1] if cpus > 1 else [1], metavar="LIST")
    p.add_argument("--rounds", type=number(1), default=3)
    p.add_argument("--reps", type=number(1), default=2, help="repetitions within a run, of which the best counts")
    p.add_argument("--pp", type=number(1), default=512)
    p.add_argument("--tg", type=number(1), default=64)
    p.add_argument("--depth", type=number(0), default=0)
    p.add_argument("--batch", default="1,2,4,8", type=lambda s: ",".join(map(str, numbers(s))))
    p.add_argument("--isa", help="cap of our kernels (the peer's are fixed when it is built)")
    p.add_argument("--json", action="store_true")
    p.add_argument("ours", nargs="*", help="after --: more arguments for stagecoach bench")
    a = p.parse_args()
    for f in a.model:
        if not os.path.isfile(f):
            p.error(f"{f}: there is no such file")
    return a


def main():
    a = arguments()
    about = {"machine": machine(), "stagecoach": first_line(a.program, "--version"),
             "peer": f"llama-cpp-python {a.peer_version}" if a.peer else None,
             "command": a.command or " ".join(sys.argv)}
    results = []
    try:
        for file in a.model:
            for threads in a.threads:
                for figure, values in measure(a, file, threads).items():
                    results.append({"file": os.path.basename(file), "threads": threads, "figure": figure, **summary(values)})
    except Failed as e:
        say(str(e))
        return 1
    if a.json:
        print(json.dumps({**about, "rounds": a.rounds, "results": results}))
        return 0
    m = about["machine"]
    print(f"Machine: {m['processor']} (family/model {m['family']}{', virtual' if m['virtual'] else ''}), {m['processors']} processors, "
          f"{m['memory_gib']} GiB, {' '.join(m['flags'])}, Linux {m['kernel']}.")
    print(f"{about['stagecoach']}{', beside ' + about['peer'] if a.peer else ''}; tokens/s, the best of {a.rounds} alternating rounds; ratios round by round.\n")
    print(f"    {about['command']}\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
