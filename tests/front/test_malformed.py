"""serve: requests that are wrong in one way each, drawn by a seed: every one is a 4xx whose sentence names the field, and the
server is as before. 1500 of them, 10,000 with SC_LONG=1; SC_SEED=N repeats a run. TAP."""
import json
import os
import random
import re
import threading

from fronttest import Server, done, is_, make_model, ok, skip_all

N = 10000 if os.environ.get("SC_LONG") == "1" else 1500
SEED = int(os.environ.get("SC_SEED", "1"))
model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)
s = Server(model, "--workers", 1, "--threads", 1, "--ctx", 128)

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
GOOD = {
    CHAT: {"messages": MESSAGES, "max_tokens": 1},
    TEXT: {"prompt": "Hello", "max_tokens": 1},
    EMBED: {"input": "Hello"},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": MESSAGES},
}
# What a field may not be, by its kind.
STRANGE = {"object": {"a": 1}, "array": [1], "string": "word", "number": 1.5, "integer": 7, "boolean": True}


def but(*kinds):
    return [v for k, v in STRANGE.items() if k not in kinds]


def outside(low, high, whole=True):
    values = [low - 1, high + 1] if whole else [low - 0.5, high + 0.5]
    return values + but("integer", *([] if whole else ["number"]))


COMMON = {
    "max_tokens": [-2, 2**31, 10**15, *but("integer")], "temperature": [-0.1, 1e9, *but("number", "integer")],
    "top_p": outside(0, 1, False), "top_k": [-2, 2**30, *but("integer")], "min_p": outside(0, 1, False), "typical_p": [-1, 2, "x"],
    "n": [0, -1, 129, 10**12, *but("integer")], "seed": but("integer"), "stop": [5, {"a": 1}, True, [1], ["a"] * 17, "x" * 1025],
    "presence_penalty": [-101, 101, "x", [1]], "frequency_penalty": [-101, 101, "x"], "repetition_penalty": [0, -1, 101, "x"],
    "repeat_last_n": [-2, 1.5, "x"], "logit_bias": [[1], "x", 5, {"x": 1}, {"1": "x"}, {"1": 200}, {"99999999": 1}, {"-1": 1}],
    "stream": but("boolean"), "ignore_eos": but("boolean"), "model": but("string"), "user": but("string"),
    "stream_options": [{"include_usage": True}, 5, "x"], "stop_token_ids": [5, "x", ["a"], [-1], [1] * 17, {"a": 1}],
    "response_format": [5, "x", {"type": "x"}, {"type": 5}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": 5}}],
    "grammar": [5, "root ::= (", "x"], "guided_choice": [5, [], [1]], "guided_regex": [5, "("],
    "min_tokens": [5, "x"], "mirostat": [1, "x"], "audio": [{"voice": "x"}], "modalities": [["audio"], 5], "prompt_logprobs": [1, 0],
}
CHAT_ONLY = {
    "messages": [None, [], "x", 5, {}, [5], ["x"], [None], [[]], [{}], [{"role": 5, "content": "x"}], [{"role": "user"}],
                 [{"role": "user", "content": 5}], [{"role": "user", "content": {"a": 1}}], [{"role": "user", "content": [5]}],
                 [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
                 [{"role": "user", "content": [{"type": "input_audio"}]}], [{"role": "user", "content": [{"text": "x"}]}],
                 [{"role": "assistant", "tool_calls": 5}], [{"role": "assistant", "tool_calls": [5]}],
                 [{"role": "assistant", "tool_calls": [{"function": {}}]}], [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}],
                 [{"role": "assistant", "tool_calls": [{"id": 5, "function": {"name": "f", "arguments": "{}"}}]}],
                 [{"role": "tool", "content": "x", "tool_call_id": 5}], [{"role": "user", "content": "x", "name": []}],
                 [{"role": "user", "content": "word " * 200}]],
    "tools": [5, "x", {}, [5], ["x"], [{}], [{"type": "function"}], [{"type": "x", "function": {"name": "f"}}], [{"type": "function", "function": {}}],
              [{"type": "function", "function": {"name": ""}}], [{"type": "function", "function": {"name": "a b"}}],
              [{"type": "function", "function": {"name": "f" * 65}}], [{"type": "function", "function": {"name": 5}}],
              [{"type": "function", "function": {"name": "f", "parameters": []}}], [{"type": "function", "function": {"name": "f", "description": 5}}],
              [TOOL] * 129],
    "tool_choice": ["sometimes", 5, [], {}, {"type": "function"}, {"type": "function", "function": {"name": "unknown"}}, "required", True],
    "parallel_tool_calls": but("boolean"), "logprobs": but("boolean"), "top_logprobs": [21, -1, 3, "x", 1.5],
    "chat_template_kwargs": but("object"), "reasoning_format": ["loud", 5], "reasoning_effort": ["very", 5, []],
    "max_completion_tokens": [-2, 10**15, "x"], "functions": [[]], "function_call": ["auto"],
}
TEXT_ONLY = {
    "prompt": [None, [], 5, True, 1.5, {"a": 1}, [[]], [1, "a"], ["a", 1], [1.5], [-1], [10**9], ["x"] * 129, "word " * 200, [None]],
    "logprobs": [-1, 21, "x", 1.5, True], "echo": but("boolean"), "best_of": [0, 129, "x", 1.5], "suffix": [5, [], True, "x"],
}
FIELDS = {
    CHAT: {**COMMON, **CHAT_ONLY}, TEXT: {**COMMON, **TEXT_ONLY},
    EMBED: {"input": [None, [], 5, {"a": 1}, [1.5], "word " * 200, ["x"] * 129], "encoding_format": ["hex", 5], "dimensions": [7, "x"]},
    "/tokenize": {"content": [5, [], True, {}], "add_special": ["x", 1], "parse_special": ["x", 1]},
    "/detokenize": {"tokens": [None, 5, "x", {"a": 1}, ["a"], [1.5], [-1], [10**9], [[1]]]},
    "/apply-template": {"messages": CHAT_ONLY["messages"][:-1], "tools": CHAT_ONLY["tools"], "add_generation_prompt": ["x", 1]},
}


def draw(rng):
    """(method, path, body as bytes, the field that is wrong or None)"""
    path = rng.choice(list(GOOD))
    text = json.dumps(GOOD[path]).encode()
    kind = rng.randrange(10)
    if kind == 0:  # cut off
        return "POST", path, text[:rng.randrange(len(text))], None
    if kind == 1:  # no JSON
        return "POST", path, rng.choice([b"\xff\xfe", rng.randbytes(rng.randrange(1, 200)), b"{" * rng.randrange(1, 5000), b"nul", b"{'a': 1}",
                                         text + b"}", text[:-1] + b",}", b'{"a": 1e999}', b'{"\xc3\x28": 1}', b'"\\ud800"']), None
    if kind == 2:  # no object
        return "POST", path, json.dumps(rng.choice([None, 5, "x", [], [GOOD[path]], True])).encode(), None
    if kind == 3:  # elsewhere, otherwise
        return rng.choice([("POST", "/v1/" + "".join(rng.choices("abcxyz/.%20", k=8)), text, None), ("PUT", path, text, None), ("GET", path, b"", None),
                           ("DELETE", "/v1/models", b"", None), ("POST", "/health", b"", None)])
    name = rng.choice(list(FIELDS[path]))
    body = {**GOOD[path], name: rng.choice(FIELDS[path][name])}
    for other in rng.sample(["unknown_field", "metadata", "store"], rng.randrange(3)):
        body[other] = rng.choice(list(STRANGE.values()))
    return "POST", path, json.dumps(body).encode(), name


def check(conn, method, path, body, name):
    status, headers, text = s.ask(method, path, body, conn=conn)
    try:
        error = json.loads(text)["error"]
        message = error["message"]
        fine = 400 <= status < 500 and " " in message and len(message) > 12 and error["type"] and "param" in error and "code" in error
        if name and path not in ("/apply-template",):
            fine = fine and (error["param"] is None or re.split(r"[.\[]", error["param"])[0] in (name, "content", "messages")) and (name in message or error["param"])
        return None if fine else (method, path, body[:200], status, text[:300])
    except (ValueError, KeyError, TypeError) as e:
        return method, path, body[:200], status, text[:300], repr(e)


bad, counts = [], {}
cases = [draw(random.Random(SEED * 1000003 + i)) for i in range(N)]


def work(k):
    conn = s.connect()
    for i in range(k, N, 4):
        wrong = check(conn, *cases[i])
        counts[cases[i][1:4:2]] = counts.get(cases[i][1:4:2], 0) + 1
        if wrong:
            bad.append((i, *wrong))
    conn.close()


for path, body in GOOD.items():
    is_(s.ask("POST", path, body)[0], 200, f"{path}: what is changed is right")
threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
ok(not bad, f"{N} wrong requests (seed {SEED}): each a 4xx with a sentence", *bad[:10])
print(f"# {len(counts)} kinds of them")
for path, body in GOOD.items():
    is_(s.ask("POST", path, body)[0], 200, f"{path}: and is answered as before")
ok(s.wait_open(0), "nothing is left open")
is_(s.stop(), 0, "stops")
done()
