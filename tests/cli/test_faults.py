"""What goes wrong around the program: names, ports, signals, folders, disks, files that change. TAP."""
import os
import signal
import socket
import subprocess
import time

from clitest import PROGRAM, done, folder, has, is_, ok, run

SECONDS = 60
key = run("keygen", "--keys", os.path.join(folder, "other")).out.strip()
mine = os.path.join(folder, "mine")
run("keygen", "--keys", mine, "--trust", f"boss={key}")


class Program:
    """Runs until stop(); .said()"""

    def __init__(self, name, *args, env=None, **more):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "wb") as log:
            self.p = subprocess.Popen([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}, **more)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def says(self, text, seconds=SECONDS):
        end = time.time() + seconds
        while text not in self.said() and self.p.poll() is None and time.time() < end:
            time.sleep(0.02)
        return text in self.said()

    def stop(self, number=signal.SIGTERM):
        if self.p.poll() is None:
            self.p.send_signal(number)
        try:
            return self.p.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.p.kill()
            return None


def worker(name, *args, **more):
    return Program(name, "worker", "--keys", mine, "--name", name, "--threads", "1", *args, **more)


# --- a coordinator's name ---
w = worker("lost", "--coordinator", "tcp://no-such-host.invalid:7100", "--no-measure")
ok(w.says("does not answer"), "a coordinator whose name nobody knows is told", w.said())
has(w.said(), "no-such-host.invalid", "by its name")
has(w.said(), "trying again", "and tried again")
is_(w.stop(), 0, "until the worker is stopped")
r = run("worker", "--keys", mine, "--coordinator", "tcp://two words:7100")
ok(r.status == 2 and "two words" in r.err, "what cannot be a name is refused at once", r.status, r.err)

# --- ports and signals ---
taken = socket.create_server(("127.0.0.1", 0))
port = taken.getsockname()[1]
w = worker("taken", "--listen", f"tcp://127.0.0.1:{port}")
is_(w.p.wait(SECONDS), 1, "a port that is taken")
has(w.said(), "choose another port", "is told")
ok("measuring" not in w.said(), "before anything is measured", w.said())
taken.close()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    w = worker("hasty", "--listen", "tcp://127.0.0.1:*")
    ok(w.says("measuring"), "a worker measures", w.said())
    is_(w.stop(number), 0, f"{number.name} ends it")
    ok("listening" not in w.said(), "in the middle of that", w.said())
w = worker("nohup", "--listen", "tcp://127.0.0.1:*", "--no-measure", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
ok(w.says("listening"), "a worker by nohup", w.said())
w.p.send_signal(signal.SIGHUP)
time.sleep(0.3)
ok(w.p.poll() is None, "does not mind the terminal's end")
is_(w.stop(), 0, "and is stopped as always")
done()
