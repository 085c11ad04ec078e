"""tokenize, template and inspect against shared/testdata: TAP. Skips what is not there."""
import glob
import json
import os

from clitest import done, folder, has, is_, ok, run, shared, skip

# --- tokenize ---
vocabularies = sorted(glob.glob(os.path.join(shared("testdata", "vocab") or "/nonexistent", "*.gguf")))
if not vocabularies:
    skip("tokenize: shared/testdata/vocab is not there")
for path in vocabularies:
    name = os.path.basename(path)[:-5]
    with open(path[:-5] + ".inp", encoding="utf-8", newline="") as f:
        texts = f.read().split("\n__ggml_vocab_test__\n")
    with open(path[:-5] + ".out", encoding="utf-8") as f:
        wanted = f.read().split("\n")
    bad = []
    for text, want in zip(texts, wanted):
        r = run("tokenize", "-m", path, data=text)
        if r.status != 0 or r.out != want.strip() + "\n":
            bad.append((text, want, r.out, r.err))
    ok(not bad, f"tokenize {name}: {len(texts)} texts", *[f"{t!r}: want {w}, got {o!r} {e}" for t, w, o, e in bad[:3]])
if vocabularies:
    spm = [v for v in vocabularies if v.endswith("llama-spm.gguf")]
    if spm:
        plain, special = run("tokenize", "-m", spm[0], data="Hello").out.split(), run("tokenize", "-m", spm[0], "--special", data="Hello</s>").out.split()
        ok(special[0] == "1" and special[-1] == "2" and special[1:-1] == plain, "--special adds BOS and parses </s>", plain, special)
        ok("2" not in run("tokenize", "-m", spm[0], data="Hello</s>").out.split(), "without it </s> is text")
        is_(run("tokenize", "-m", spm[0]).out, "\n", "no text, no ids")
        pieces = run("tokenize", "-m", spm[0], "--pieces", data="Hello").out.splitlines()
        is_([p.split("\t")[0] for p in pieces], plain, "--pieces")

# --- template ---
templates = sorted(glob.glob(os.path.join(shared("testdata", "templates") or "/nonexistent", "*.jinja")))
if not templates:
    skip("template: shared/testdata/templates is not there")
for path in templates:
    with open(path[:-6] + ".json", encoding="utf-8") as f:
        cases = json.load(f)
    bad = []
    for i, case in enumerate(cases):
        context = os.path.join(folder, "context.json")
        with open(context, "w", encoding="utf-8") as f:
            json.dump(case["context"], f)
        r = run("template", path, context, "--now", "2026-01-31T12:00:00")
        if "expected" in case:
            good = r.status == 0 and r.raw == case["expected"].encode() and r.err == ""
        else:
            good = r.status == 1 and r.raw == b"" and r.err.startswith("stagecoach template: ")
        if not good:
            bad.append(f"{case['case']}: status {r.status}\n got {r.out!r} {r.err}\nwant {case.get('expected')!r} {case.get('error', '')}")
    ok(not bad, f"template {os.path.basename(path)}: {len(cases)} contexts", *bad[:3])


def write(name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


context = write("c.json", '{"name": "World"}')
r = run("template", write("t.jinja", "Hello {{ name }}!"), context)
ok(r.status == 0 and r.raw == b"Hello World!", "no byte is added", r.raw, r.err)
r = run("template", "-", context, data="Hi {{ name }}")
ok(r.status == 0 and r.out == "Hi World", "a template from standard input", r.err)
r = run("template", write("bad.jinja", "{% for x in %}"), context)
ok(r.status == 1 and r.out == "" and "bad.jinja" in r.err, "a syntax error names the file", r.err)
r = run("template", write("raise.jinja", "{{ raise_exception('no such role') }}"), context)
ok(r.status == 1 and r.out == "" and "no such role" in r.err, "raise_exception's words", r.err)
r = run("template", write("x.jinja", "x"), write("bad.json", '{"a":\n 1,}'))
ok(r.status == 1 and "bad.json:2:" in r.err, "a bad context: file and line", r.err)
r = run("template", write("x.jinja", "x"), write("list.json", "[1]"))
ok(r.status == 1 and "not an array" in r.err, "a context that is no object", r.err)

# --- inspect ---
for path in vocabularies[:1]:
    r = run("inspect", path)
    ok(r.status == 0 and "tokenizer.ggml.model" in r.out, "inspect shows metadata", r.out[:300], r.err)
    r = run("inspect", path, "--json")
    try:
        ok(r.status == 0 and isinstance(json.loads(r.out), dict), "inspect --json is JSON")
    except ValueError as e:
        ok(False, "inspect --json is JSON", e, r.out[:300])
    with open(path, "rb") as f:
        cut = f.read(1000)
    with open(os.path.join(folder, "cut.gguf"), "wb") as f:
        f.write(cut)
    r = run("inspect", os.path.join(folder, "cut.gguf"))
    ok(r.status == 1 and r.out == "" and "cut.gguf" in r.err, "a cut file is refused by name", r.err)
done()
