"""How the program is called: help, wrong usage, exit status. TAP; needs no model."""
import os
import subprocess

from clitest import PROGRAM, done, folder, has, is_, ok, run

COMMANDS = ["run", "chat", "eval", "bench", "tokenize", "template", "inspect", "plan", "serve", "status", "stop", "worker", "probe", "keygen",
            "invite", "completion", "replan", "drain", "pull", "doctor"]

r = run("--version")
ok(r.status == 0 and r.out.startswith("stagecoach ") and r.err == "", "--version", r.out, r.err)
r = run("--help")
is_(r.status, 0, "--help")
for command in COMMANDS:
    has(r.out, f"  {command} ", f"lists {command}")
is_(run("help").out, r.out, "help says the same")
r = run()
ok(r.status == 2 and r.out == "" and "Commands:" in r.err, "no command: the list on stderr, status 2")

for command in COMMANDS:
    r = run(command, "--help")
    ok(r.status == 0 and r.out.startswith(f"Usage: stagecoach {command} ") and r.err == "", f"{command} --help", r.out, r.err)
    for part in ("--help", "Examples:", "Exit status:"):
        has(r.out, part, f"{command}: {part}")
    is_(run("help", command).out, r.out, f"help {command}")
    is_(run(command, "-h").out, r.out, f"{command} -h")
    long_lines = [s for s in r.out.splitlines() if len(s) > 80 and not s.startswith("  stagecoach") and "stagecoach" not in s]
    is_(long_lines, [], f"{command}: lines of at most 80 columns")
    r = run(command, "--nonsense")
    ok(r.status == 2 and r.out == "", f"{command} --nonsense: status 2")
    has(r.err, "unknown option --nonsense", f"{command}: says which")
    has(r.err, f"stagecoach {command} --help", f"{command}: and where help is")

for args, want in [
    (["rnu"], 'unknown command "rnu"; did you mean "run"?'),
    (["--hlep"], 'unknown option "--hlep"'),
    (["help", "evla"], 'did you mean "eval"?'),
    (["run"], "-m FILE (--model) is missing"),
    (["run", "-m", "x"], "no prompt; give one with -p TEXT or --file FILE"),
    (["run", "-m", "x", "-p", "a", "--tmep", "1"], "did you mean --temp?"),
    (["run", "-m", "x", "-p", "a", "--temp", "101"], "--temp: 101 is out of range; 0 to 100 is allowed"),
    (["run", "-m", "x", "-p", "a", "-n", "many"], '--count: "many" is not a whole number'),
    (["run", "-m", "x", "-p", "a", "--kv", "f8"], '--kv: "f8" is unknown; f16, f32 or q8_0 is allowed'),
    (["run", "-m", "x", "-p", "a", "--logprobs", "3"], "--logprobs needs --json"),
    (["run", "-m", "x", "-p", "a", "--system", "s"], "--system needs --chat"),
    (["run", "-m", "x", "-p", "a", "stray"], 'unexpected argument "stray"'),
    (["eval", "-m", "x"], "either --reference REF.json or --text FILE is needed"),
    (["eval", "-m", "x", "--text", "a", "--reference", "b"], "either --reference REF.json or --text FILE"),
    (["bench", "-m", "x", "--batch", "1,,2"], "--batch: numbers from 1 to 1024"),
    (["bench", "-m", "x", "--batch", "0"], "--batch: numbers from 1"),
    (["bench", "-m", "x", "--pp", "0", "--tg", "0"], "nothing is left to measure"),
    (["bench", "-m", "x", "--trace", "y"], "--trace: nothing is scheduled here"),
    (["bench", "-m", "x", "--ctx", "100"], "--pp, --depth, --tg, --prefix and --beside need 512 positions"),
    (["template", "x"], "1 argument given; expected: FILE.jinja CONTEXT.json"),
    (["template", "x", "y", "--now", "noon"], '--now: "noon" is no time'),
    (["inspect"], "0 arguments given; expected: FILE"),
    (["plan", "-m", "x"], "--topology FILE is missing"),
]:
    r = run(*args)
    ok(r.status == 2 and r.out == "" and want in r.err, f"stagecoach {' '.join(args)}: status 2, {want}", f"status {r.status}", r.out, r.err)

missing, junk = os.path.join(folder, "missing.gguf"), os.path.join(folder, "junk.gguf")
with open(junk, "wb") as f:
    f.write(b"this is no model")
for args in (["run", "-p", "a", "-m"], ["chat", "-m"], ["eval", "--text", "x", "-m"], ["bench", "-m"], ["tokenize", "-m"], ["inspect"]):
    r = run(*args, missing)
    ok(r.status == 1 and r.out == "" and missing in r.err and "No such file" in r.err, f"{args[0]}: a missing file is named, status 1", r.err)
    r = run(*args, junk)
    ok(r.status == 1 and r.out == "" and "junk.gguf" in r.err, f"{args[0]}: a file that is no model", r.err)
    ok("\033" not in r.err, f"{args[0]}: no colors where there is no terminal")
r = run("run", "-m", "x", "--file", missing)
ok(r.status == 1 and missing in r.err, "run: a missing prompt file is named", r.err)

# A reader that goes away, and a full disk.
p = subprocess.Popen([PROGRAM, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
p.stdout.close()
err = p.stderr.read()
ok(p.wait() in (0, 1) and err == b"", "nobody reads the output: no noise", err)
if os.path.exists("/dev/full"):
    with open("/dev/full", "wb") as full:
        p = subprocess.run([PROGRAM, "run", "--help"], stdout=full, stderr=subprocess.PIPE)
    is_(p.returncode, 1, "a full disk is a failure")
done()
