"""Reads Prometheus' text form as strictly as promtool does: what is wrong with it, in sentences. Used by the tests of /metrics."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def number(text):
    return {"+Inf": math.inf, "-Inf": -math.inf, "NaN": math.nan}.get(text) if text in ("+Inf", "-Inf", "NaN") else float(text)


def read(text):
    """({(name, labels): value}, {family: type}, [what is wrong])"""
    samples, types, helps, wrong, current, closed = {}, {}, set(), [], None, set()
    if not text.endswith("\n"):
        wrong.append("the last line has no end")
    for i, line in enumerate(text.splitlines(), 1):
        if line.startswith("# "):
            m = re.match(rf"# (HELP|TYPE) ({NAME})(?: (.*))?$", line)
            if not m:
                wrong.append(f"{i}: neither HELP nor TYPE: {line}")
                continue
            kind, family, rest = m.groups()
            if kind == "HELP":
                if family in helps:
                    wrong.append(f"{i}: a second HELP for {family}")
                helps.add(family)
                if not rest:
                    wrong.append(f"{i}: HELP says nothing")
            else:
                if family in types:
                    wrong.append(f"{i}: a second TYPE for {family}")
                if rest not in ("counter", "gauge", "histogram", "summary", "untyped"):
                    wrong.append(f"{i}: type {rest}")
                types[family] = rest
            if current and current != family:
                closed.add(current)
            if family in closed:
                wrong.append(f"{i}: {family} comes again")
            current = family
            continue
        m = SAMPLE.match(line)
        if not m:
            wrong.append(f"{i}: no sample: {line}")
            continue
        name, labels, value = m.groups()
        rest = labels or ""
        pairs = []
        while rest:
            one = LABEL.match(rest)
            if not one:
                wrong.append(f"{i}: labels: {labels}")
                break
            pairs.append(one.groups())
            rest = rest[one.end():]
        if len({k for k, _ in pairs}) != len(pairs):
            wrong.append(f"{i}: a label twice")
        family = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(re.sub(r"_(bucket|sum|count)$", "", name)) == "histogram" else name
        if family != current:
            wrong.append(f"{i}: {name} stands under {current}")
        if family not in types or family not in helps:
            wrong.append(f"{i}: {name} has no TYPE or HELP")
        if types.get(family) == "counter" and not name.endswith("_total"):
            wrong.append(f"{i}: the counter {name} does not end in _total")
        key = (name, tuple(sorted(pairs)))
        if key in samples:
            wrong.append(f"{i}: {key} twice")
        try:
            samples[key] = number(value)
        except ValueError:
            wrong.append(f"{i}: value {value}")
            continue
        if types.get(family) in ("counter", "histogram") and not samples[key] >= 0:
            wrong.append(f"{i}: {name} is {value}")
    wrong += histograms(samples, types)
    return samples, types, wrong


def histograms(samples, types):
    wrong = []
    for family in (f for f, t in types.items() if t == "histogram"):
        groups = {}
        for (name, labels), value in samples.items():
            if name == family + "_bucket":
                rest = tuple(p for p in labels if p[0] != "le")
                groups.setdefault(rest, []).append((number(dict(labels)["le"]), value))
        if not groups:
            wrong.append(f"{family} has no buckets")
        for rest, buckets in groups.items():
            buckets.sort()
            counts = [c for _, c in buckets]
            if counts != sorted(counts) or buckets[-1][0] != math.inf:
                wrong.append(f"{family}: buckets {buckets}")
            if samples.get((family + "_count", rest)) != counts[-1] or (family + "_sum", rest) not in samples:
                wrong.append(f"{family}: count and sum do not fit the buckets")
    return wrong
