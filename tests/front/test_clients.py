"""serve as its clients see it: a real small model (SmolLM2, where the demo's file is) over three worker processes, asked by the
official openai client for every feature, streamed and not, by curl, and by LangChain where that is installed. TAP."""
import json
import os
import shutil
import subprocess

from fronttest import Server, done, has, is_, ok, skip, skip_all

CACHE = os.environ.get("STAGECOACH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "stagecoach")
MODEL = os.path.join(CACHE, "SmolLM2-135M-Instruct.Q4_1.gguf")
if not os.path.exists(MODEL):
    skip_all("SmolLM2: its file is not here (./dev demo fetches it)")
try:
    import openai
except ImportError:
    skip_all("Python has no openai")

s = Server(MODEL, "--workers", 3, "--threads", 1, "--ctx", 2048, "--alias", "smol")
BASE = f"http://127.0.0.1:{s.port}/v1"
client = openai.OpenAI(base_url=BASE, api_key="none", max_retries=0, timeout=120)
ASK = [{"role": "user", "content": "What is gravity?"}]
GREEDY = {"model": "smol", "temperature": 0}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


def chat(**kw):
    return client.chat.completions.create(**{**GREEDY, "messages": ASK, "max_tokens": 40, **kw})


def put_together(stream):
    """(content, calls as [id, name, arguments], finish_reason, usage, log-probabilities) of a streamed chat."""
    content, calls, finish, usage, n = "", {}, None, None, 0
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            content += choice.delta.content or ""
            n += len(choice.logprobs.content) if choice.logprobs else 0
            for c in choice.delta.tool_calls or []:
                call = calls.setdefault(c.index, [c.id, c.function.name, ""])
                call[2] += c.function.arguments or ""
    return content, list(calls.values()), finish, usage, n


# --- chats ---
is_([m.id for m in client.models.list()], ["smol"], "models")
is_(client.models.retrieve("smol").id, "smol", "a model by its name")
whole = chat()
text = whole.choices[0].message.content
has(text, "physics", "a chat")
is_((whole.choices[0].finish_reason, whole.object), ("length", "chat.completion"), "cut at max_tokens")
content, calls, finish, usage, _ = put_together(chat(stream=True, stream_options={"include_usage": True}))
is_((content, calls, finish), (text, [], "length"), "streamed: the same")
is_((usage.completion_tokens, usage.prompt_tokens), (whole.usage.completion_tokens, whole.usage.prompt_tokens), "with the same usage")
many = chat(n=3, temperature=0.9, seed=3, max_tokens=12)
is_([c.message.content for c in many.choices], [c.message.content for c in chat(n=3, temperature=0.9, seed=3, max_tokens=12).choices],
    "n, temperature, seed: again the same")
ok(len({c.message.content for c in many.choices}) > 1, "of several answers", many)
WORD = text[20:27]
is_(chat(stop=[WORD]).choices[0].message.content, text[:text.index(WORD)], "stop")
is_(put_together(chat(stop=[WORD], stream=True))[:3:2], (text[:text.index(WORD)], "stop"), "stop, streamed")
r = chat(max_completion_tokens=3)
is_((r.usage.completion_tokens, r.choices[0].finish_reason), (3, "length"), "max_completion_tokens")
r = chat(logprobs=True, top_logprobs=5)
lp = r.choices[0].logprobs.content
ok(len(lp) == r.usage.completion_tokens and all(len(t.top_logprobs) == 5 and t.logprob == t.top_logprobs[0].logprob for t in lp), "logprobs")
is_(put_together(chat(logprobs=True, stream=True))[4], len(lp), "logprobs, streamed")
first = s.post("/tokenize", content=text.split()[0])[1]["tokens"][0]
ok(chat(logit_bias={str(first): -100}).choices[0].message.content != text, "logit_bias")
ok(chat(frequency_penalty=2, presence_penalty=2, top_p=0.5, extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}).choices, "penalties")
parts = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
ok(chat(messages=parts).choices[0].message.content, "contents of parts")
ok(chat(messages=[{"role": "developer", "content": "Be brief."}, *ASK]).choices[0].message.content, "the role developer")
for what, kw, param in (("a temperature", {"temperature": -1}, "temperature"), ("no messages", {"messages": []}, "messages"),
                        ("an image", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
                        ("tool_choice without tools", {"tool_choice": "required"}, "tool_choice")):
    try:
        chat(**kw)
        ok(False, f"{what} is refused")
    except openai.BadRequestError as e:
        ok(e.param == param and e.type == "invalid_request_error", f"{what}: BadRequestError with its param", e)

# --- tools ---
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
r = chat(messages=ASK_WEATHER, tools=[WEATHER, CLOCK], tool_choice=NAMED, max_tokens=60)
call = (r.choices[0].message.tool_calls or [None])[0]
ok(call and call.function.name == "get_weather" and call.type == "function" and call.id, "a named tool is called", r.choices[0])
arguments = json.loads(call.function.arguments) if call else {}
ok(list(arguments) == ["city"] and isinstance(arguments["city"], str), "with arguments by its schema", call)
is_((r.choices[0].finish_reason, r.choices[0].message.content), ("tool_calls", None), "finish_reason tool_calls, no content")
content, calls, finish, _, _ = put_together(chat(messages=ASK_WEATHER, tools=[WEATHER, CLOCK], tool_choice=NAMED, max_tokens=60, stream=True))
is_(([c[1:] for c in calls], finish, content), ([["get_weather", call.function.arguments]], "tool_calls", ""), "streamed: the same call")
r = chat(messages=ASK_WEATHER, tools=[WEATHER], tool_choice="required", max_tokens=60, parallel_tool_calls=False)
is_([c.function.name for c in r.choices[0].message.tool_calls or []], ["get_weather"], "tool_choice required, one call")
TIMES = {"type": "function", "function": {"name": "set_alarm", "parameters": {
    "type": "object", "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}, "days": {"type": "array", "items": {"enum": ["Mon", "Tue"]},
                                                                                                      "maxItems": 2}}, "required": ["hour", "days"]}}}
for seed in range(6):
    r = chat(messages=ASK_WEATHER, tools=[WEATHER, TIMES], tool_choice="required", max_tokens=120, temperature=1.0, seed=seed)
    c = r.choices[0]
    a = json.loads(c.message.tool_calls[0].function.arguments) if c.message.tool_calls else {}
    fine = c.finish_reason == "length" or (len(c.message.tool_calls) == 1 and (
        c.message.tool_calls[0].function.name == "get_weather" and isinstance(a["city"], str) or
        c.message.tool_calls[0].function.name == "set_alarm" and 0 <= a["hour"] <= 23 and set(a["days"]) <= {"Mon", "Tue"}))
    if not fine:
        ok(False, "one of several tools, at temperature 1", c)
ok(True, "required, of several tools, at temperature 1: a tool's name, arguments by its schema")
try:
    chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
                                                  "strict": True}}],
         tool_choice="required")
    ok(False, "a schema that cannot be kept is refused")
except openai.BadRequestError as e:
    ok(e.param == "tools" and "tools[0].function.parameters" in str(e), "a schema that cannot be kept is refused by its place", e)
history = [*ASK_WEATHER, {"role": "assistant", "content": None, "tool_calls": [
    {"id": call.id, "type": "function", "function": {"name": "get_weather", "arguments": call.function.arguments}}]},
    {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"}]
r = chat(messages=history, tools=[WEATHER])
ok(r.choices[0].message.content or r.choices[0].message.tool_calls, "a tool's result goes back", r.choices[0])
shown = json.loads(s.ask("POST", "/apply-template", {"messages": history, "tools": [WEATHER]})[2])["prompt"]
ok("18 degrees" in shown and "get_weather" in shown, "and is shown to the model with the call and the tool", shown)
is_(chat(tools=[WEATHER], tool_choice="none").choices[0].message.content, text, "tool_choice none: as without")
ok(chat(tools=[WEATHER], tool_choice="auto").choices[0].finish_reason in ("stop", "length", "tool_calls"), "tool_choice auto")

# --- completions ---
r = client.completions.create(**GREEDY, prompt="Once upon a time", max_tokens=8)
tale = r.choices[0].text
ok(len(tale) > 8, "a completion", r)
stream = client.completions.create(**GREEDY, prompt="Once upon a time", max_tokens=8, stream=True)
is_("".join(c.choices[0].text for c in stream), tale, "streamed: the same")
r = client.completions.create(**GREEDY, prompt="Once upon a time", max_tokens=4, echo=True, logprobs=2)
lp = r.choices[0].logprobs
ok(r.choices[0].text.startswith("Once upon a time") and lp.token_logprobs[0] is None and all(x < 0 for x in lp.token_logprobs[1:]),
   "echo with logprobs: of the prompt, too", lp)
is_("".join(lp.tokens)[:len("Once upon a time")], "Once upon a time", "whose tokens spell it")
is_(lp.text_offset, [len("".join(lp.tokens[:i])) for i in range(len(lp.tokens))], "at their places")
r0 = client.completions.create(**GREEDY, prompt="Once upon a time", max_tokens=0, echo=True, logprobs=2)
is_(r0.choices[0].logprobs.token_logprobs, lp.token_logprobs[:len(r0.choices[0].logprobs.tokens)], "of the prompt alone: max_tokens 0")
parts = [c.choices[0].logprobs for c in client.completions.create(**GREEDY, prompt="Once upon a time", max_tokens=4, echo=True, logprobs=2, stream=True)
         if c.choices and c.choices[0].logprobs]
is_(sum((p.token_logprobs for p in parts), []), lp.token_logprobs, "streamed, too")
again = client.completions.create(**GREEDY, prompt=r.choices[0].text, max_tokens=0, echo=True, logprobs=0).choices[0].logprobs
ok(all(abs(a - b) < 1e-4 for a, b in zip(again.token_logprobs[1:], lp.token_logprobs[1:])), "an answer given as prompt is as likely as when chosen",
   again.token_logprobs, lp.token_logprobs)
best = client.completions.create(model="smol", prompt="Once", max_tokens=6, temperature=1.2, seed=1, best_of=4, n=2, logprobs=0)
mean = [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in best.choices]
four = client.completions.create(model="smol", prompt="Once", max_tokens=6, temperature=1.2, seed=1, n=4, logprobs=0)
means = sorted((sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in four.choices), reverse=True)
is_(mean, means[:2], "best_of: the likeliest")
try:
    client.completions.create(**GREEDY, prompt="a", suffix="b")
    ok(False, "suffix is refused")
except openai.BadRequestError as e:
    ok(e.param == "suffix" and "filling in" in str(e), "suffix: refused where the vocabulary cannot", e)
v = client.embeddings.create(model="smol", input=["a", "b"])
is_([len(d.embedding) for d in v.data], [576, 576], "embeddings")

# --- curl ---
if shutil.which("curl"):
    def curl(*args):
        return subprocess.run(["curl", "-sS", "--max-time", "60", *args], capture_output=True, text=True).stdout
    j = json.loads(curl(f"{BASE}/chat/completions", "-d", json.dumps({**GREEDY, "messages": ASK, "max_tokens": 40})))
    is_(j["choices"][0]["message"]["content"], text, "curl: a chat")
    lines = curl("-N", f"{BASE}/chat/completions", "-d", json.dumps({**GREEDY, "messages": ASK, "max_tokens": 40, "stream": True})).split("\n\n")
    deltas = [json.loads(x[6:])["choices"][0]["delta"] for x in lines if x.startswith("data: {")]
    is_("".join(d.get("content", "") for d in deltas), text, "curl: streamed")
    j = json.loads(curl(f"{BASE}/chat/completions", "-d", json.dumps({**GREEDY, "messages": ASK_WEATHER, "tools": [WEATHER], "tool_choice": NAMED, "max_tokens": 60})))
    is_(j["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "get_weather", "curl: a tool")
else:
    skip("curl is not installed")

# --- LangChain ---
try:
    from langchain_openai import ChatOpenAI
    from langchain_core.tools import tool
except ImportError:
    skip("LangChain is not installed (pip install langchain-openai)")
else:
    @tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return "sunny in " + city

    llm = ChatOpenAI(base_url=BASE, api_key="none", model="smol", temperature=0, max_tokens=60, max_retries=0)
    is_(llm.invoke("What is gravity?").content, chat(max_tokens=60).choices[0].message.content, "LangChain: a chat")
    is_("".join(c.content for c in llm.stream("What is gravity?")), chat(max_tokens=60).choices[0].message.content, "LangChain: streamed")
    bound = llm.bind_tools([get_weather], tool_choice="get_weather")
    message = bound.invoke("What is the weather in Paris?")
    is_([c["name"] for c in message.tool_calls], ["get_weather"], "LangChain: a tool is called")
    merged = None
    for chunk in bound.stream("What is the weather in Paris?"):
        merged = chunk if merged is None else merged + chunk
    is_([(c["name"], c["args"]) for c in merged.tool_calls], [(c["name"], c["args"]) for c in message.tool_calls], "LangChain: streamed, too")
is_(s.stop(), 0, "stops")
done()
