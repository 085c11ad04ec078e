"""The relay does what it says: TAP."""
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from relay import Relay  # noqa: E402

count = 0
failed = 0


def ok(good, what):
    global count, failed
    count += 1
    failed += not good
    print(f"{'ok' if good else 'not ok'} {count} - {what}", flush=True)


class Echo:
    """Sends back what it gets, on any number of connections."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    @staticmethod
    def serve(s):
        try:
            while data := s.recv(65536):
                s.sendall(data)
        except OSError:
            pass
        s.close()


def connect(link, timeout=10):
    host, port = link.address.split(":")
    s = socket.create_connection((host, int(port)), timeout)
    s.settimeout(timeout)
    return s


def read_all(s, n):
    out = b""
    while len(out) < n:
        data = s.recv(65536)
        if not data:
            break
        out += data
    return out


def trip(s, data):
    """Seconds until data has come back whole, and whether it has."""
    start = time.monotonic()
    sender = threading.Thread(target=s.sendall, args=(data,))
    sender.start()
    back = read_all(s, len(data))
    sender.join()
    return time.monotonic() - start, back == data


def broken(s):
    try:
        return s.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def turned_away(link):
    """A connection is reset, be it at once or a moment later."""
    try:
        return broken(connect(link))
    except ConnectionError:
        return True


def main():
    echo = Echo()
    blob = os.urandom(3_000_000)
    with Relay(echo.address) as link:
        s = connect(link)
        ok(trip(s, blob)[1], "3 MB pass untouched, both ways")
        link("delay 30")
        seconds, good = trip(s, b"x")
        ok(good and seconds >= 0.06, f"delay 30: a round trip of {seconds * 1000:.1f} ms")
        link("jitter 20")
        times = [trip(s, b"y")[0] for _ in range(8)]
        ok(min(times) >= 0.06 and max(times) > min(times), f"jitter 20: {min(times) * 1000:.0f} to {max(times) * 1000:.0f} ms")
        link("delay 0")
        link("jitter 5")
        ok(trip(s, blob[:300_000])[1], "jitter keeps the order")
        link("jitter 0")
        link("rate 40")
        seconds, good = trip(s, blob[:1_000_000])
        ok(good and seconds >= 0.19, f"rate 40: 1 MB there and back in {seconds:.2f} s, at least 0.2")
        two = [connect(link), connect(link)]
        start = time.monotonic()
        threads = [threading.Thread(target=trip, args=(c, blob[:500_000])) for c in two]
        [t.start() for t in threads]
        [t.join() for t in threads]
        ok(time.monotonic() - start >= 0.19, f"two connections share it: {time.monotonic() - start:.2f} s")
        link("rate 0")
        ok(link.stats()["open"] == 3, "three connections are open")
        s.shutdown(socket.SHUT_WR)
        ok(s.recv(1) == b"", "an end is passed on")
        link("cut")
        ok(broken(two[0]) and broken(two[1]) and link.stats()["open"] == 0, "cut: all are reset")
        link("refuse on")
        ok(turned_away(link), "refuse: new ones, too")
        link("refuse off")

        s = connect(link)
        trip(s, b"warm")
        link("halt on")
        s.sendall(b"lost?")
        s.settimeout(0.3)
        ok(not broken(s), "halt: no data, no end")
        s.settimeout(10)
        link("halt off")
        ok(read_all(s, 5) == b"lost?", "and then it goes on")

        link("corrupt 1000")
        s.sendall(blob[:500])
        ok(read_all(s, 500) == blob[:500], "corrupt 1000: not before")
        s.sendall(blob[:500])
        back = read_all(s, 500)
        bits = sum(bin(a ^ b).count("1") for a, b in zip(back, blob))
        ok(bits == 1 and link.stats()["corrupted"] == 1, f"then one bit ({bits})")
        ok(trip(s, blob[:5000])[1], "and no other")
        for bad in ("delay", "delay x", "rate -1", "halt maybe", "nonsense", "cut 5"):
            try:
                link(bad)
                ok(False, f'"{bad}" is refused')
            except RuntimeError as e:
                ok("error" in str(e), f'"{bad}" is refused: {e}')
    nobody = socket.create_server(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % nobody.getsockname()[1]
    nobody.close()
    with Relay(address) as link:
        ok(turned_away(link), "nobody behind it: reset")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "c")
        program = os.path.join(os.environ.get("SC_BUILD", "build"), "tests/pipeline/relay")
        with subprocess.Popen([program, "--to", echo.address, "--control", path, "delay 1"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            c = socket.socket(socket.AF_UNIX)
            c.connect(path)
            c.sendall(b"stats\nquit\n")
            ok(c.recv(200).startswith(b"open 0 accepted 0"), "commands over a unix socket")
            ok(process.wait(10) == 0 and not os.path.exists(path), "quit")
        run = subprocess.run([program, "--nonsense", "x"], capture_output=True, text=True, check=False)
        ok(run.returncode == 2 and "usage" in run.stderr, "wrong usage")
    print(f"1..{count}")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
