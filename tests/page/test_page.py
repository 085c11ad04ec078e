"""The page in a real browser against a server that stands in for ours: Markdown from strangers, streams and their ends, stopping,
asking again, editing, what the browser keeps, keys, keyboard alone, narrow screens, offline. TAP."""
import json
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "front"))
from fronttest import done, has, is_, ok, skip_all  # noqa: E402
import browser as chromium  # noqa: E402
from fake import Fake, Pipeline, built_page  # noqa: E402

web, why = chromium.start()
if not web:
    skip_all(why)

hold = threading.Event()  # answers that wait go on


def answers(body):
    words = body["messages"][-1]["content"]
    if words.startswith("echo "):
        yield from (words[5:][i:i + 7] for i in range(0, len(words) - 5, 7))
    elif words == "hold":
        yield "One, two"
        yield ("comment", "the pipeline is being repaired: node tower is lost")
        while not hold.wait(0.05):
            yield ("comment", "the pipeline is being repaired: node tower is lost")
        yield ", three."
    elif words == "fail once":
        if sum(b["messages"][-1]["content"] == words for b in fake.bodies) == 1:
            yield "Half"
            yield ("error", "the pipeline could not be repaired within 120 s")
        yield "Whole."
    elif words == "full":
        yield ("status", 429, "too many requests at once; try again in a while")
    elif words == "break":
        yield "Half"
        yield "break"
    elif words == "think":
        yield {"reasoning_content": "First this, "}
        yield {"reasoning_content": "then that."}
        yield "Done."
    elif words == "think inline":
        yield from ("<thi", "nk>Quiet", " thoughts</thi", "nk>\n\nLoud answer")
    else:
        yield "Hello."


html = built_page()
fake = Fake(html, Pipeline(["attic", "tower", "laptop"], [8, 13, 8]), answers)
page = web.page(fake.url)
ok(page.wait("activity.status !== null && activity.now !== null"), "the page loads and hears of the cluster", page.console)
has(page.text("#empty"), "3 machines share SmolLM2-135M-Instruct", "it says what there is")


def ask(words, wait=True):
    page.eval("document.getElementById('input').focus()")
    page.type(words)
    page.key("Enter")
    page.wait("chat.isRunning()" if not wait else "!chat.isRunning() && document.querySelector('.answer:last-child')")


def last(selector=".body"):
    return page.eval(f"(document.querySelector('.answer:last-child > {selector}') || {{}}).innerText")


# --- markdown, and what must not happen ---
HOSTILE = [
    "<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 2'>", "<svg onload=window.hit=3>", "[a](javascript:window.hit=4)",
    "[a](JaVaScRiPt:window.hit=5)", "[a](data:text/html,<script>parent.hit=6</script>)", "![a](javascript:window.hit=7)",
    "<a href='javascript:window.hit=8'>x</a>", "[a](vbscript:x)", "<javascript:window.hit=9>", "<iframe src='javascript:parent.hit=10'></iframe>",
    "```html\n<img src=x onerror='window.hit = 11'>\n```", "```<img/src=x/onerror=window.hit=12>\nx\n```", "| <img src=x onerror='window.hit=13'> |\n|--|\n| <b>b</b> |",
    "# <img src=x onerror='window.hit=14'>", "[x](https://a.example/\"onmouseover=\"window.hit=15)", "> <style>*{display:none}</style>",
    "- <details open ontoggle='window.hit=16'>", "\\<img src=x onerror='window.hit=17'>", "[a]( javascript:window.hit=18)", "[a](java\nscript:window.hit=19)",
    "`<b>`", "&lt;img src=x onerror='window.hit=20'&gt;", "[a](\u0001javascript:window.hit=21)", "<form action='https://evil.example'><input></form>",
]
page.eval("""window.shownAs = (source) => { const n = document.createElement("div"); n.className = "body"; document.body.append(n); markdownInto(n, source);
  const bad = [...n.querySelectorAll("*")].filter((x) => /^(script|img|svg|iframe|style|form|input|object|embed|base|meta|video|audio)$/i.test(x.tagName) && !x.closest("button")
    || [...x.attributes].some((a) => /^on/i.test(a.name) || (a.name === "href" && !/^(https?:|mailto:)/i.test(a.value)))).map((x) => x.outerHTML);
  const all = n.innerText; n.remove(); return {bad, all}; }""")
wrong = []
for source in HOSTILE:
    for s in (source, f"- {source}", f"> {source}", f"**{source}**"):
        shown = page.eval(f"shownAs({json.dumps(s)})")
        if shown["bad"]:
            wrong.append((s, shown["bad"]))
ok(not wrong, f"{len(HOSTILE)} hostile texts, each in four places: no foreign element, attribute or link", *wrong)
ask("echo " + "\n\n".join(HOSTILE))
is_(page.eval("window.hit"), None, "as an answer they do nothing either")
has(last(), "<script>window.hit = 1</script>", "they are shown as the text that they are")
is_(page.eval("document.querySelectorAll('#log script, #log img, #log iframe, #log .body > svg').length"), 0, "and no such element is in the page")

CASES = {
    "**a** *b* `c` ~~d~~ __e__ _f_": "<p><strong>a</strong> <em>b</em> <code>c</code> <del>d</del> <strong>e</strong> <em>f</em></p>",
    "# A\n## B": "<h2>A</h2><h3>B</h3>",
    "- a\n- b\n  - c\n    1. d": "<ul><li>a</li><li>b<ul><li>c<ol><li>d</li></ol></li></ul></li></ul>",
    "3. a\n4. b": "<ol start=\"3\"><li>a</li><li>b</li></ol>",
    "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
    "a  \nb": "<p>a<br>b</p>",
    "snake_case_name 2*3*4 \\*x\\*": "<p>snake_case_name 2<em>3</em>4 *x*</p>",
    "see https://a.example/x_(y). ok": None,
    "***": "<hr>",
    "**open": "<p>**open</p>",
    "`a` ``b`c``": "<p><code>a</code> <code>b`c</code></p>",
    "a\n\nb": "<p>a</p><p>b</p>",
    "**a *b* c**": "<p><strong>a <em>b</em> c</strong></p>",
    "- [x] a\n- [ ] b": None,
}
for source, want in CASES.items():
    got = page.eval(f"(() => {{ const n = document.createElement('div'); markdownInto(n, {json.dumps(source)}); return n.innerHTML; }})()")
    if want is not None:
        is_(got, want, f"Markdown {source!r}")
got = page.eval("(() => { const n = document.createElement('div'); n.append(...markdown('|a|b|\\n|--:|:-:|\\n|1|`x|y`|\\n\\n```c\\nint x = 1; // c\\n```')); return n.innerText + '#' + n.querySelectorAll('td.right, .h-word, .h-comment, .h-number').length; })()")
ok(got.endswith("#4") and "x|y" in got, "a table, and code in colours", got)
same = page.eval("""(() => { const s = "# A\\n\\ntext **b**\\n\\n- x\\n  - y\\n\\n```js\\nlet a = 1;\\n```\\n\\n| a | b |\\n|--|--|\\n| 1 | 2 |\\n\\n> q"; const n = document.createElement("div"), m = document.createElement("div");
  for (let i = 1; i <= s.length; i++) markdownInto(n, s.slice(0, i)); m.append(...markdown(s)); return n.innerHTML === m.innerHTML; })()""")
ok(same, "a text that grew letter by letter is shown like the whole")
slow = page.eval("""(() => { const t = performance.now(); for (const s of ["*".repeat(60000), "[".repeat(60000), "> ".repeat(30000), "`a".repeat(30000), "- ".repeat(30000),
  "|".repeat(60000) + "\\n|-|", "**a ".repeat(20000), "_a_ *b".repeat(10000), "<http:".repeat(10000), "https://a".repeat(6000), "\\n".repeat(60000), " \\n- a".repeat(9000)])
  markdown(s); return performance.now() - t; })()""")
ok(slow < 20000, "texts made to be slow are not", f"{slow} ms")

# --- how answers go and end ---
ask("hold", wait=False)
has(page.wait("(() => { const n = document.querySelector('.answer:last-child .note'); return n && !n.hidden && /repaired/.test(n.innerText) && n.innerText; })()") or "",
    "being repaired: node tower is lost", "what the server says meanwhile is shown")
page.key("Escape")
ok(page.wait("!chat.isRunning()"), "Esc stops an answer")
has(last(".note") or "", "You stopped it", "and it says so")
has(last(), "One, two", "what there was stays")
hold.set()
page.click(".answer:last-child .actions button:last-child")
ok(page.wait("!chat.isRunning() && /three/.test(document.querySelector('.answer:last-child > .body').innerText)"), "asking again takes its place")
is_(page.eval("document.querySelectorAll('.user').length"), 2, "without another question")
ok("tok/s" in last(".foot") and "first token after" in last(".foot"), "the answer's speed stands under it", last(".foot"))

ask("fail once")
has(last(".error"), "The pipeline could not be repaired within 120 s.", "an error in the middle is a sentence")
page.click(".answer:last-child .error button")
ok(page.wait("!chat.isRunning() && document.querySelector('.answer:last-child > .body').innerText === 'Whole.'"), "and can be tried again")
ask("full")
has(last(".error"), "Too many requests at once", "so is one at the beginning")
ask("break")
has(last(".error"), "The connection was lost in the middle of the answer.", "and a connection that is lost")
ask("think")
is_(last(), "Done.", "thoughts are apart from the answer")
is_(page.eval("document.querySelector('.answer:last-child details').open"), False, "and folded")
is_(page.eval("document.querySelector('.answer:last-child details .body').textContent"), "First this, then that.", "but there")
ask("think inline")
is_(last(), "Loud answer", "also where they come inside the answer")

# --- editing, settings ---
page.eval("settings.values.system = 'Be brief.'; settings.values.temperature = 0.5; settings.save()")
page.key("ArrowUp")
is_(page.eval("document.getElementById('input').value"), "think inline", "arrow up edits the last message")
page.eval("document.getElementById('input').value = ''")
page.type("edited")
page.key("Enter")
ok(page.wait("!chat.isRunning() && document.querySelector('.answer:last-child > .body').innerText === 'Hello.'"), "an edited message is asked instead")
body = fake.bodies[-1]
is_((body["messages"][0], body["messages"][-1], body["temperature"], body["model"]),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "edited"}, 0.5, "SmolLM2-135M-Instruct"), "with the settings")
ok(not any("think inline" in m["content"] for m in body["messages"]), "and without what was edited", body["messages"])
ok(not any("<think>" in m["content"] or "Quiet" in m["content"] for m in body["messages"]), "old thoughts are not sent again")

# --- what the browser keeps ---
page.click("#new-chat")
ask("another chat")
is_(page.eval("document.querySelectorAll('#chats .chat').length"), 2, "two chats are listed")
page.go(fake.url)
page.wait("document.querySelectorAll('.answer').length")
has(page.text("#log"), "another chat", "after a reload the chat is there")
export = page.eval("store.exportAll()")
page.eval("store.clear(); chat.open(null)")
is_(page.eval("store.list().length"), 0, "deleted")
is_(page.eval(f"store.importAll({json.dumps(export)})"), 2, "and imported again")
for text, why in (("nonsense", "not JSON"), ('{"format": "x"}', "no chats"), ('{"format": "stagecoach-chats", "chats": [{"id": "<b>", "messages": []}, 7, null]}', None)):
    got = page.eval(f"(() => {{ try {{ return store.importAll({json.dumps(text)}); }} catch (e) {{ return e.message; }} }})()")
    ok(why in got if why else got == 0, f"an import of {text[:40]}", got)
got = page.eval("""(() => { for (let i = 0; i < 320; i++) store.save({id: "c" + i, title: "c" + i, at: i + 1e12, messages: [{role: "user", content: "x".repeat(40000)}]});
  return [store.list().length, store.list()[0].id, !!store.load("c319")]; })()""")
ok(got[0] <= 300 and got[2], "the store is bounded: the oldest chats give way", got)
page.eval("store.clear(); chat.open(null); sidebar.show(); settings.values.system = ''; settings.save()")

# A chat that is deleted while its answer comes stays deleted.
hold.clear()
ask("hold", wait=False)
page.wait("document.querySelector('.answer:last-child > .body').innerText.includes('two')")
page.click("#chats li .icon")
page.click("#chats li .icon")
ok(page.wait("store.list().length === 0"), "a chat is deleted by two clicks")
hold.set()
page.wait("!chat.isRunning()")
is_(page.eval("new Promise((r) => setTimeout(() => r(store.list().length), 300))"), 0, "and does not come back with the rest of its answer")

# --- the cluster ---
fake.pipeline.open = 1
page.go(fake.url + "#cluster")
ok(page.wait("document.querySelectorAll('.stage').length === 3 && /computes/.test(document.querySelector('.stage .load .does').innerText)"), "the cluster: three stages, and what they do",
   page.text("#cluster"))
has(page.text(".stage.slow"), "tower", "the slow one is named")
ok(page.wait("document.querySelectorAll('.rail .batch').length > 0"), "batches are under way in the drawing")
has(page.wait("document.querySelector('.speed').textContent") or "", "slowed", "slowed, and it says so")
ok(page.eval("(() => { const c = document.querySelector('.lane'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i + 1]); return s.size > 2; })()"),
   "the lanes have been drawn")
share = page.eval("""(() => { const to = activity.serverNow() - 7e5, [x, y] = [0, 1].map((i) => activity.shares(i, to - 1e6, to));
  return [x.busy + x.wire + x.wait + x.idle, y.busy + y.wire + y.wait + y.idle, x.busy, y.busy]; })()""")
ok(abs(share[0] - 1e6) < 10 and abs(share[1] - 1e6) < 10 and share[3] > share[2] > 0, "shares add up to the whole, and the slow stage computes more of it", share)
fake.pipeline.lose(1)
ok(page.wait("document.querySelector('.stage.lost h3') && document.querySelector('.stage.lost h3').innerText === 'tower'"), "a lost node is shown")
has(page.text("h1"), "repaired", "and told")
has(page.text(".events"), "node tower is lost", "and stands among the events")
fake.pipeline.repair()
ok(page.wait("!document.querySelector('.stage.lost') && /share/.test(document.querySelector('#cluster h1').innerText)"), "until it is back")
fake.pipeline.extra = [dict(fake.pipeline.status()["nodes"][0], name="pi", stage=-1, left_out="one layer needs 2 GiB, cpu has 1 GiB <b>")]
ok(page.wait("!document.querySelector('.others').closest('section').hidden"), "a node without a stage is listed")
is_(page.text(".others"), "pi left out: one layer needs 2 GiB, cpu has 1 GiB <b>", "with why it is left out")
fake.pipeline.extra = []
fake.pipeline.open = 0

# --- keyboard alone ---
page.go(fake.url + "#chat")
page.wait("activity.status !== null")
page.eval("document.activeElement.blur()")
order = []
for _ in range(20):
    page.key("Tab")
    order.append(page.eval("document.activeElement.id || document.activeElement.className || document.activeElement.innerText"))
ok({"skip", "new-chat", "open-settings", "tab-chat", "tab-cluster", "input"} <= set(order), "Tab reaches everything", order)
page.eval("document.querySelector('.skip').focus()")
page.key("Enter")
is_(page.eval("document.activeElement.id"), "input", "the first link leads to the message")
page.type("echo **keys**")
page.key("Enter", shift=True)
page.type("more")
page.key("Enter")
ok(page.wait("document.querySelector('.answer > .body') && document.querySelector('.answer > .body').innerText.includes('keys\\nmore') && !chat.isRunning()"), "Shift+Enter breaks the line, Enter sends",
   page.text("#log"))
page.eval("document.getElementById('open-settings').focus()")
page.key("Enter")
ok(page.wait("document.getElementById('settings').open"), "settings open by a key")
page.eval("document.getElementById('set-top_k').focus()")
page.type("40")
page.key("Escape")
ok(page.wait("!document.getElementById('settings').open"), "Esc closes them")
is_(page.eval("[settings.values.top_k, document.activeElement.id]"), [40, "open-settings"], "kept, and the focus is where it was")
unnamed = page.eval("""[...document.querySelectorAll("button, a, input, textarea, [role=img]")].filter((n) => n.offsetParent && !(n.getAttribute("aria-label") || n.innerText
  || (n.labels && n.labels.length) || n.title)).map((n) => n.outerHTML.slice(0, 100))""")
is_(unnamed, [], "everything that can be used has a name")
is_([c for c in page.console if "Failed to load resource" not in c], [], "nothing on the console but answers that failed")
foreign = [u for u in page.requests if not u.startswith(fake.url) and not u.startswith("data:") and not u.startswith("blob:")]
is_(foreign, [], "no request to anybody else")

# --- screens and colours ---
for width, height, phone in ((390, 844, True), (320, 640, True), (768, 1024, False)):
    page.size(width, height, phone)
    for view in ("#chat", "#cluster"):
        page.eval(f"location.hash = '{view}'")
        page.wait("activity.status")
        over = page.eval("""[document.documentElement.scrollWidth - innerWidth, ...[...document.querySelectorAll("#main *")].filter((n) => n.offsetParent && !n.closest("pre, .table, svg, .unseen")
          && n.getBoundingClientRect().right > innerWidth + 1).map((n) => n.className || n.tagName).slice(0, 5)]""")
        is_(over, [0], f"{width} wide, {view}: nothing beyond the edge")
page.size(390, 844, True)
page.eval("location.hash = '#chat'")
is_(page.eval("document.getElementById('sidebar').inert"), True, "on a phone the list of chats is out of the way")
page.click("#open-sidebar")
ok(page.wait("!document.getElementById('sidebar').inert && document.getElementById('sidebar').getBoundingClientRect().left > -5"), "and comes when asked for")
page.key("Escape")
ok(page.wait("document.getElementById('sidebar').inert"), "and goes")
page.size(1440, 900)
light = page.eval("getComputedStyle(document.body).backgroundColor")
page.media(dark=True)
dark = page.eval("getComputedStyle(document.body).backgroundColor")
page.eval("settings.setTheme('light')")
ok(light != dark and page.eval("getComputedStyle(document.body).backgroundColor") == light, "dark like the system, or as one chose", light, dark)
contrast = page.eval("""(() => { const rgb = (s) => s.match(/[\\d.]+/g).map(Number), lum = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const worst = []; for (const theme of ["light", "dark"]) { settings.setTheme(theme); const style = getComputedStyle(document.documentElement); const get = (n) => { const d = document.createElement("i"); d.style.color = style.getPropertyValue(n); document.body.append(d); const c = rgb(getComputedStyle(d).color); d.remove(); return c.slice(0, 3); };
  for (const [ink, paper] of [["--ink", "--paper"], ["--soft", "--paper"], ["--soft", "--sunk"], ["--warn", "--paper"], ["--bad", "--bad-soft"], ["--accent", "--paper"], ["--accent-ink", "--accent"], ["--ink", "--accent-soft"]]) {
    const [a, b] = [lum(get(ink)), lum(get(paper))].sort((x, y) => y - x); const ratio = (a + 0.05) / (b + 0.05); if (ratio < 4.5) worst.push([theme, ink, paper, ratio.toFixed(2)]); } }
  settings.setTheme("auto"); return worst; })()""")
is_(contrast, [], "text stands out from its ground by 4.5 : 1")
page.media(calm=True)
fake.pipeline.open = 1
page.eval("location.hash = '#cluster'")
page.wait("document.querySelector('.stage .load .does') && /computes/.test(document.querySelector('.stage .load .does').innerText)")
ok(page.wait("!document.querySelector('.rail .batch')"), "who wants less motion sees none")
is_(page.eval("[...document.querySelectorAll('.stage')].map((n) => /of 8[^,]*, the most that plans may use of 1[67]/.test(n.innerText))"), [False, True, False],
    "where a plan may use less memory than there is, both are told")
fake.pipeline.open = 0
page.close()

# --- a server that goes, one with a key ---
page = web.page(fake.url)
page.wait("activity.status !== null")
fake.stop()
has(page.wait("document.getElementById('state-text').innerText === 'No connection' && document.getElementById('state').title") or "", "does not answer", "a server that is gone is told")
ask("hello")
has(last(".error"), "The server does not answer.", "to who asks, too")
page.close()
fake = Fake(html, Pipeline(["solo"], [9], memory=2 << 30), answers, key="sk-secret-key-1")
page = web.page(fake.url)
ok(page.wait("document.getElementById('key').open"), "a server that wants a key: the page asks for it")
page.type("sk-wrong")
page.key("Enter")
ok(page.wait("document.getElementById('key').open && /API key/.test(document.getElementById('key-why').innerText)"), "and again after a wrong one")
page.eval("document.getElementById('key-input').focus()")
page.type("sk-secret-key-1")
page.key("Enter")
has(page.wait("activity.status && document.getElementById('welcome').innerText.includes('One machine') && document.getElementById('welcome').innerText") or "", "One machine runs",
    "with the right one it goes on")
ask("hi")
is_(last(), "Hello.", "and asks with it")
page.close()
web.close()
done()
