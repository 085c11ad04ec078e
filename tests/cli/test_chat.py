"""chat at a pseudo-terminal and through a pipe, on a tiny model: TAP. Skips without shared/testdata or Python's gguf."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import termios
import time

from clitest import PROGRAM, done, folder, has, is_, make_model, ok, run, skip_all

model, why = make_model("tiny.gguf", "--quant", "Q4_0", "--layers", "2")
if not model:
    skip_all(why)

# --- through a pipe ---
r = run("chat", "-m", model, "--once", "Hello", "-n", 5, "--seed", 1)
ok(r.status == 0 and r.out.endswith("\n") and len(r.out) > 1, "--once answers", r.out, r.err)
is_(run("chat", "-m", model, "--once", "Hello", "-n", 5, "--seed", 1).out, r.out, "the same seed, the same answer")
two = run("chat", "-m", model, "-n", 5, "--seed", 1, data="Hello\n\n/stats\n/quit\nnever\n")
ok(two.status == 0 and two.out == r.out, "lines from a pipe; /quit ends", two.out, two.err)
has(two.err, "positions", "/stats on stderr")
r = run("chat", "-m", model, "-n", 5, data="/nonsense\n")
ok(r.status == 2 and "/nonsense is no command" in r.err, "an unknown command ends a script", r.status, r.err)
r = run("chat", "-m", model, "-n", 5, data=b"\xff\xfe\n")
ok(r.status == 1 and "UTF-8" in r.err, "bytes that are no text", r.status, r.err)
saved = os.path.join(folder, "saved.json")
r = run("chat", "-m", model, "-n", 4, "--system", "Be brief.", data=f"One\nTwo \\\nlines\n/undo\n/save {saved}\n")
with open(saved) as f:
    messages = json.load(f)
is_([m["role"] for m in messages], ["system", "user", "assistant"], "/undo forgets a turn, /save writes the rest")
r = run("chat", "-m", model, data=f"/save {saved}\n")
ok(r.status == 1 and "File exists" in r.err, "/save overwrites nothing", r.err)
r = run("chat", "-m", model, "-n", 30, "--ctx", 120, data="word word word\n" * 8)
ok(r.status == 0 and "forgotten" in r.err and "context of 120" in r.err, "a full context drops the oldest turns, and says so", r.status, r.err)
r = run("chat", "-m", model, "--ctx", 40, data="word " * 100 + "\n")
ok(r.status == 1 and "the context has 40 positions" in r.err, "a message longer than the context", r.status, r.err)


# --- at a terminal ---
class Terminal:
    def __init__(self, *args, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(PROGRAM, [PROGRAM, *map(str, args)])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.seen = ""

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def until(self, want, seconds=60):
        """Reads until `want` comes; what came before it is forgotten."""
        end = time.monotonic() + seconds
        while want not in self.seen and time.monotonic() < end:
            self.read(0.2)
        found = want in self.seen
        self.last = self.seen
        if found:
            self.seen = self.seen.split(want, 1)[1]
        return found

    def send(self, text):
        os.write(self.fd, text.encode())

    def end(self, seconds=60):
        """Exit status, or minus the signal."""
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while self.read(0):
                    pass
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None


PROMPT = ">\033[0m "
t = Terminal("chat", "-m", model, "-n", 5)
ok(t.until("/help lists the commands") and t.until(PROMPT), "a greeting and a prompt", t.last)
t.send("Hello\r")
ok(t.until("Hello") and t.until("cut after 5 tokens"), "a question is answered", t.last)
t.until(PROMPT)
t.send("/set count 7\r")
ok(t.until("count is 7."), "/set", t.last)
t.until(PROMPT)
t.send("/set tmep 1\r")
ok(t.until("did you mean --temp?") or "temp" in t.last, "/set with a slip", t.last)
t.until(PROMPT)
t.send("/hlep\r")
ok(t.until("did you mean /help?"), "a mistyped command", t.last)
t.until(PROMPT)
t.send("\x03")
ok(t.until("/quit or Ctrl-D ends"), "Ctrl-C at the prompt hints", t.last)
t.until(PROMPT)

# Editing: type, go back, insert, kill, yank; the line is sent to /system, which shows it again. Keys wait for the prompt: before it the
# terminal takes some of them for itself.
t.send("/system bcd\x1b[D\x1b[D\x1b[DA\x05e\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system\r")
ok(t.until("System message: Abcde"), "arrows and Ctrl-E", t.last)
t.until(PROMPT)
t.send("junk\x15/system one two\x17three\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system\r")
ok(t.until("System message: one three"), "Ctrl-U and Ctrl-W", t.last)
t.until(PROMPT)
t.send("/system xyz\x01\x0b\x19\x7f\x7fZ\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system\r")
ok(t.until("System message: xZ"), "Ctrl-A, Ctrl-K, Ctrl-Y, Backspace", t.last)
t.until(PROMPT)
t.send("/system 你好吗\x1b[D\x7f\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system\r")
ok(t.until("System message: 你吗"), "wide characters", t.last)
t.until(PROMPT)
t.send("/system a\\\r")
t.until("… ")
t.send("b\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system\r")
ok(t.until("System message: a\r\nb"), "a backslash at the end: another line", t.last)
t.until(PROMPT)
t.send("/system \x1b[200~pasted\rlines\x1b[201~\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system\r")
ok(t.until("System message: pasted\r\nlines"), "a paste keeps its lines", t.last)
t.until(PROMPT)
t.send("/system " + "long " * 60 + "end\x1b[H\x1b[F\r")
t.until("message is set")
t.until(PROMPT)
t.send("/system none\r")
ok(t.until("message is gone"), "a line longer than the screen", t.last)
t.until(PROMPT)
t.send("\x1b[A\x1b[A\x1b[B\r")
ok(t.until("message is gone"), "the history by arrows", t.last)
t.until(PROMPT)

# Ctrl-C in the middle of an answer.
t.send("/set count -1\r")
t.until("count is -1.")
t.until(PROMPT)
t.send("Tell me everything\r")
t.until("everything\r")
ok(t.read(30), "an answer begins")
time.sleep(0.3)
t.send("\x03")
ok(t.until("(stopped)", 30), "Ctrl-C stops it", t.last)
t.until(PROMPT)
t.send("/stats\r")
ok(t.until("context"), "and the program goes on", t.last)
t.until(PROMPT)
t.send("/retry\r")
ok(t.read(30), "/retry answers again")
time.sleep(0.2)
t.send("\x03\x03")
ok(t.until("(stopped)", 30), "two Ctrl-C are no worse", t.last)
t.until(PROMPT)
t.send("\x04")
is_(t.end(), 0, "Ctrl-D ends")

history = os.path.join(os.environ["XDG_STATE_HOME"], "stagecoach", "history")
is_(oct(os.stat(history).st_mode & 0o777), "0o600", "the history is private")
with open(history, encoding="utf-8") as f:
    lines = f.read().splitlines()
ok("Hello" in lines and "/system a\\nb" in lines, "and holds what was typed", lines)
t = Terminal("chat", "-m", model, "-n", 3, columns=20)
t.until(PROMPT)
t.send("\x1b[A")
ok(t.until("/retry"), "and is there the next time", t.last)
t.send("\x15/quit\r")
is_(t.end(), 0, "/quit ends, on a narrow screen too")
t = Terminal("chat", "-m", model, "--no-history")
t.until(PROMPT)
t.send("secret words\x03")
t.until(PROMPT)
t.send("/quit\r")
t.end()
with open(history, encoding="utf-8") as f:
    ok("secret" not in f.read(), "--no-history keeps nothing")

# What a model writes does not steer the terminal: its escape sequences are shown as signs; a file gets them as they are.
grammar = os.path.join(folder, "escape.gbnf")
with open(grammar, "w", encoding="utf-8") as f:
    f.write('root ::= "a\\x1b]0;title\\x07b\\tc\\x7f\\x9b31md\\n"\n')
args = ["run", "-m", model, "-p", "x", "-n", "60", "--grammar", grammar]
t = Terminal(*args)
t.end()
written = "a\ufffd]0;title\ufffdb\tc\ufffd\ufffd31md"
ok(written in t.seen, "a terminal gets no control characters of a model", repr(t.seen[-300:]))
r = run(*args)
ok("a\x1b]0;title\x07b\tc\x7f\x9b31md\n" in r.out, "a file gets all of them", repr(r.out), r.err)
done()
