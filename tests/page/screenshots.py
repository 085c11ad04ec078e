"""screenshots.py MODEL FOLDER: the pictures of docs/, of a real run: three worker processes, a chat, others who ask meanwhile."""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "front"))
from fronttest import Server  # noqa: E402
import browser as chromium  # noqa: E402

QUESTION = "What is a stagecoach? Answer in a few sentences, then name three famous routes as a list."
model, out = sys.argv[1:3]
if not chromium.find():
    sys.exit("no chromium here; install it, or set SC_BROWSER")

server = Server(model, "--workers", 3, "--threads", 1, "--ctx", 4096)
web = chromium.Browser()
going = True


def others():
    """Two more who ask, so that the pipeline has something to do."""
    while going:
        server.post("/v1/completions", prompt=["Once upon a time", "The river"], max_tokens=200, temperature=0.8)


def shot(page, name):
    page.photo(os.path.join(out, name))
    print(name)


url = f"http://127.0.0.1:{server.port}/"
page = web.page(url, width=1280, height=800)
page.wait("activity.status && activity.now")
page.eval("settings.values.temperature = 0; settings.values.max_tokens = 220; document.getElementById('input').focus()")
page.type(QUESTION)
page.key("Enter")
page.wait("!chat.isRunning()")
page.eval("document.activeElement.blur()")
time.sleep(1)
shot(page, "chat.png")
thread = threading.Thread(target=others)
thread.start()
page.eval("location.hash = '#cluster'")
time.sleep(12)  # the lanes show ten seconds
page.wait("document.querySelectorAll('.rail .batch').length > 1 && [...document.querySelectorAll('.rail .station')].some((s) => s.classList.contains('works'))")
shot(page, "cluster.png")
phone = web.page(url + "#cluster", width=390, height=844, dark=True, phone=True)
time.sleep(11)
shot(phone, "phone.png")
going = False
thread.join()
web.close()
server.stop()
