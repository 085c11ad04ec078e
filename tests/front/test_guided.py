"""serve and run: constrained answers, on a tiny model over three worker processes: the same as one process gives, whole and streamed,
n > 1, many at once, after a worker died; what is refused. TAP."""
import json
import os
import signal
import threading
import time

from fronttest import Server, done, folder, has, is_, joined, make_model, ok, run, skip, skip_all

try:
    import jsonschema
except ImportError:
    skip_all("Python has no jsonschema")

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 12},
                                           "age": {"type": "integer", "minimum": 0, "maximum": 150},
                                           "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}},
          "required": ["name", "age"], "additionalProperties": False}
GRAMMAR = 'root ::= ("yes" | "no") ", " [0-9]{1,3} "."\n'
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}
SAMPLING = {"temperature": 1.0, "max_tokens": 150}
FOX = "The quick brown fox"


def write(name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def valid(text, schema=SCHEMA):
    try:
        return jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
    except ValueError:
        return False


schema_file, grammar_file = write("person.json", json.dumps(SCHEMA)), write("yes.gbnf", GRAMMAR)

# --- the command line, in one process ---
DEFAULTS = ["--top-k", 0, "--top-p", 1, "--min-p", 0, "--repeat-last", 0, "--temp", 1, "-n", 150, "--seed", 7]
alone = run("run", "-m", model, "-p", FOX, "--json-schema", schema_file, *DEFAULTS, "-q")
ok(alone.status == 0 and valid(alone.out), "run --json-schema: a valid answer", alone.out, alone.err)
other = run("run", "-m", model, "-p", FOX, "--grammar", grammar_file, *DEFAULTS, "-q")
ok(other.status == 0 and other.out.split(", ")[0] in ("yes", "no") and other.out.endswith(".\n"), "run --grammar", other.out, other.err)
split = run("run", "-m", model, "-p", FOX, "--json-schema", schema_file, *DEFAULTS, "-q", "--workers", 2, "--threads", 1)
is_(split.out, alone.out, "over two workers: the same", split.err)
several = run("run", "-m", model, "-p", FOX, "-p", "One", "-p", "Two", "--json-schema", schema_file, *DEFAULTS, "--json")
texts = [c["text"] for c in json.loads(several.out)["cases"]]
ok(len(texts) == 3 and all(map(valid, texts)) and texts[0] + "\n" == alone.out, "several prompts, each with its own walk", several.out)
bad = run("run", "-m", model, "-p", "x", "--grammar", write("bad.gbnf", 'root ::= "a" |\n  (b'))
ok(bad.status == 1, "a bad grammar fails", bad.status)
has(bad.err, "bad.gbnf: line 2, column", "and says where")
bad = run("run", "-m", model, "-p", "x", "--json-schema", write("bad.json", '{"properties": {"a": {"not": {}}}}'))
has(bad.err, "bad.json.properties.a: not is not supported", "so does a schema")
is_(run("run", "-m", model, "-p", "x", "--json-schema", schema_file, "--grammar", grammar_file).status, 2, "both are too many")
is_(run("run", "-m", model, "-p", "x", "--json-schema", schema_file, "--ignore-eos").status, 2, "--ignore-eos contradicts")

# --- the server ---
s = Server(model, "--workers", 3, "--threads", 1, "--ctx", 256, "--parallel", 8)
whole = s.complete(FOX, response_format=FORMAT, seed=7, **SAMPLING)[0]
is_((whole["text"] + "\n", whole["finish_reason"]), (alone.out, "stop"), "three stages behind HTTP say what one process says")
text, finish, n = joined(s.stream("/v1/completions", prompt=FOX, response_format=FORMAT, seed=7, **SAMPLING))
is_((text, finish), (whole["text"], "stop"), "streamed, too")
many = [c["text"] for c in s.complete(FOX, n=4, response_format=FORMAT, seed=7, **SAMPLING)]
ok(many[0] == whole["text"] and len(set(many)) > 1 and all(map(valid, many)), "n = 4: each valid, the first as alone", *many)
for field, value in (("guided_json", SCHEMA), ("guided_json", json.dumps(SCHEMA)), ("json_schema", SCHEMA), ("structured_outputs", {"json": SCHEMA}),
                     ("response_format", {"type": "json_object", "schema": SCHEMA})):
    is_(s.complete(FOX, seed=7, **SAMPLING, **{field: value})[0]["text"], whole["text"], "%s: the same" % field)
for field, value in (("grammar", GRAMMAR), ("guided_grammar", GRAMMAR), ("structured_outputs", {"grammar": GRAMMAR}),
                     ("response_format", {"type": "grammar", "grammar": GRAMMAR})):
    is_(s.complete(FOX, seed=7, **SAMPLING, **{field: value})[0]["text"] + "\n", other.out, "%s: as run --grammar" % field)
ok(s.text(FOX, guided_choice=["left", "right"], **SAMPLING) in ("left", "right"), "guided_choice")
ok(s.text(FOX, structured_outputs={"regex": "[ab]{3}-\\d"}, **SAMPLING)[3] == "-", "a regex from end to end")
lp = s.complete(FOX, response_format=FORMAT, logprobs=2, seed=7, **SAMPLING)[0]
ok(lp["text"] == whole["text"] and len(lp["logprobs"]["tokens"]) > 5, "log-probabilities beside it")
cut = s.complete(FOX, response_format=FORMAT, seed=7, **{**SAMPLING, "max_tokens": 3})[0]
ok(cut["finish_reason"] == "length" and whole["text"].startswith(cut["text"]), "max_tokens cuts it", cut)
object_ = s.complete(FOX, response_format={"type": "json_object"}, temperature=0, max_tokens=200)[0]
ok(object_["finish_reason"] == "length" or isinstance(json.loads(object_["text"]), dict), "json_object", object_)
is_(s.complete(FOX, response_format={"type": "text"}, temperature=0, max_tokens=8)[0]["text"], s.text(FOX, temperature=0, max_tokens=8),
    "type text asks for nothing")

# --- many at once, some of which go away ---
answers = {}


def one(i):
    if i % 5 == 4:
        c = s.connect()
        c.request("POST", "/v1/completions", json.dumps({"prompt": FOX, "stream": True, "seed": i, "response_format": FORMAT, **SAMPLING}))
        c.getresponse().readline()
        c.close()
        answers[i] = None
    else:
        kind = {"response_format": FORMAT} if i % 2 else {"grammar": GRAMMAR}
        answers[i] = s.complete(FOX, seed=i, **kind, **SAMPLING)[0]


threads = [threading.Thread(target=one, args=(i,)) for i in range(30)]
[t.start() for t in threads]
[t.join() for t in threads]
bad = [a for i, a in answers.items() if a and (a["finish_reason"] != "stop" or (i % 2 and not valid(a["text"])))]
ok(len(answers) == 30 and not bad, "thirty at once, six of which go away", *bad)
ok(s.wait_open(0), "nothing is left open")
is_(s.complete(FOX, seed=3, response_format=FORMAT, **SAMPLING)[0]["text"], answers[3]["text"], "in company each said what it says alone")

# --- a worker dies in the middle ---
LONG = {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 10}, "minItems": 8, "maxItems": 8}
body = {"prompt": FOX, "seed": 11, "temperature": 1.0, "max_tokens": 200, "guided_json": LONG}
want = s.complete(**body)[0]["text"]
pids = [n["pid"] for n in s.get("/v1/cluster")[1]["nodes"]]
for victim in (0, 2):
    killed = []

    def kill(event):
        killed.append(event)
        if len(killed) == 6:
            os.kill(pids[victim], signal.SIGKILL)
    got = joined(s.stream("/v1/completions", on_event=kill, **body))[0]
    is_(got, want, "worker %d is killed in the middle: the same answer" % victim)
    until = time.time() + 30
    while s.get("/health")[0] != 200 and time.time() < until:
        time.sleep(0.1)
    pids = [n["pid"] for n in s.get("/v1/cluster")[1]["nodes"]]
ok(valid(want, LONG), "which is valid", want)

small = run("serve", "-m", model, "--workers", 1, "--ctx", 800, "--kv-total", 799)
is_(small.status, 2, "a cache that holds no sequence is refused")
has(small.err, "--kv-total is 799 positions, which is less than one sequence may have (--ctx 800)", "with both numbers")

# --- too little room for all of them: the youngest gives way, and is computed again ---
# A sequence is let in where it can grow by 256 positions: only longer answers come to want what is not there.
tight = Server(model, "--workers", 2, "--threads", 1, "--ctx", 800, "--parallel", 8, "--kv-total", 800)
MANY = {**LONG, "minItems": 100, "maxItems": 100}  # some 480 tokens
bodies = [{"prompt": FOX + " %d" % i, "seed": i, "temperature": 1.0, "max_tokens": 700, "guided_json": MANY} for i in range(4)]
alone = [tight.complete(**b)[0] for b in bodies]
crowd = [None] * 4


def in_crowd(i):
    crowd[i] = joined(tight.stream("/v1/completions", **bodies[i]))


threads = [threading.Thread(target=in_crowd, args=(i,)) for i in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
is_([c[:2] for c in crowd], [(a["text"], a["finish_reason"]) for a in alone], "four at once where one has room: each says what it says alone")
ok(all(valid(c[0], MANY) for c in crowd), "each valid", crowd)
preempted = tight.get("/v1/cluster")[1]["schedule"]["preempted"]
ok(preempted > 0, "which met preemption", preempted)
is_(tight.stop(), 0, "stops")

# --- calls that must come ---
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Bonn"]}, "days": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["city", "days"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": CITY}},
         {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string", "maxLength": 4}},
                                                                          "required": ["zone"]}}}]
said = []
for seed in range(6):
    choice = "required" if seed % 2 else {"type": "function", "function": {"name": "weather"}}
    status, j = s.post("/v1/chat/completions", messages=[{"role": "user", "content": "Hm?"}], tools=TOOLS, tool_choice=choice, seed=seed,
                       temperature=1.0, max_tokens=120)
    said.append((choice, j["choices"][0] if status == 200 else j))
bad = []
for choice, c in said:
    calls = c.get("message", {}).get("tool_calls") or []
    good = len(calls) == 1 and c["finish_reason"] == "tool_calls"
    if good:
        name, args = calls[0]["function"]["name"], calls[0]["function"]["arguments"]
        good = valid(args, CITY) if name == "weather" else name == "clock" and choice == "required" and len(json.loads(args)["zone"]) <= 4
    if not good:
        bad.append((choice, c))
ok(not bad, "tool_choice required, or by name: one call, with valid arguments", *bad)
ask = {"messages": [{"role": "user", "content": "Hm?"}], "tool_choice": "required", "max_tokens": 60, "temperature": 1.0}
odd = {"type": "object", "properties": {"a": {"not": {}}}}
status, j = s.post("/v1/chat/completions", tools=[{"type": "function", "function": {"name": "odd", "parameters": odd, "strict": True}}], **ask)
ok(status == 400 and "tools[0].function.parameters.properties.a: not is not supported" in j["error"]["message"], "strict parameters beyond that are refused", j)
status, j = s.post("/v1/chat/completions", tools=[{"type": "function", "function": {"name": "odd", "parameters": odd}}], **ask)
ok(status == 200, "others are any object", j)

# --- what is refused ---
REFUSED = [
    ({"response_format": "json"}, "response_format", "response_format is a string; an object is expected"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
    ({"response_format": {"type": 3}}, "response_format.type", "is an integer"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "response_format.json_schema is"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": 1, "schema": {}}}}, "response_format.json_schema.name", "a string"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"a": {"type": "strin"}}}}}},
     "response_format.json_schema.schema", "response_format.json_schema.schema.properties.a: type: there are"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"uniqueItems": True}}}},
     "response_format.json_schema.schema", "uniqueItems is not supported"),
    ({"guided_json": 3}, "guided_json", "a JSON schema is expected"),
    ({"guided_json": "{"}, "guided_json", "no JSON"),
    ({"grammar": "root ::= x"}, "grammar", "grammar: line 1, column 10: there is no rule named x"),
    ({"grammar": 1}, "grammar", "a string is expected"),
    ({"guided_regex": "a(?!b)"}, "guided_regex", "looking ahead"),
    ({"guided_choice": []}, "guided_choice", "a list of 1 to"),
    ({"guided_choice": ["a"], "grammar": GRAMMAR}, "guided_choice", "one of them is allowed"),
    ({"grammar": GRAMMAR, "ignore_eos": True}, "ignore_eos", "could not end"),
    ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag", "not supported"),
]
for fields, param, message in REFUSED:
    status, body = s.post("/v1/completions", prompt="x", **fields)
    e = body.get("error", {})
    ok(status == 400 and e["param"] == param and message in e["message"], "refused: %s" % json.dumps(fields)[:90], status, body)

# --- the official client ---
try:
    import openai
except ImportError:
    openai = None
if not openai:
    skip("Python has no openai")
else:
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, api_key="none")
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "A person, please."}], "response_format": FORMAT, "seed": 5,
            "temperature": 1.0, "max_tokens": 150}
    said = client.chat.completions.create(**chat)
    ok(said.choices[0].finish_reason == "stop" and valid(said.choices[0].message.content), "openai: json_schema", said)
    parts = [c.choices[0].delta.content or "" for c in client.chat.completions.create(stream=True, **chat) if c.choices]
    is_("".join(parts), said.choices[0].message.content, "openai: streamed")
    said = client.chat.completions.create(**{**chat, "response_format": {"type": "json_object"}, "max_tokens": 200})
    ok(said.choices[0].finish_reason == "length" or isinstance(json.loads(said.choices[0].message.content), dict), "openai: json_object", said)
    try:
        client.chat.completions.create(**{**chat, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}})
        ok(False, "openai: a schema that is refused raises")
    except openai.BadRequestError as e:
        has(str(e), "not is not supported", "openai: a schema that is refused raises")
is_(s.stop(), 0, "serve ends")
done()
