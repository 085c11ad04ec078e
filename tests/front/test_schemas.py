"""serve: requests with random bounded schemas at temperature 1.0 to SmolLM2 over three worker processes, through the official client:
nearly all end by themselves, and all that do are valid. SC_LONG=1: 200 schemas, each keyword at least 20 times. SC_SEED repeats a
run. TAP."""
import collections
import concurrent.futures
import json
import os
import sys

from fronttest import Server, done, ok, skip_all

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests/text"))
from random_schemas import Maker  # noqa: E402

try:
    import jsonschema
    import openai
except ImportError as e:
    skip_all("Python has no " + e.name)

cache = os.environ.get("STAGECOACH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "stagecoach")
model = os.path.join(cache, "SmolLM2-135M-Instruct.Q4_1.gguf")
if not os.path.exists(model):
    skip_all("SmolLM2's file is not here (./dev demo fetches it)")
LONG = os.environ.get("SC_LONG") == "1"
SEED = int(os.environ.get("SC_SEED", "1"))
N = 200 if LONG else 10
AT_ONCE = 8

counts = collections.Counter()
schemas = [Maker(SEED * 1000 + i, counts).root(3 if i % 2 else 2) for i in range(N)]
s = Server(model, "--workers", 3, "--threads", 1, "--ctx", 4096, "--parallel", AT_ONCE)
client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, api_key="none", timeout=600)


def ask(i):
    schema = schemas[i]
    stream = i % 2 == 0
    said = client.chat.completions.create(
        model="smollm2", seed=i, temperature=1.0, max_tokens=1500, stream=stream,
        messages=[{"role": "user", "content": "Make up an example in JSON that is valid by this schema: " + json.dumps(schema)[:2000]}],
        response_format={"type": "json_schema", "json_schema": {"name": "example", "strict": True, "schema": schema}})
    if not stream:
        return said.choices[0].message.content, said.choices[0].finish_reason, said.usage.completion_tokens
    text, finish, n = "", None, 0
    for chunk in said:
        text += chunk.choices[0].delta.content or ""
        finish = chunk.choices[0].finish_reason or finish
        n += 1
    return text, finish, n


def why_invalid(schema, text):
    try:
        value = json.loads(text)
    except ValueError as e:
        return str(e)
    return [e.message for e in jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).iter_errors(value)]


with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    answers = list(pool.map(ask, range(N)))
ended = [i for i in range(N) if answers[i][1] == "stop"]
bad = [(i, why_invalid(schemas[i], answers[i][0]), json.dumps(schemas[i]), answers[i][0]) for i in ended if why_invalid(schemas[i], answers[i][0])]
print("# %d of %d ended by themselves; tokens: %d, most %d" % (len(ended), N, sum(a[2] for a in answers), max(a[2] for a in answers)))
print("# keywords: " + ", ".join("%s %d" % kv for kv in sorted(counts.items())))
ok(len(ended) >= 0.95 * N, "%d of %d end by themselves" % (len(ended), N), *[(json.dumps(schemas[i]), answers[i][0][:300]) for i in range(N) if i not in ended])
ok(not bad, "all that do are valid", *bad[:5])
if LONG:
    ok(min(counts.values()) >= 20, "each keyword stands at least 20 times", counts)
ok(s.stop() == 0, "serve ends")
done()
