"""A real browser, without a window: chromium, driven over its debugging pipe (no port, no module needed). A Page can be asked,
clicked, typed into and photographed; it notes every request, every message on the console, every uncaught error."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_S = float(os.environ.get("SC_BROWSER_WAIT", 60))
KEYS = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("", 9), "ArrowUp": ("", 38), " ": (" ", 32)}


def find():
    """Path of a browser, or None."""
    return os.environ.get("SC_BROWSER") or next((p for p in map(shutil.which, NAMES) if p), None)


def start():
    """(browser, None), or (None, why there is none)."""
    if not find():
        return None, "no chromium here (SC_BROWSER may say where one is)"
    browser = Browser()
    try:
        browser.page("about:blank").close()
        return browser, None
    except (RuntimeError, OSError) as e:  # a package that only points at a snap, a machine that does not let its sandbox begin
        browser.close()
        return None, f"{find()} does not start: {' '.join(str(e).split())[-300:]}"


class Browser:
    def __init__(self, scale=1):
        self.home = tempfile.mkdtemp(prefix="sc-browser-")
        to_it, from_us = os.pipe()
        to_us, from_it = os.pipe()
        command = [find(), "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.home}", "--no-first-run", "--disable-gpu",
                   "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                   "--disable-default-apps", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
                   "--font-render-hinting=none", f"--force-device-scale-factor={scale}", "--window-size=1440,900"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # the browser's own sandbox does not work for root

        def ends():  # in the child: it reads 3 and writes 4
            a, b = os.dup(to_it), os.dup(from_it)
            os.dup2(a, 3)
            os.dup2(b, 4)

        env = {**os.environ, "HOME": self.home, "XDG_CONFIG_HOME": self.home, "XDG_CACHE_HOME": self.home}
        self.errors = open(os.path.join(self.home, "stderr"), "wb")
        self.p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors, preexec_fn=ends, close_fds=False,
                                  env=env, start_new_session=True)
        os.close(to_it)
        os.close(from_it)
        self.to, self.pages, self.answers, self.next_id = from_us, {}, {}, 0
        self.changed, self.gone = threading.Condition(), False
        threading.Thread(target=self.read, args=(to_us,), daemon=True).start()

    def read(self, fd):
        rest = b""
        while True:
            part = os.read(fd, 1 << 20)
            if not part:
                break
            *messages, rest = (rest + part).split(b"\0")
            for m in map(json.loads, messages):
                if "id" in m:
                    with self.changed:
                        self.answers[m["id"]] = m
                        self.changed.notify_all()
                elif m.get("sessionId") in self.pages:
                    self.pages[m["sessionId"]].note(m["method"], m["params"])
        with self.changed:
            self.gone = True
            self.changed.notify_all()

    def call(self, method, session=None, **params):
        with self.changed:
            self.next_id += 1
            number = self.next_id
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.answers or self.gone, WAIT_S) or self.gone:
                raise RuntimeError(f"the browser does not answer {method}: " + open(os.path.join(self.home, "stderr"), errors="replace").read()[-500:])
            answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def page(self, url=None, **how):
        return Page(self, url, **how)

    def close(self):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            self.p.kill()
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        shutil.rmtree(self.home, True)


class Page:
    """A tab with storage of its own."""

    def __init__(self, browser, url=None, width=1440, height=900, dark=False, calm=False, phone=False):
        self.browser, self.requests, self.console = browser, [], []
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        self.target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.size(width, height, phone)
        self.media(dark, calm)
        if url:
            self.go(url)

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def note(self, method, p):
        if method == "Network.requestWillBeSent":
            self.requests.append(p["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            d = p["exceptionDetails"]
            self.console.append("uncaught: " + d.get("exception", {}).get("description", d.get("text", "")))
        elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
            self.console.append("console: " + json.dumps(p["args"])[:500])
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.console.append(f"log: {p['entry']['text']} {p['entry'].get('url', '')}")

    def size(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=0, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def media(self, dark=False, calm=False):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                                                         {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"}])

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def eval(self, code):
        """The value of an expression (promises are awaited); of an element: True."""
        r = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in r:
            d = r["exceptionDetails"]
            raise RuntimeError(f"{code[:200]}: " + d.get("exception", {}).get("description", d["text"]))
        value = r["result"].get("value")
        return True if value == {} else value  # an element has no value

    def wait(self, code, seconds=WAIT_S):
        """The value of an expression once it is true; None: it did not become true."""
        until = time.time() + seconds
        while True:
            try:
                value = self.eval(code)
            except RuntimeError:
                value = None  # between two documents
            if value or time.time() > until:
                return value or None
            time.sleep(0.05)

    def text(self, selector):
        return self.eval(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText")

    def click(self, selector):
        """As a person would: in the middle, after scrolling there."""
        where = self.eval(f"""(() => {{ const n = document.querySelector({json.dumps(selector)}); if (!n) return null;
            n.scrollIntoView({{block: 'nearest'}}); const r = n.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; }})()""")
        if not where:
            raise RuntimeError(f"nothing to click at {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    def type(self, words):
        self.call("Input.insertText", text=words)

    def key(self, name, shift=False):
        written, code = KEYS.get(name, (name, ord(name[0].upper())))
        event = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": written} if written else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def photo(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def close(self):
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)
        self.browser.pages.pop(self.session, None)
