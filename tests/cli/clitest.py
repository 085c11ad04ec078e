"""What the process tests of the command line share: TAP, running the built program, tiny models."""
import atexit
import os
import shutil
import subprocess
import sys
import tempfile

SRC = os.environ.get("SC_SRC", ".")
BUILD = os.environ.get("SC_BUILD", ".")
SHARED = os.environ.get("SC_SHARED", os.path.join(SRC, "..", "shared"))
PROGRAM = os.path.join(BUILD, "stagecoach")
TIMEOUT = 300

count = failed = 0
folder = tempfile.mkdtemp(prefix="sc-cli-")
atexit.register(shutil.rmtree, folder, True)
os.environ["STAGECOACH_CONFIG"] = "none"
os.environ["XDG_STATE_HOME"] = os.path.join(folder, "state")


def ok(good, name, *notes):
    global count, failed
    count += 1
    print(f"{'' if good else 'not '}ok {count} - {name}")
    if not good:
        failed += 1
        for note in notes:
            for line in str(note)[:4000].splitlines():
                print("#", line)
    sys.stdout.flush()
    return good


def is_(got, want, name, *notes):
    return ok(got == want, name, f"got  {got!r}", f"want {want!r}", *notes)


def has(text, want, name):
    return ok(want in text, name, f"no {want!r} in:", text)


def skip(reason):
    global count
    count += 1
    print(f"ok {count} # SKIP {reason}")


def skip_all(reason):
    print(f"1..0 # SKIP {reason}")
    sys.exit(0)


def done():
    print(f"1..{count}")
    sys.exit(1 if failed else 0)


class Result:
    def __init__(self, p):
        self.status, self.raw = p.returncode, p.stdout
        self.out, self.err = p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")


def run(*args, data=b"", env=None):
    """Runs stagecoach to its end."""
    if isinstance(data, str):
        data = data.encode()
    return Result(subprocess.run([PROGRAM, *map(str, args)], input=data, capture_output=True, timeout=TIMEOUT,
                                 env={**os.environ, **(env or {})}))


def shared(*parts):
    path = os.path.join(SHARED, *parts)
    return path if os.path.exists(path) else None


def make_model(name, *args):
    """A tiny model of random weights by shared/testdata/make_model.py, or None and why not."""
    maker = shared("testdata", "make_model.py")
    if not maker:
        return None, "shared/testdata/make_model.py is not there"
    try:
        import gguf  # noqa: F401
        import numpy  # noqa: F401
    except ImportError as e:
        return None, f"Python has no {e.name}"
    path = os.path.join(folder, name)
    p = subprocess.run([sys.executable, maker, path, *args], capture_output=True, timeout=TIMEOUT)
    if p.returncode != 0:
        return None, "make_model.py failed: " + p.stderr.decode()[-300:].replace("\n", " ")
    return path, None
