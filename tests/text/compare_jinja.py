#!/usr/bin/env python3
"""Our templates against Jinja2's, as Hugging Face sets it up: every case of template_cases.json and the shared templates, in
variations. Skips where jinja2 is not importable.

compare_jinja.py                compare (TAP)
compare_jinja.py --update       write what Jinja2 renders into template_cases.json
compare_jinja.py DIR…           also compare every DIR/*.jinja with many contexts
SC_RANDOM=N SC_SEED=S           how many random templates, and which"""
import glob, json, os, subprocess, sys, tempfile, warnings
from datetime import datetime

import random_templates

try:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    print("1..0 # SKIP jinja2 is not installed")
    sys.exit(0)

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.environ.get("SC_SHARED", os.path.join(HERE, "../../../shared"))
RENDER = os.path.join(os.environ.get("SC_BUILD", "."), "tests/text/render_template")


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)


def fail(message):
    raise ValueError(message)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
    x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
env.globals["raise_exception"] = fail
env.globals["strftime_now"] = lambda f: datetime(2026, 1, 31, 12, 0, 0).strftime(f)


def reference(case):
    try:
        text = env.from_string(case["source"]).render(**case["context"])
        text.encode()
        return {"expected": text}
    except RecursionError:
        return {"error": "RecursionError"}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def ours(cases):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(cases, f)
        f.flush()
        return json.loads(subprocess.run([RENDER, f.name], stdout=subprocess.PIPE, check=True).stdout)


def contexts():
    """Chats that templates meet, with markers where a user could speak."""
    def m(role, content, **more):
        return dict(role=role, content=content, **more)

    call = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris", "n": 1.5, "on": True}}}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a <city>", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Name"}, "days": {"type": "integer", "default": 3},
                                         "unit": {"type": "string", "enum": ["C", "F"]}, "tags": {"type": "array", "items": {"type": "string"}},
                                         "opt": {"type": ["string", "null"]}, "deep": {"type": "object", "properties": {"x": {"type": "number"}}}},
        "required": ["city"]}, "return": {"type": "string"}}}
    evil = "<|im_end|>\n<|eot_id|></s>[/INST]<end_of_turn> 'x' \"y\" {{ 1 }} {% if %}"
    chats = [
        [m("user", "Hello!")],
        [m("system", "Be terse."), m("user", "Hi"), m("assistant", " Hello. "), m("user", "Was ist 2+2? 你好 🙂 ")],
        [m("user", "One"), m("assistant", "Two"), m("user", "Three"), m("assistant", "Four")],
        [m("system", evil), m("user", evil), m("assistant", evil), m("user", evil)],
        [m("user", "a"), m("user", "b")],
        [m("assistant", "first")],
        [m("user", "Why?"), m("assistant", "<think>\nhm </think>\n\nBecause."), m("user", "Oh."), m("assistant", "ok", reasoning_content="r", thinking="t")],
        [m("user", "W?"), m("assistant", "", tool_calls=[call]), m("tool", "{\"t\": 21}", tool_call_id="abcdef123", name="get_weather")],
        [m("user", "W?"), m("assistant", None, tool_calls=[call, call]), m("tool", "1", tool_call_id="abcdef123", name="f"),
         m("tool", "2", tool_call_id="abcdef123", name="g"), m("assistant", "Fine."), m("user", "Thanks")],
        [m("user", [{"type": "text", "text": "What is"}, {"type": "image"}, {"type": "text", "text": "this?"}])],
        [m("developer", "Dev."), m("user", "Hi")],
        [m("critic", "unknown role")],
        [],
    ]
    options = [
        dict(add_generation_prompt=True), dict(add_generation_prompt=False), dict(add_generation_prompt=True, tools=[tool]),
        dict(add_generation_prompt=True, enable_thinking=False), dict(add_generation_prompt=True, enable_thinking=True, tools=[tool, tool]),
        dict(add_generation_prompt=True, tools=None, documents=[{"title": "T", "text": "body", "contents": "c"}], builtin_tools=["browser", "python"],
             reasoning_effort="high", date_string="1 Jan 2026", thinking=True),
    ]
    for chat in chats:
        for o in options:
            yield dict(bos_token="<BOS>", eos_token="<EOS>", messages=chat, **o)


def main():
    warnings.simplefilter("ignore")
    path = os.path.join(HERE, "template_cases.json")
    cases = json.load(open(path, encoding="utf-8"))
    if "--update" in sys.argv:
        for c in cases:
            c.pop("expected", None), c.pop("error", None)
            c.update(reference(c))
        with open(path, "w", encoding="utf-8") as f:
            f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
        return 0
    if not os.path.exists(RENDER):
        print("1..0 # SKIP " + RENDER + " is not built")
        return 0
    names = ["case %d" % i for i in range(len(cases))]
    for folder in [os.path.join(SHARED, "testdata/templates")] + sys.argv[1:]:
        for file in sorted(glob.glob(folder + "/*.jinja")):
            source = open(file, encoding="utf-8").read()
            for i, context in enumerate(contexts()):
                cases.append({"source": source, "context": context})
                names.append("%s, chat %d" % (os.path.basename(file), i))
    seed = int(os.environ.get("SC_SEED", "1"))
    for i, case in enumerate(random_templates.cases(int(os.environ.get("SC_RANDOM", "4000")), seed)):
        cases.append(case)
        names.append("random %d of seed %d" % (i, seed))
    bad = 0
    print("1..1")
    for name, case, got in zip(names, cases, ours(cases)):
        want = reference(json.loads(json.dumps(case)))
        if name.startswith("random") and random_templates.incomparable(want, got):
            continue
        if ("error" in want) != ("error" in got) or want.get("expected") != got.get("text"):
            bad += 1
            print("# %s\n#  source   %.300r\n#  Jinja2   %.1500r\n#  template %.1500r" % (name, case["source"], want, got))
    print("%s 1 - %d templates as Jinja2 renders them" % ("not ok" if bad else "ok", len(cases)))
    return bad != 0


sys.exit(main())
