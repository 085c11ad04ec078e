"""./dev bench's comparison: who is run how, what is made of the figures, what is said when a side fails. TAP; the two programs
are made up, as the real ones take minutes."""
import json
import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ.get("SC_SRC", "."), "tests", "cli"))
from clitest import SRC, done, folder, has, is_, ok  # noqa: E402

COMPARE = os.path.join(SRC, "tests", "bench", "compare.py")
MODEL = os.path.join(folder, "some model.gguf")
LOG = os.path.join(folder, "log")
open(MODEL, "w").close()


def program(name, body):
    """An executable that notes its call, then does body with n = how often it was called before."""
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"#!{sys.executable}\nimport os, sys\nif '--version' in sys.argv: sys.exit(print('stagecoach 9'))\n"
                f"c = {path!r} + '.count'\nn = int(open(c).read()) if os.path.exists(c) else 0\nopen(c, 'w').write(str(n + 1))\n"
                f"open({LOG!r}, 'a').write({name!r} + ' ' + ' '.join(sys.argv[1:]) + '\\n')\n{body}\n")
    os.chmod(path, stat.S_IRWXU)
    return path


def compare(*args):
    return subprocess.run([sys.executable, "-B", COMPARE, *args], capture_output=True, text=True, timeout=120)


ours = program("ours", "print('pp512', [300, 200, 400][n % 3]); print('tg64 50.5')")
theirs = program("theirs", "print('noise'); print('pp512 100.00'); print('tg64', [10, 101, 20][n % 3])")
r = compare("--program", ours, "--peer", sys.executable, theirs, "-m", MODEL, "--threads", "3", "--json", "--batch", "1", "--isa", "scalar")
is_(r.returncode, 0, "both run", r.stderr)
out = json.loads(r.stdout)
pp, tg = out["results"]
is_((pp["figure"], pp["threads"], pp["ours"], pp["theirs"]), ("pp512", 3, 400, 100), "the best of each")
is_((pp["ratio_min"], pp["ratio_median"], pp["ratio_max"]), (2, 3, 4), "ratios of rounds: smallest, median, largest")
is_((tg["ratio_min"], tg["ratio_median"], tg["ratio_max"]), (0.5, 2.525, 5.05), "of figures that differ on the other side")
ok(out["machine"]["processors"] >= 1 and out["machine"]["kernel"] and out["stagecoach"] == "stagecoach 9", "machine and version", r.stdout)
calls = open(LOG, encoding="utf-8").read().splitlines()
is_([c.split()[0] for c in calls], ["ours", "theirs", "theirs", "ours", "ours", "theirs"], "they take turns")
has(calls[0], f"bench -m {MODEL} --threads 3 --pp 512 --tg 64 --batch 1 --depth 0 --reps 2 --isa scalar", "how ours is called")
has(calls[1], f"bench {MODEL} -t 3 --pp 512 --tg 64 --batch 1 --depth 0 --reps 2", "how theirs is called: the same figures")

r = compare("--program", ours, "--peer", sys.executable, theirs, "-m", MODEL, "--threads", "2,1", "--rounds", "1", "--batch", "1", "--command", "as typed")
is_(r.returncode, 0, "as a table")
has(r.stdout, "| some model.gguf | 1 | pp512 | ", "a row a file, number of threads and figure")
has(r.stdout, "Machine: ", "with the machine")
has(r.stdout, "\n    as typed\n", "and the command")
r = compare("--program", ours, "-m", MODEL, "--rounds", "1", "--threads", "1")
ok(r.returncode == 0 and "| – | – | – |" in r.stdout and "llama-cpp" not in r.stdout, "without a peer", r.stdout)

broken = program("broken", "print('pp512 1'); sys.exit('cannot load it')")
for who, args in (("llama.cpp", ["--program", ours, "--peer", sys.executable, broken]), ("stagecoach", ["--program", broken])):
    r = compare(*args, "-m", MODEL, "--rounds", "1")
    ok(r.returncode == 1 and r.stdout == "" and f"{who}: status 1" in r.stderr and "cannot load it" in r.stderr, f"{who} fails: said, status 1", r.stderr)
silent = program("silent", "")
r = compare("--program", silent, "-m", MODEL, "--rounds", "1")
ok(r.returncode == 1 and "0 figures" in r.stderr, "no figures are a failure", r.stderr)
for args, want in ((["-m", MODEL + "x"], "there is no such file"), (["-m", MODEL, "--threads", "0"], "numbers from 1 on"),
                   (["-m", MODEL, "--rounds", "0"], "from 1 on"), (["-m", MODEL, "--batch", "1,,2"], "separated by commas"),
                   (["-m", MODEL, "--depth", "-1"], "depth"), ([], "-m")):
    r = compare("--program", ours, *args)
    ok(r.returncode == 2 and want in r.stderr, f"{' '.join(args[-2:])}: status 2, {want}", r.stderr)
done()
