"""serve: /v1/completions and what surrounds it, on a tiny model over two worker processes. TAP."""
import json
import socket
import threading

from fronttest import Server, done, has, is_, joined, make_model, ok, run, skip_all

FOX = "The quick brown fox"
model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "4")
if not model:
    skip_all(why)
one_process = json.loads(run("run", "-m", model, "-p", FOX, "-n", 24, "--temp", 0, "--json").out)["cases"][0]

# --- while it loads ---
s = Server(model, "--workers", 2, "--threads", 1, "--ctx", 256, wait=False)
status, body = s.get("/health")
ok(status == 503 and body["error"]["code"] == "loading" or status == 200, "/health while the model loads", status, body)
status, headers, body = s.ask("POST", "/v1/completions", {"prompt": "x"})
ok(status == 200 or status == 503 and "retry-after" in headers, "a completion meanwhile: 503 with Retry-After", status, body)
s.ready.wait(100)
is_(s.get("/health"), (200, {"status": "ok"}), "/health when the chain answers")
models = s.get("/v1/models")[1]
ok(models["object"] == "list" and [m["id"] for m in models["data"]] == ["tiny"], "/v1/models: the file's name", models)
cluster = s.get("/v1/cluster")[1]
ok(cluster["state"] == "running" and len(cluster["stages"]) == 2 and cluster["health"] == "ok", "/v1/cluster: two stages run", cluster)

# --- answers ---
status, whole = s.post("/v1/completions", prompt=FOX, max_tokens=24, temperature=0)
is_(status, 200, "a completion")
is_(whole["choices"][0]["text"], one_process["text"], "two stages behind HTTP say what one process says")
is_(whole["usage"]["prompt_tokens"], len(one_process["tokens"]), "usage: the prompt's tokens")
is_(whole["usage"]["completion_tokens"], 24, "usage: the answer's")
is_(whole["usage"]["total_tokens"], whole["usage"]["prompt_tokens"] + 24, "usage: all")
is_(whole["choices"][0]["finish_reason"], "length", "it ended by max_tokens")
is_(whole["object"], "text_completion", "object")
events = s.stream("/v1/completions", prompt=FOX, max_tokens=24, temperature=0)
text, finish, n = joined(events)
is_((text, finish), (one_process["text"], "length"), "streamed: the same text")
ok(n > 12, "in many chunks", n)
is_(events[-1], "[DONE]", "[DONE] at the end")
ok(all("usage" not in e for e in events[:-1] if isinstance(e, dict)), "no usage unless asked for")
events = s.stream("/v1/completions", prompt=FOX, max_tokens=24, temperature=0, stream_options={"include_usage": True})
is_(events[-2]["usage"]["completion_tokens"], 24, "include_usage: usage in the last chunk")
is_(events[-2]["choices"], [], "which has no choices")
is_(s.text(one_process["tokens"], max_tokens=24, temperature=0), one_process["text"], "a prompt of tokens")
both = s.complete([FOX, "One"], max_tokens=8, temperature=0)
is_([c["index"] for c in both], [0, 1], "two prompts, two answers")
is_([c["text"] for c in both], [s.text(p, max_tokens=8, temperature=0) for p in (FOX, "One")], "each as if alone")
is_([c["text"] for c in s.complete([one_process["tokens"], [1, 2, 3]], max_tokens=8, temperature=0)][0], both[0]["text"], "lists of tokens")
is_(len(s.text("x", temperature=0, ignore_eos=True)) > 0, True, "max_tokens has a default")
is_(s.complete("The quick", max_tokens=0)[0], {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"},
    "max_tokens 0")
is_(s.text(FOX, max_tokens=4, temperature=0, echo=True), FOX + s.text(FOX, max_tokens=4, temperature=0),
    "echo")
is_(joined(s.stream("/v1/completions", prompt=FOX, max_tokens=4, temperature=0, echo=True))[0],
    s.text(FOX, max_tokens=4, temperature=0, echo=True), "echo, streamed")
long_text = s.post("/v1/completions", prompt="One", max_tokens=100000, temperature=0, ignore_eos=True)[1]
ok(long_text["usage"]["total_tokens"] in (256, 257), "max_tokens beyond the context: as much as has room", long_text["usage"])
is_(long_text["choices"][0]["finish_reason"], "length", "which is said")

# --- chance ---
warm = {"prompt": "One", "max_tokens": 16, "temperature": 1.5, "ignore_eos": True}
a, b, c = (s.text(seed=seed, **warm) for seed in (7, 7, 8))
ok(a == b != c, "a seed decides", a, b, c)
is_(joined(s.stream("/v1/completions", seed=7, **warm))[0], a, "streamed, too")
ok(s.text(**warm) != s.text(**warm), "without a seed each is another")
many = [c["text"] for c in s.complete(n=3, seed=7, **warm)]
ok(many[0] == a and len(set(many)) == 3, "n: the first is the one alone, the others differ", many, a)
events = s.stream("/v1/completions", n=3, seed=7, **warm)
is_([joined(events, i)[0] for i in range(3)], many, "n, streamed")
ok(s.text(seed=7, top_k=1, **warm) == s.text(**{**warm, "temperature": 0}), "top_k 1 is greedy")
ok(s.text(seed=7, top_p=0.0001, **warm) == s.text(**{**warm, "temperature": 0}), "top_p near 0, too")
ok(s.text(seed=7, min_p=1, **warm) == s.text(**{**warm, "temperature": 0}), "min_p 1, too")
first = one_process["greedy"][0]
ok(not s.text(FOX, max_tokens=24, temperature=0, logit_bias={str(first): -100}) == one_process["text"], "logit_bias")
loop = {"prompt": "One", "max_tokens": 12, "temperature": 0}
ok(s.text(repetition_penalty=50, **loop) is not None, "repetition_penalty")

# --- log-probabilities ---
lp = s.complete(FOX, max_tokens=6, temperature=0, logprobs=3)[0]["logprobs"]
is_({k: len(v) for k, v in lp.items()}, {"tokens": 6, "token_logprobs": 6, "top_logprobs": 6, "text_offset": 6}, "logprobs")
is_([max(t.values()) for t in lp["top_logprobs"]], lp["token_logprobs"], "greedy tokens are the likeliest")
is_("".join(lp["tokens"]).strip(), s.text(FOX, max_tokens=6, temperature=0).strip(), "tokens spell the text")
ref = json.loads(run("run", "-m", model, "-p", FOX, "-n", 6, "--temp", 0, "--json", "--logprobs", 3).out)["cases"][0]
rows = ref["top"][len(ref["tokens"]) - 1:]
ok(all(abs(row[0][1] - x) < 1e-5 for row, x in zip(rows, lp["token_logprobs"])), "as one process has them", lp)
events = s.stream("/v1/completions", prompt=FOX, max_tokens=6, temperature=0, logprobs=3)
parts = [e["choices"][0]["logprobs"] for e in events if isinstance(e, dict) and e["choices"][0]["logprobs"]]
is_({k: sum((p[k] for p in parts), []) for k in lp}, lp, "streamed: the same")
is_(s.complete(FOX, max_tokens=2, temperature=0, logprobs=0)[0]["logprobs"]["top_logprobs"], None,
    "logprobs 0: the tokens' own only")

both = s.complete(FOX, max_tokens=6, temperature=0, logprobs=3, echo=True)[0]
n = len(one_process["tokens"])
is_(both["text"], FOX + s.text(FOX, max_tokens=6, temperature=0), "echo with logprobs: the text")
is_({k: v[n:] for k, v in both["logprobs"].items() if k != "text_offset"}, {k: v for k, v in lp.items() if k != "text_offset"},
    "those of the answer as without echo")
rows = [dict(map(tuple, row)) for row in ref["top"]]
given = both["logprobs"]["token_logprobs"][:n]
ok(given[0] is None and both["logprobs"]["top_logprobs"][0] is None, "the first token of a prompt has none", given)
near = [abs(given[i + 1] - rows[i][t]) < 1e-5 for i, t in enumerate(one_process["tokens"][1:]) if t in rows[i]]
low = [given[i + 1] <= min(rows[i].values()) + 1e-5 for i, t in enumerate(one_process["tokens"][1:]) if t not in rows[i]]
ok(all(near) and all(low), "the others what one process has", given)
ok(all(abs(max(t.values()) - rows[i][next(iter(rows[i]))]) < 1e-5 for i, t in enumerate(both["logprobs"]["top_logprobs"][1:n])),
   "and the likeliest in their places", both)
alone = s.complete(FOX, max_tokens=0, logprobs=3, echo=True)[0]
ok(alone["text"] == FOX and alone["logprobs"]["token_logprobs"] == given, "max_tokens 0: the prompt's alone", alone)
events = s.stream("/v1/completions", prompt=FOX, max_tokens=6, temperature=0, logprobs=3, echo=True)
parts = [e["choices"][0]["logprobs"] for e in events if isinstance(e, dict) and e["choices"][0]["logprobs"]]
is_({k: sum((p[k] for p in parts), []) for k in both["logprobs"]}, both["logprobs"], "streamed: the same")
many = s.complete([FOX, "One"], max_tokens=3, temperature=0, logprobs=0, echo=True, n=2)
is_([c["logprobs"]["token_logprobs"][:n] for c in many[:2]], [given] * 2, "of two prompts, two each")

# --- best_of ---
five = s.complete(n=5, seed=3, logprobs=0, **warm)
mean = {c["text"]: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"]) for c in five}
best = s.complete(n=2, best_of=5, seed=3, **warm)
is_([c["text"] for c in best], sorted(mean, key=mean.get, reverse=True)[:2], "best_of: the likeliest of those that n would give")
is_([c["index"] for c in best], [0, 1], "numbered anew")

# --- stop strings ---
text = one_process["text"]
for at in range(1, 14):
    for n in (1, 2, 5):
        stop = text[at:at + n]
        cut = text.index(stop)
        choice = s.complete(FOX, max_tokens=24, temperature=0, stop=stop)[0]
        stops = ["no such thing", stop]
        streamed = joined(s.stream("/v1/completions", prompt=FOX, max_tokens=24, temperature=0, stop=stops))[:2]
        if (choice["text"], choice["finish_reason"]) != (text[:cut], "stop") or streamed != (text[:cut], "stop"):
            ok(False, f"stop {stop!r}", choice, streamed, text)
            break
ok(True, "stop strings at any place, within tokens and across them")
greedy = one_process["greedy"]
cut = next(i for i, t in enumerate(greedy) if i > 2 and t not in greedy[:i])
some = s.complete(FOX, max_tokens=24, temperature=0, ignore_eos=True, stop_token_ids=[greedy[cut]])[0]
is_((some["text"], some["finish_reason"]), (s.text(FOX, max_tokens=cut, temperature=0, ignore_eos=True), "stop"), "stop_token_ids")
is_(s.text(FOX, temperature=0, n_predict=5, min_tokens=0, skip_special_tokens=True, mirostat=0), s.text(FOX, temperature=0, max_tokens=5),
    "n_predict; fields that ask for what happens anyway")
ok(s.wait_open(0), "what was stopped is not computed any further")
near = text[5:9] + "~"
is_(s.text(FOX, max_tokens=24, temperature=0, stop=[near]), text, "what only begins like a stop string is given back")

# --- errors ---
ERRORS = [
    ("", None, "empty"), ("{", None, "line 1"),
    ("[]", None, "array"), ("null", None, "null"), ("\xff", None, "JSON"), ('{"a":1}{', None, "JSON"),
    ({}, "prompt", "missing"), ({"prompt": None}, "prompt", "missing"), ({"prompt": 5}, "prompt", "integer"),
    ({"prompt": []}, "prompt", "empty"),
    ({"prompt": [[]]}, "prompt", "empty"), ({"prompt": [1, "a"]}, "prompt", "item 1"), ({"prompt": ["a", 1]}, "prompt", "integer"),
    ({"prompt": [1.5]}, "prompt", "number"), ({"prompt": [99999999]}, "prompt", "vocabulary"), ({"prompt": [-1]}, "prompt", "no token"),
    ({"prompt": ["x"] * 200}, "prompt", "200"), ({"prompt": {"a": 1}}, "prompt", "object"),
    ({"prompt": "word " * 400}, "prompt", "context"),
    ({"prompt": "x", "temperature": "hot"}, "temperature", "string"), ({"prompt": "x", "temperature": -1}, "temperature", "-1"),
    ({"prompt": "x", "temperature": 1e9}, "temperature", "allowed"), ({"prompt": "x", "top_p": 2}, "top_p", "2"),
    ({"prompt": "x", "top_k": 1.5}, "top_k", "integer"), ({"prompt": "x", "n": 0}, "n", "allowed"),
    ({"prompt": "x", "n": 1000}, "n", "allowed"),
    ({"prompt": ["x"] * 100, "n": 2}, "n", "answers"), ({"prompt": "x", "max_tokens": "many"}, "max_tokens", "integer"),
    ({"prompt": "x", "max_tokens": -2}, "max_tokens", "-2"), ({"prompt": "x", "stop": 1}, "stop", "integer"),
    ({"prompt": "x", "stop": ["a"] * 17}, "stop", "17"), ({"prompt": "x", "stop": [1]}, "stop", "integer"),
    ({"prompt": "x", "stop": "a" * 2000}, "stop", "2000"), ({"prompt": "x", "stream": "yes"}, "stream", "string"),
    ({"prompt": "x", "stream_options": {}}, "stream_options", "stream"),
    ({"prompt": "x", "stream": True, "stream_options": 1}, "stream_options", "object"),
    ({"prompt": "x", "logit_bias": []}, "logit_bias", "object"), ({"prompt": "x", "logit_bias": {"a": 1}}, "logit_bias", "number"),
    ({"prompt": "x", "logit_bias": {"1": "b"}}, "logit_bias", "number"), ({"prompt": "x", "logit_bias": {"1": 101}}, "logit_bias", "100"),
    ({"prompt": "x", "logit_bias": {"9999999": 1}}, "logit_bias", "vocabulary"), ({"prompt": "x", "logprobs": 21}, "logprobs", "21"),
    ({"prompt": "x", "logprobs": True}, "logprobs", "boolean"), ({"prompt": "x", "seed": "a"}, "seed", "string"),
    ({"prompt": "x", "n": 3, "best_of": 2}, "best_of", "shown"), ({"prompt": "x", "suffix": "y"}, "suffix", "filling in"),
    ({"prompt": "x", "best_of": 2, "stream": True}, "best_of", "stream"), ({"prompt": "x", "best_of": 200}, "best_of", "128"),
    ({"prompt": "x", "echo": 1}, "echo", "integer"),
    ({"prompt": "x", "response_format": {"type": "yaml"}}, "response_format.type", "json_object"),
    ({"prompt": "x", "grammar": "root"}, "grammar", "::= behind"), ({"prompt": "x", "model": 5}, "model", "integer"),
    ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty", "allowed"),
    ({"prompt": "x", "ignore_eos": "no"}, "ignore_eos", "string"), ({"prompt": "x", "min_tokens": 5}, "min_tokens", "supported"),
    ({"prompt": "x", "mirostat": 2}, "mirostat", "supported"), ({"prompt": "x", "stop_token_ids": 5}, "stop_token_ids", "array"),
    ({"prompt": "x", "stop_token_ids": ["a"]}, "stop_token_ids", "item 0"), ({"prompt": "x", "modalities": ["audio"]}, "modalities", "text"),
]
bad = []
conn = s.connect()
for body, param, word in ERRORS:
    status, headers, text = s.ask("POST", "/v1/completions", body if body != "\xff" else b"\xff", conn=conn)
    try:
        error = json.loads(text)["error"]
        good = status == 400 and error["param"] == param and word in error["message"] and error["type"] == "invalid_request_error"
        if not good or "code" not in error:
            bad.append((str(body)[:80], status, error))
    except (ValueError, KeyError) as e:
        bad.append((str(body)[:80], status, text, e))
ok(not bad, f"{len(ERRORS)} wrong bodies: each a 400 that names the field", *bad)
status, headers, text = s.ask("POST", "/v1/completions", {"prompt": "One", "max_tokens": 1, "no_such_field": [1]}, conn=conn)
is_(status, 200, "unknown fields are ignored, and the connection goes on")
conn.close()
status, headers, text = s.ask("GET", "/v1/completions")
ok(status == 405 and headers["allow"] == "POST", "a wrong method: 405 with Allow", status, headers)
has(json.loads(text)["error"]["message"], "POST, not GET", "which says what it takes")
status, headers, text = s.ask("POST", "/v1/nothing", "{}")
ok(status == 404 and "/v1/nothing" in json.loads(text)["error"]["message"], "an unknown path: 404", status, text)
status, headers, text = s.ask("POST", "/v1/completions", b"x" * (17 << 20))
ok(status == 413 and "body" in json.loads(text)["error"]["message"], "17 MiB: 413", status, text)
with socket.create_connection(("127.0.0.1", s.port)) as raw:
    raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
    ok(b"413" in raw.recv(4096), "a body that will be too long is refused before it comes")
ok(s.ask("POST", "/v1/completions", {"prompt": "x"}, {"Host": "evil.example"})[0] == 403, "another Host, as by DNS rebinding: 403")
ok(s.ask("POST", "/v1/completions", {"prompt": "x"}, {"Origin": "http://evil.example"})[0] == 403, "a foreign page: 403")
ok(s.ask("GET", "/health", None, {"Host": "localhost:1"})[0] == 200, "localhost is we")

# --- many at once ---
texts = [None] * 64


def one(i):
    texts[i] = joined(s.stream("/v1/completions", prompt=FOX, max_tokens=24, temperature=0))[0]


threads = [threading.Thread(target=one, args=(i,)) for i in range(64)]
for t in threads:
    t.start()
for t in threads:
    t.join()
is_(set(texts), {one_process["text"]}, "64 streams at once, each the same text")
ok(s.wait_open(0), "nothing is left open")
status, metrics = s.get("/metrics")
ok(status == 200 and "stagecoach_time_to_first_token_seconds_count" in metrics, "/metrics: histograms", metrics)
has(metrics, 'stagecoach_http_requests_total{status="400"}', "/metrics: requests by status")
is_(s.stop(), 0, "SIGTERM: exit status 0")
done()
