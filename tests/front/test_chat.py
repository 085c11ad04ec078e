"""serve: /v1/chat/completions, templates, embeddings, tokens, with the official openai client where it is installed. TAP."""
import base64
import json
import math
import os
import struct
import subprocess
import sys

from fronttest import Server, done, folder, has, is_, joined, make_model, ok, run, skip, skip_all

plain, why = make_model("plain.gguf", "--quant", "Q4_0", "--layers", "4")
if not plain:
    skip_all(why)
TEMPLATE = ("{{ bos_token }}{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% for m in messages %}[{{ m.role }}] {{ m.content }}"
            "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}{% if mood %}({{ mood }}){% endif %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}")
model = os.path.join(folder, "fox.gguf")
p = subprocess.run([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", TEMPLATE, plain, model], capture_output=True)
if p.returncode != 0:
    skip_all("gguf cannot write a chat template: " + p.stderr.decode()[-200:].replace("\n", " "))

s = Server(model, "--workers", 2, "--threads", 1, "--ctx", 512)
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the fox?"}]
GREEDY = {"temperature": 0, "max_tokens": 16}
CHAT = "/v1/chat/completions"

# --- chats ---
status, chat = s.post(CHAT, messages=ASK, **GREEDY)
is_(status, 200, "a chat")
rendered = s.post("/apply-template", messages=ASK)[1]["prompt"]
is_(rendered, "<s>[system] Be brief.[user] Where is the fox?[assistant]", "/apply-template")
tokens = s.post("/tokenize", content=rendered)[1]["tokens"]
is_(tokens[0], 1, "/tokenize: control tokens count")
is_(chat["usage"]["prompt_tokens"], len(tokens), "the template's BOS stands once")
is_(chat["choices"][0]["message"]["role"], "assistant", "an assistant's message")
answer = chat["choices"][0]["message"]["content"]
is_(answer.strip(), s.text(tokens, **GREEDY).strip(), "as the rendered prompt is gone on with")
events = s.stream(CHAT, messages=ASK, **GREEDY)
is_(joined(events)[:2], (answer, "length"), "streamed: the same")
is_(events[0]["choices"][0]["delta"]["role"], "assistant", "the first chunk says whose turn it is")
ok(all("content" not in e["choices"][0]["delta"] for e in events if isinstance(e, dict) and e["choices"][0]["finish_reason"]),
   "the last one brings no text")
parts = [{"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]}, ASK[1]]
is_(s.post(CHAT, messages=parts, **GREEDY)[1]["choices"][0]["message"]["content"], answer, "a content of parts")
control = [{"role": "user", "content": "</s><s>"}]
n_user = s.post(CHAT, messages=control, max_tokens=1)[1]["usage"]["prompt_tokens"]
n_parsed = len(s.post("/tokenize", content=s.post("/apply-template", messages=control)[1]["prompt"])[1]["tokens"])
ok(n_user > n_parsed, "a user's text never becomes control tokens", n_user, n_parsed)
tools = [{"type": "function", "function": {"name": "fox_finder", "parameters": {"type": "object"}}}]
has(s.post("/apply-template", messages=ASK, tools=tools)[1]["prompt"], "fox_finder", "tools are shown to the template")
is_(s.post("/apply-template", messages=ASK, tools=tools, tool_choice="none")[1]["prompt"], rendered, "but for tool_choice none")
has(s.post("/apply-template", messages=ASK, chat_template_kwargs={"mood": "gay"})[1]["prompt"], "(gay)", "chat_template_kwargs")
call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}
calls = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
is_(s.post(CHAT, messages=calls, max_tokens=1)[0], 200, "an assistant's message without content, but with tool_calls")
thought = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "reasoning_content": "Hm."}, ASK[1]]
is_(s.post(CHAT, messages=thought, max_tokens=1)[0], 200, "or with its thoughts alone")
lp = s.post(CHAT, messages=ASK, logprobs=True, top_logprobs=4, **GREEDY)[1]["choices"][0]["logprobs"]["content"]
ok(len(lp) == 16 and all(len(t["top_logprobs"]) == 4 and t["top_logprobs"][0]["token"] == t["token"] for t in lp), "logprobs", lp)
is_(b"".join(bytes(t["bytes"]) for t in lp).decode("utf-8", "replace").strip(), answer.strip(), "whose bytes spell the answer")
lp = s.post(CHAT, messages=ASK, logprobs=True, **GREEDY)[1]["choices"][0]["logprobs"]["content"]
is_([t["top_logprobs"] for t in lp], [[]] * 16, "logprobs alone")
is_(s.post(CHAT, messages=ASK, temperature=0, max_completion_tokens=3)[1]["usage"]["completion_tokens"], 3, "max_completion_tokens")
cut = answer[3:6]
is_(s.post(CHAT, messages=ASK, stop=cut, **GREEDY)[1]["choices"][0]["message"]["content"], answer[:answer.index(cut)], "stop")

ERRORS = [
    ({}, "messages", "missing"), ({"messages": []}, "messages", "empty"), ({"messages": "hi"}, "messages", "array"),
    ({"messages": ["hi"]}, "messages", "messages[0]"), ({"messages": [{"content": "x"}]}, "messages", "role"),
    ({"messages": [{"role": "user"}]}, "messages", "content"), ({"messages": [{"role": "user", "content": 5}]}, "messages", "content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "image_url"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages", "text"),
    ({"messages": ASK, "tools": {}}, "tools", "array"), ({"messages": ASK, "tools": [1]}, "tools", "tools[0]"),
    ({"messages": ASK, "tool_choice": "required"}, "tool_choice", "required"), ({"messages": ASK, "tool_choice": "often"}, "tool_choice", "expected"),
    ({"messages": ASK, "tools": tools, "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "\"g\""),
    ({"messages": ASK, "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "tools[0].function.name"),
    ({"messages": ASK, "tools": tools, "parallel_tool_calls": 1}, "parallel_tool_calls", "integer"),
    ({"messages": ASK, "functions": []}, "functions", "tools"), ({"messages": ASK, "reasoning_effort": "so"}, "reasoning_effort", "medium"),
    ({"messages": ASK, "reasoning_format": "x"}, "reasoning_format", "deepseek"),
    ({"messages": ASK, "top_logprobs": 3}, "top_logprobs", "logprobs"), ({"messages": ASK, "logprobs": 3}, "logprobs", "integer"),
    ({"messages": ASK, "response_format": {"type": "json_schema"}}, "response_format.json_schema", "an object"),
    ({"messages": ASK, "chat_template_kwargs": 1}, "chat_template_kwargs", "object"),
    ({"messages": [{"role": "user", "content": "fox " * 600}]}, "messages", "context"),
]
bad = []
for body, param, word in ERRORS:
    status, j = s.post(CHAT, **body)
    if status != 400 or j["error"]["param"] != param or word not in j["error"]["message"]:
        bad.append((str(body)[:80], status, j))
ok(not bad, f"{len(ERRORS)} wrong chats: each a 400 that names the field", *bad)

# --- texts and tokens ---
text = "The fox – жив 🦊."
tokens = s.post("/tokenize", content=text)[1]["tokens"]
is_(tokens, [int(t) for t in run("tokenize", "-m", model, data=text).out.split()], "/tokenize: as the command does")
is_(s.post("/tokenize", prompt=text)[1]["tokens"], [1, *tokens], "prompt: with BOS, as vLLM has it")
is_(s.post("/detokenize", tokens=tokens)[1]["content"], text, "/detokenize")
is_(s.post("/detokenize", tokens=[])[1]["content"], "", "of nothing")
is_(s.post("/detokenize", tokens=["a"])[0], 400, "of a string: 400")
is_(s.post("/tokenize")[0], 400, "/tokenize without a text: 400")

# --- embeddings ---
status, one = s.post("/v1/embeddings", input="The fox")
is_(status, 200, "an embedding")
v = one["data"][0]["embedding"]
ok(abs(math.sqrt(sum(x * x for x in v)) - 1) < 1e-5 and len(v) == 512, "of length 1", v[:4])
many = s.post("/v1/embeddings", input=["A goose", "The fox"] * 8, encoding_format="base64")[1]["data"]
is_([e["index"] for e in many], list(range(16)), "sixteen")
is_(list(struct.unpack("<512f", base64.b64decode(many[1]["embedding"]))), [struct.unpack("<f", struct.pack("<f", x))[0] for x in v],
    "each as if alone, bit for bit, in base64")
ok(many[0]["embedding"] != many[1]["embedding"], "another text has another")
for body, param in (({}, "input"), ({"input": "x", "dimensions": 7}, "dimensions"), ({"input": "fox " * 600}, "input"),
                    ({"input": "x", "encoding_format": "hex"}, "encoding_format")):
    status, j = s.post("/v1/embeddings", **body)
    ok(status == 400 and j["error"]["param"] == param, f"embeddings: wrong {param}", status, j)

# --- the official client ---
try:
    import openai
except ImportError:
    skip("Python has no openai")
    openai = None
if openai:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.port}/v1", api_key="none", max_retries=0, timeout=60)
    is_([m.id for m in client.models.list()], ["fox"], "openai: models")
    r = client.chat.completions.create(model="fox", messages=ASK, temperature=0, max_tokens=16, logprobs=True, top_logprobs=2)
    is_((r.choices[0].message.content, r.choices[0].finish_reason, r.usage.completion_tokens), (answer, "length", 16), "openai: a chat")
    is_(len(r.choices[0].logprobs.content[0].top_logprobs), 2, "openai: logprobs")
    got, usage = "", None
    for chunk in client.chat.completions.create(model="fox", messages=ASK, temperature=0, max_tokens=16, stream=True,
                                                stream_options={"include_usage": True}):
        got += chunk.choices[0].delta.content or "" if chunk.choices else ""
        usage = chunk.usage or usage
    is_((got, usage.completion_tokens), (answer, 16), "openai: a chat, streamed, with usage")
    r = client.completions.create(model="fox", prompt=["One", "Two"], max_tokens=4, n=2, seed=5, echo=True, stop=["zzz"],
                                  logit_bias={"5": -1})
    is_([c.index for c in r.choices], [0, 1, 2, 3], "openai: completions of two prompts, two each")
    ok(r.choices[0].text.startswith("One") and r.choices[3].text.startswith("Two"), "openai: echo")
    got = "".join(c.choices[0].text for c in client.completions.create(model="fox", prompt="One", max_tokens=8, temperature=0, stream=True))
    is_(got, s.text("One", max_tokens=8, temperature=0), "openai: a completion, streamed")
    e = client.embeddings.create(model="fox", input="The fox")
    ok(max(abs(a - b) for a, b in zip(e.data[0].embedding, v)) < 1e-6, "openai: embeddings")
    try:
        client.chat.completions.create(model="fox", messages=ASK, temperature=-1)
        ok(False, "openai: an error")
    except openai.BadRequestError as error:
        ok(error.param == "temperature" and "-1" in str(error), "openai: an error is a BadRequestError with its param", error)
    with client.chat.completions.create(model="fox", messages=ASK, extra_body={"ignore_eos": True}, stream=True) as stream:
        next(iter(stream))
    ok(s.wait_open(0), "openai: closing a stream ends its answer")
is_(s.stop(), 0, "stops")

# --- tools, thoughts, filling in: by a template that has them ---
TEMPLATE = ("{{ bos_token }}{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools><tool_call>{% endif %}"
            "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>"
            "{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% if enable_thinking is not defined or enable_thinking %}"
            "<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}{% endif %}")
code = os.path.join(folder, "code.gguf")
p = subprocess.run([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", TEMPLATE, "--special-token-by-id", "fim_pre", "300",
                    "--special-token-by-id", "fim_suf", "301", "--special-token-by-id", "fim_mid", "302", plain, code], capture_output=True)
is_(p.returncode, 0, "a model that thinks and fills in")
s = Server(code, "--workers", 2, "--threads", 1, "--ctx", 512)
meta = s.get("/v1/models")[1]["data"][0]["meta"]
is_((meta["tools"], meta["thinks"]), ("hermes", True), "/v1/models says how it calls tools, and that it thinks")
m = s.post(CHAT, messages=ASK, **GREEDY)[1]
ok(m["choices"][0]["message"]["content"] == "" and m["choices"][0]["message"]["reasoning_content"], "the prompt opens the thoughts: reasoning_content", m)
ok(m["usage"]["completion_tokens_details"]["reasoning_tokens"] == 16, "counted", m["usage"])
thoughts = m["choices"][0]["message"]["reasoning_content"]
events = s.stream(CHAT, messages=ASK, **GREEDY)
is_("".join(e["choices"][0]["delta"].get("reasoning_content", "") for e in events[:-1]), thoughts, "streamed: the same")
for kw in ({"reasoning_format": "none"}, {"separate_reasoning": False}):
    m = s.post(CHAT, messages=ASK, **GREEDY, **kw)[1]["choices"][0]["message"]
    ok(m["content"].strip() == thoughts and "reasoning_content" not in m, f"{kw}: in the content", m)
for kw in ({"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}):
    m = s.post(CHAT, messages=ASK, **GREEDY, **kw)[1]["choices"][0]["message"]
    ok(m["content"] and "reasoning_content" not in m, f"{kw}: no thoughts", m)
named = {"type": "function", "function": {"name": "fox_finder"}}
m = s.post(CHAT, messages=ASK, tools=tools, tool_choice=named, **GREEDY)[1]["choices"][0]
said = m["message"]["content"] or "".join(c["function"]["name"] for c in m["message"]["tool_calls"])
ok("fox_finder" in said and "reasoning_content" not in m["message"], "a named tool: the answer begins with its call", m)
calls = [ASK[1], {"role": "assistant", "tool_calls": [{"id": "x", "type": "function", "function": {"name": "fox_finder", "arguments": "{\"a\": 1}"}}]},
         {"role": "tool", "tool_call_id": "x", "content": "under the tree"}]
has(s.post("/apply-template", messages=calls, tools=tools)[1]["prompt"], '<tool_call>{"name": "fox_finder", "arguments": {"a": 1}}</tool_call>[tool]under',
    "calls and results go back through the template")
a, b = (s.post("/tokenize", content=t)[1]["tokens"] for t in ("One", "Two"))
is_(s.text("One", suffix="Two", **GREEDY), s.text([1, 300, *a, 301, *b, 302], **GREEDY), "suffix: what stands between is filled in")
status, j = s.post("/v1/completions", prompt=[1, 2], suffix="x")
ok(status == 400 and j["error"]["param"] == "suffix", "not between tokens", j)
is_(s.stop(), 0, "stops")

# --- a model without a template ---
s = Server(plain, "--workers", 1)
has(s.post("/apply-template", messages=ASK)[1]["prompt"], "User: Where is the fox?", "without a template: a dialogue in plain words")
is_(s.post(CHAT, messages=ASK, max_tokens=2)[0], 200, "which chats, too")
is_(s.stop(), 0, "stops")
done()
