"""The page as `stagecoach serve` serves it, over three worker processes: how it is sent, a chat, a worker killed in the middle of an
answer. With the demo's model where that is there, else with a tiny one of random weights. TAP."""
import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "front"))
from fronttest import Server, done, folder, has, is_, make_model, ok, skip, skip_all  # noqa: E402
import browser as chromium  # noqa: E402

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
DEMO = os.path.join(os.environ.get("STAGECOACH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "stagecoach"),
                    "SmolLM2-135M-Instruct.Q4_1.gguf")


def model():
    if os.path.exists(DEMO):
        return DEMO
    plain, why = make_model("plain.gguf", "--quant", "Q4_0", "--layers", "6")
    path = os.path.join(folder, "tiny.gguf")
    if not plain:
        skip_all(why)
    p = subprocess.run([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", TEMPLATE, plain, path], capture_output=True)
    return path if p.returncode == 0 else skip_all("gguf cannot write a chat template: " + p.stderr.decode()[-200:].replace("\n", " "))


# The engine's sizes of context are chosen so that an answer of some hundred tokens has room.
path = model()
s = Server(path, "--workers", 3, "--threads", 1, "--ctx", 2048)

# --- how it is sent ---
status, head, text = s.ask("GET", "/")
ok(status == 200 and head["content-type"].startswith("text/html") and text.rstrip().endswith("</html>"), "/ is the page", status, head)
ok("default-src 'none'" in head["content-security-policy"] and "unsafe" not in head["content-security-policy"], "with a strict policy", head)
ok(not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text), "and nothing in it leads to another host")
status, again, body = s.ask("GET", "/", None, {"If-None-Match": head["etag"]})
ok(status == 304 and body == "" and again["etag"] == head["etag"], "who has it is told so", status, again)
c = http.client.HTTPConnection("127.0.0.1", s.port)
for accept, zipped in (("gzip, deflate, br", True), ("GZIP;q=0.5", True), ("gzip;q=0", False), ("deflate", False), ("x-gzip2", False)):
    c.request("GET", "/", headers={"Accept-Encoding": accept})
    r = c.getresponse()
    data = r.read()
    is_((r.getheader("Content-Encoding") == "gzip", (gzip.decompress(data) if zipped else data).decode()), (zipped, text), f"Accept-Encoding: {accept}")
is_(s.ask("HEAD", "/")[0], 200, "HEAD")
is_(s.ask("POST", "/", {})[0], 405, "POST is refused")

# --- the activity that it draws from ---
first = s.get("/v1/cluster/activity")[1]
is_(first["records"], [], "the first look finds nothing recorded")
s.text("x", max_tokens=8, temperature=0)
second = s.get(f"/v1/cluster/activity?since={first['cursor']}")[1]
stages = [r for r in second["records"] if r[0] == 1]
ok({r[2] for r in stages} == {0, 1, 2} and all(r[3] <= r[4] <= r[5] for r in stages), "then each step has its times at each stage", second)
sent = {r[1]: r[2] for r in second["records"] if r[0] == 0}
ok(len(sent) >= 8 and all(sent[r[1]] <= r[3] for r in stages if r[2] == 0), "in order")
for bad in ("x", "-1", "1e3", "", "9" * 30):
    status, _, answer = s.ask("GET", f"/v1/cluster/activity?since={bad}")
    ok(status == 400 and "since" in json.loads(answer)["error"]["message"], f"since={bad[:5]} is refused", answer)
status = s.get("/v1/cluster")[1]
ok(len(status["links"]) == 4 and status["predicted"]["tokens_per_s_1"] > 0 and status["stages"][0]["measured"]["compute_us"] > 0, "/v1/cluster: links, predictions, sums", status)

# --- in the browser ---
web, why = chromium.start()
if not web:
    skip(why)
    is_(s.stop(), 0, "stops")
    done()
page = web.page(f"http://127.0.0.1:{s.port}/")
has(page.wait("activity.status && activity.now && document.getElementById('welcome').innerText") or "", "3 workers on one machine share", "three workers are seen")
page.eval(f"settings.values.temperature = 0; settings.values.max_tokens = 1200")
LAST = "document.querySelector('.answer:last-child > .body')"


def ask(words):
    page.eval("document.getElementById('input').focus()")
    page.type(words)
    page.key("Enter")


ask("Tell me a long story about a fox, a river and three machines.")
ok(page.wait(f"!chat.isRunning() && {LAST}.innerText.length > 40"), "a chat is held", page.text("#log"))
whole = page.eval("document.querySelector('.answer:last-child > .foot').innerText")
ok(re.search(r"tok/s.*first token after.*\d+ tokens?$", whole), "with its speed", whole)
story = page.eval(f"{LAST}.innerText")

page.eval("location.hash = '#cluster'")
ok(page.wait("document.querySelectorAll('.stage').length === 3"), "the drawing has three stages")
page.eval("location.hash = '#chat'")
page.eval("""chat.open(null); window.seen = new Set(); new MutationObserver(() => { for (const b of document.querySelectorAll(".stage .badge:not([hidden])")) seen.add(b.innerText);
  seen.add(document.getElementById("state-text").innerText); }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true})""")
victim = s.get("/v1/cluster")[1]["stages"][1]["node"]
pid = next(n["pid"] for n in s.get("/v1/cluster")[1]["nodes"] if n["name"] == victim)
ask("Tell me a long story about a fox, a river and three machines.")
ok(page.wait("chat.isRunning() && document.querySelector('.answer:last-child > .body').textContent.length > 20"), "another answer runs")
os.kill(pid, signal.SIGKILL)
page.eval("location.hash = '#cluster'")
ok(page.wait("[...document.querySelectorAll('.stage .badge:not([hidden])')].some((b) => /lost|restarted/.test(b.innerText))"), "a worker is killed: the drawing shows it",
   page.eval("[...seen].join()"))
ok(page.wait(f"[...document.querySelectorAll('.events li')].some((e) => e.innerText.includes('node {victim} is lost'))"), "and the events say so", page.text(".events"))
ok(page.wait("!chat.isRunning()"), "the answer goes on to its end")
page.eval("location.hash = '#chat'")
is_(page.eval(f"{LAST}.innerText"), story, "with the same words as without the fault")
ok(page.eval("!document.querySelector('.answer:last-child > .error') || document.querySelector('.answer:last-child > .error').hidden"), "and no error")
ok(page.wait("activity.status.state === 'running' && activity.status.epoch > 1"), "the pipeline runs again")
is_(page.console, [], "nothing on the console")
base = f"http://127.0.0.1:{s.port}/"
is_([u for u in page.requests if not u.startswith((base, "data:", "blob:"))], [], "no request to anybody else")
web.close()
is_(s.stop(), 0, "stops")
done()
