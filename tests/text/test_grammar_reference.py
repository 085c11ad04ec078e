#!/usr/bin/env python3
"""Grammars against naive matchers: random GBNF over every short text of a small alphabet; random schemas against jsonschema, what
comes of them and what is let in; patterns against Python's re; numbers against arithmetic. SC_SEED repeats a run."""
import itertools
import json
import os
import random
import re
import subprocess
import sys

try:
    import jsonschema
except ImportError:
    print("1..0 # SKIP python's jsonschema is not there")
    sys.exit(0)

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests/text"))
from random_schemas import PATTERNS, Maker  # noqa: E402

LONG = os.environ.get("SC_LONG") == "1"
SEED = int(os.environ.get("SC_SEED", "1"))
WALK = os.path.join(os.environ.get("SC_BUILD", "build"), "tests/text/walk_grammar")
n_tests = 0


def ok(cond, name, note=""):
    global n_tests
    n_tests += 1
    print(("ok" if cond else "not ok") + " %d - %s" % (n_tests, name))
    if not cond and note:
        print("\n".join("# " + line for line in str(note)[:3000].splitlines()))


def walk(kind, text, *args, stdin=None):
    """What the walker prints, line by line. The grammar goes by a file."""
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "sc-grammar-%d" % os.getpid())
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    try:
        done = subprocess.run([WALK, kind, path, *map(str, args)], input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=300)
    finally:
        os.unlink(path)
    if done.returncode not in (0, 3):
        return ["failed: exit %d %s %s" % (done.returncode, done.stdout[-300:], done.stderr[-2000:])]
    return done.stdout.splitlines()


def check(kind, text, candidates):
    return walk(kind, text, "check", stdin="".join(json.dumps(c) + "\n" for c in candidates))


# --- GBNF: expressions are tuples ----------------------------------------------------------------------------------------------


def make_expr(r, rules, depth):
    kind = r.randrange(8 if depth > 0 else 3)
    if kind == 0:
        return ("text", "".join(r.choice("abc") for _ in range(r.randrange(0, 3))))
    if kind == 1:
        return ("set", "".join(sorted(r.sample("abc", r.randrange(1, 3)))), r.random() < 0.3)
    if kind == 2:
        return ("rule", r.randrange(rules)) if depth > 0 else ("text", r.choice("abc"))
    if kind in (3, 4):
        return ("seq", [make_expr(r, rules, depth - 1) for _ in range(r.randrange(1, 4))])
    if kind == 5:
        return ("alt", [make_expr(r, rules, depth - 1) for _ in range(r.randrange(2, 4))])
    low = r.randrange(0, 3)
    return ("rep", make_expr(r, rules, depth - 1), *r.choice([(0, None), (1, None), (0, 1), (low, low), (low, None), (low, low + 2)]))


def gbnf(e):
    if e[0] == "text":
        return json.dumps(e[1])
    if e[0] == "set":
        return "[%s%s]" % ("^" if e[2] else "", e[1])
    if e[0] == "rule":
        return "root" if e[1] == 0 else "r%d" % e[1]
    if e[0] == "seq":
        return "(" + " ".join(map(gbnf, e[1])) + ")"
    if e[0] == "alt":
        return "(" + " | ".join(map(gbnf, e[1])) + ")"
    low, high = e[2], e[3]
    mark = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    return gbnf(e[1]) + (mark or ("{%d}" % low if low == high else "{%d,}" % low if high is None else "{%d,%d}" % (low, high)))


class Naive:
    """Ends of all matches of a rule from a place of one text, by fixpoint: slow and plainly right."""

    def __init__(self, rules, text):
        self.rules, self.text = rules, text
        self.memo = {}
        changed = True
        while changed:
            changed = False
            for i in range(len(rules)):
                for at in range(len(text) + 1):
                    ends = self.ends(rules[i], at)
                    if ends != self.memo.get((i, at), set()):
                        self.memo[(i, at)] = ends
                        changed = True

    def ends(self, e, at):
        if e[0] == "text":
            return {at + len(e[1])} if self.text.startswith(e[1], at) else set()
        if e[0] == "set":
            return {at + 1} if at < len(self.text) and (self.text[at] in e[1]) != e[2] else set()
        if e[0] == "rule":
            return self.memo.get((e[1], at), set())
        if e[0] == "seq":
            now = {at}
            for part in e[1]:
                now = set().union(*[self.ends(part, x) for x in now]) if now else now
            return now
        if e[0] == "alt":
            return set().union(*[self.ends(part, at) for part in e[1]])
        low, high = e[2], e[3]
        now, got = {at}, set()
        for i in range(len(self.text) + low + 2 if high is None else high + 1):
            if i >= low:
                got |= now
            now = set().union(*[self.ends(e[1], x) for x in now]) if now else now
        return got

    def accepts(self):
        return len(self.text) in self.memo.get((0, 0), set())


def test_gbnf():
    r = random.Random(SEED)
    texts = ["".join(t) for n in range(5) for t in itertools.product("abc", repeat=n)]
    n_refused = n_run = 0
    for i in range(400 if LONG else 60):
        rules = [make_expr(r, 3, 3) for _ in range(3)]
        text = "".join("%s ::= %s\n" % (gbnf(("rule", k)), gbnf(rules[k])) for k in range(3))
        got = check("gbnf", text, texts)
        if got and got[0].startswith("refused"):
            good = "left recursion" in got[0] or "no text can match" in got[0]
            n_refused += 1
            if "no text can match" in got[0]:
                good = not any(Naive(rules, t).accepts() for t in texts[:40])
            if not good:
                return ok(False, "random GBNF", text + got[0])
            continue
        n_run += 1
        accepted = {t for t in texts if Naive(rules, t).accepts()}
        for t, line in zip(texts, got):
            if (line == "complete") != (t in accepted):
                return ok(False, "random GBNF", "%s%r: %s, expected %s" % (text, t, line, t in accepted))
            # What lives on must have a continuation; short ones are seen here.
            if line.startswith("dead") and any(a.startswith(t) for a in accepted):
                return ok(False, "random GBNF", "%s%r: %s, but it can be gone on with" % (text, t, line))
        if len(got) != len(texts):
            return ok(False, "random GBNF", text + "\n".join(got[-3:]))
    ok(n_run > 20, "%d random grammars accept exactly what a naive matcher accepts, of %d texts each (%d refused)" % (n_run, len(texts), n_refused))


# --- schemas ------------------------------------------------------------------------------------------------------------------------


def valid(schema, value):
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).is_valid(value)


def test_schemas():
    n_cut = n_texts = 0
    for i in range(600 if LONG else 70):
        schema = Maker(SEED * 100000 + i).root(3)
        lines = walk("schema", json.dumps(schema), "sample", 4, SEED + i, 3000)
        for line in lines:
            if line.startswith("cut "):
                n_cut += 1
                continue
            n_texts += 1
            try:
                value = json.loads(json.loads(line))
            except ValueError:
                return ok(False, "random schemas", json.dumps(schema) + "\n" + line)
            if not valid(schema, value):
                errors = [e.message for e in jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).iter_errors(value)]
                return ok(False, "random schemas", "%s\n%s\n%s" % (json.dumps(schema), line, errors))
    ok(n_texts > 150 and n_cut < n_texts / 10, "%d texts that random masks of random schemas let through are valid (%d were cut)" % (n_texts, n_cut))


# Values that must be let in, written by Python in both of its usual ways.
LET_IN = [
    ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}, [{}, {"a": ""}, {"b": -1}, {"a": "ü\"\\\n", "b": 0}]),
    ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, [{"a": None}, {"a": [1, {"x": [[]]}, -2.5e-3, True]}, {"a": {}}]),
    ({"type": "object"}, [{}, {"x": {"y": []}}, {"a": 1, "b": 2, "c": "d"}]),
    ({"type": "array", "items": {"type": "number"}}, [[], [1], [0.5, -3, 1e10]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "items": {"type": "null"}}, [[], [1], [1, "x"], [1, "x", None, None]]),
    ({"items": {"type": "boolean"}, "minItems": 2}, [[True, False], [True] * 5]),
    ({"enum": ["a", 1, None, {"k": [1, 2]}]}, ["a", 1, None, {"k": [1, 2]}]),
    ({"type": ["string", "null"], "maxLength": 3}, [None, "", "abc", "äöü", "\U0001F600" * 3, "\"\"\""]),
    ({"$defs": {"t": {"type": "object", "properties": {"v": {"type": "integer"}, "n": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}},
                      "required": ["v", "n"]}}, "$ref": "#/$defs/t"},
     [{"v": 1, "n": None}, {"v": 1, "n": {"v": 2, "n": {"v": 3, "n": None}}}]),
    ({"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}}}, "additionalProperties": False}, [{}, {"c": [{}, {"c": []}]}]),
    ({"type": "object", "properties": {"ab": {"const": 1}}, "additionalProperties": {"type": "integer"}},
     [{"ab": 1, "a": 2}, {"abc": 5}, {"ab": 1, "": 3, "b": 4}]),
    ({"type": "object", "patternProperties": {"^x_": {"type": "integer"}, "_s$": {"type": "string"}}, "additionalProperties": False},
     [{}, {"x_1": 3}, {"y_s": "t"}, {"x_1": 3, "y_s": "t"}]),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "string"}}, "required": ["b"]}]},
     [{"a": 1, "b": ""}]),
    ({"anyOf": [{"properties": {"k": {"const": "a"}, "n": {"type": "integer"}}}, {"properties": {"k": {"const": "b"}, "s": {"type": "string"}}}],
      "required": ["k"]}, [{"k": "a", "n": 1}, {"k": "b", "s": "x"}, {"k": "b"}]),
    ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "maxProperties": 2},
     [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}]),
    ({"type": "string", "format": "date-time"}, ["2024-02-29T23:59:59Z", "1999-12-31T00:00:00.5+01:30"]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"]),
    ({"type": "string", "format": "ipv4"}, ["0.0.0.0", "255.10.99.1"]),
    ({"type": "string", "pattern": "b+"}, ["b", "abba", "\"b\"", "\nb"]),
    ({"type": "string", "pattern": "^a|b$"}, ["a", "b", "ax", "xb", "a\\b"]),
    ({"type": "array", "items": [{"type": "integer"}], "additionalItems": {"type": "string"}}, [[1], [1, "x"], []]),
    ({"type": "integer", "multipleOf": 1000, "minimum": 123456789012, "maximum": 987654321098765}, [123456790000, 500000000000000, 987654321098000]),
    ({"type": "integer", "multipleOf": 999, "minimum": -99999999999999}, [0, -999, 999 * 12345678, -999 * 100100100]),
    ({}, [None, 1, "x", [], {}]),
    (True, [None, {"a": [True]}]),
]
# Texts that must not come.
KEPT_OUT = [
    ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, ['{"b": 1}', '{"a": 1}', '{"a": "x", "a": "y"}', "[]", "{} "]),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}, ["{}", '{"a": 1}', '{"b": 1,}', '{"b" 1}']),
    ({"type": "object", "properties": {"ab": {"const": 1}}, "additionalProperties": {"type": "integer"}}, ['{"ab": 2}', '{"a": "x"}', '{"\\u0061b": 2}']),
    ({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}}, ['{"x_": "s"}']),
    ({"type": "integer", "multipleOf": 1000, "minimum": 123456789012}, ["123456789000", "123456790001", "0", "1000"]),
    ({"type": "integer"}, ["01", "1.0", "-0", "1e3", "--1", "+1", "-"]),
    ({"type": "number"}, ["01", ".5", "1.", "1e", "NaN", "-"]),
    ({"type": "string"}, ['"\\ud800"', '"\\x"', '"\t"', '"a', "'a'", '"\\udc00\\ud800"']),
    ({"type": "string", "maxLength": 2}, ['"abc"', '"\\u0061\\u0062\\u0063"']),
    ({"type": "string", "minLength": 1}, ['""']),
    ({"type": "string", "format": "date"}, ['"2023-02-29"', '"1900-02-29"', '"2023-13-01"', '"2023-04-31"', '"0000-01-01"']),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, ["[1, 2, 3]", "[1,]", "[,1]", '["1"]']),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": False}, {"properties": {"b": {}}}]}, ['{"b": 1}', '{"a": 1, "b": 1}']),
    ({"enum": ["a", 1]}, ['"b"', "2", "10", '"a" ']),
    ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}, ["{}", '{"a": 1}', '{"c": 1}']),
]


def test_cases():
    for schema, values in LET_IN:
        texts = [json.dumps(v, ensure_ascii=a, separators=s) for v in values for a in (False,) for s in ((",", ":"), (", ", ": "))]
        texts += [json.dumps(v, ensure_ascii=False, indent=2) for v in values]
        got = check("schema", json.dumps(schema), texts)
        bad = [(t, g) for t, g in zip(texts, got) if g != "complete"]
        ok(not bad and len(got) == len(texts), "lets in: " + json.dumps(schema)[:100], bad or got)
    for schema, texts in KEPT_OUT:
        got = check("schema", json.dumps(schema), texts)
        bad = [(t, g) for t, g in zip(texts, got) if g == "complete"]
        ok(not bad and len(got) == len(texts), "keeps out: " + json.dumps(schema)[:100], bad or got)


def test_numbers():
    r = random.Random(SEED)
    bad = []
    for i in range(60 if LONG else 12):
        low, high = sorted(r.choice([r.randrange(-30, 30), r.randrange(-1500, 1500), r.randrange(-9, 9)]) for _ in range(2))
        s = {"type": "integer", r.choice(["minimum", "exclusiveMinimum"]): low, r.choice(["maximum", "exclusiveMaximum"]): high}
        if r.random() < 0.5:
            s["multipleOf"] = r.choice([2, 3, 7, 12])
        numbers = list(range(low - 12, high + 13)) if high - low < 3000 else []
        got = check("schema", json.dumps(s), [str(n) for n in numbers])
        if got and got[0].startswith("refused"):
            bad += [(s, got)] if any(valid(s, n) for n in numbers) else []
            continue
        bad += [(s, n, g) for n, g in zip(numbers, got) if (g == "complete") != valid(s, n)]
    ok(not bad, "integers within bounds, and multiples", bad[:5])
    bad = []
    for i in range(40 if LONG else 10):
        low = round(r.uniform(-20, 20), r.randrange(0, 4))
        high = round(low + r.choice([0.001, 0.5, 3, 25.25]), 6)
        s = {"type": "number", r.choice(["minimum", "exclusiveMinimum"]): low, r.choice(["maximum", "exclusiveMaximum"]): high}
        texts = {str(x) for x in range(-30, 50)} | {"%.*f" % (d, r.uniform(low - 1, high + 1)) for d in range(1, 5) for _ in range(60)}
        texts |= {"%.6f" % x for x in (low, high)} | {repr(x) for x in (low, high) if "e" not in repr(x)}
        texts = sorted(t for t in texts if not re.fullmatch(r"-0(\.0+)?", t))
        got = check("schema", json.dumps(s), texts)
        bad += [(s, t, g) for t, g in zip(texts, got) if (g == "complete") != valid(s, json.loads(t))]
    ok(not bad, "numbers within bounds", bad[:5])


def test_patterns():
    r = random.Random(SEED)
    more = ["a*b", "^a*b$", "(a|bc)+", "^(a|bc){2,3}$", "[^ab]", "^[^ab]*$", "^a.c$", "a|^b|c$", "^(?:ab?)*?$", "^[a-]$", "^\\$\\^$", "x{0}", "^(a{2}){2}$", "^$", "",
            "^[\\d-]+$", "\\.", "^a{,2}$", "(^a|b$)c?", "^(a|b(^|c))"]
    bad = []
    for p in PATTERNS + more:
        texts = ["".join(t) for n in range(5) for t in itertools.product("abc", repeat=n)]
        texts += ["".join(r.choice("abcxyz0129-.$^ #{},\n\"") for _ in range(r.randrange(0, 7))) for _ in range(200)] + ["a{,2}", "aa-", "012-3456", "foo", "$^"]
        got = check("schema", json.dumps({"type": "string", "pattern": p}), [json.dumps(t, ensure_ascii=False) for t in texts])
        for t, g in zip(texts, got):
            expected = re.search(p.replace("{,2}", "\\{,2\\}").replace("$", "\\Z").replace("\\\\Z", "\\$"), t) is not None
            if (g == "complete") != expected:
                bad.append((p, t, g, expected))
        if len(got) != len(texts):
            bad.append((p, got))
    ok(not bad, "patterns match what Python's re finds", bad[:8])


test_gbnf()
test_cases()
test_numbers()
test_patterns()
test_schemas()
print("1..%d" % n_tests)
