"""README's quick start for several PCs, its code blocks run as they stand there: three machines with homes of their own, in network
namespaces where the kernel gives them (one of them behind NAT, where it can masquerade), else side by side. Then a crash, an older
worker, a drain, a stop. TAP. SC_LONG=1: a slice of a 70B model instead of a tiny one (4.5 GB;
$STAGECOACH_CACHE/bench/70b-slice-Q4_K_M.gguf if it is there)."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

LONG = "SC_LONG" in os.environ
INSIDE = "SC_QUICKSTART_INSIDE"
if INSIDE not in os.environ and all(map(shutil.which, ("unshare", "ip", "nsenter"))):
    # As root of a user namespace: an ordinary user may make networks, too.
    probe = subprocess.run(["unshare", "-rnmu", "sh", "-c", "ip link add v0 type veth peer name v1 && echo 1 > /proc/sys/net/ipv4/ip_forward && hostname x"],
                           capture_output=True)
    if probe.returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rnmu", sys.executable, "-B", *sys.argv])

from clitest import PROGRAM, SRC, TIMEOUT, done, folder, has, is_, make_model, ok, run, skip, skip_all  # noqa: E402

NETWORKS = INSIDE in os.environ
SLICE = os.path.join(os.environ.get("STAGECOACH_CACHE", ""), "bench", "70b-slice-Q4_K_M.gguf")
if LONG and os.path.exists(SLICE):
    model, why = SLICE, None
else:
    model, why = make_model("model.gguf", *(["--shape", "70b-slice", "--quant", "Q4_K_M"] if LONG else ["--quant", "Q4_0", "--layers", "40"]))
if not model:
    skip_all(why)
PATIENCE = 900 if LONG else 120
bin_folder = os.path.join(folder, "bin")
os.makedirs(bin_folder)
os.symlink(os.path.abspath(PROGRAM), os.path.join(bin_folder, "stagecoach"))
environment = {k: v for k, v in os.environ.items() if not k.startswith(("STAGECOACH_", "XDG_"))}
# A model of random weights ends no answer by itself: the context does. Two machines can hold the model, one cannot.
ram = (96 << 20) + os.path.getsize(model) * 3 // 4 + ((600 if LONG else 45) << 20)
environment.update(STAGECOACH_SERVE_CTX="256", STAGECOACH_CHAT_CTX="256", STAGECOACH_WORKER_RAM=str(ram), PATH=bin_folder + ":" + os.environ["PATH"], LC_ALL="C.UTF-8")


def ip(*args, at=None):
    subprocess.run((["nsenter", "-t", str(at), "-n"] if at else []) + ["ip", *map(str, args)], check=True)


class Machine:
    """A home folder, and where it can be a network and a name of its own. nat: another machine stands between, which hides it."""

    def __init__(self, name, n, nat=False):
        self.name, self.pid, self.holders, self.jobs = name, None, [], []
        self.home = os.path.join(folder, name)
        os.makedirs(os.path.join(self.home, "run"), 0o700)
        self.hidden = False
        if NETWORKS and n:
            self.pid = self.namespace()
            router = self.namespace() if nat else None
            self.cable(None, f"q{n}", f"10.88.{n}.1", router or self.pid, f"10.88.{n}.2")
            if router:
                self.cable(router, "lan", "192.168.77.1", self.pid, "192.168.77.2")
                self.hidden = self.masquerade(router)
                if not self.hidden:  # else nothing finds its way back
                    ip("route", "add", "192.168.77.0/24", "via", f"10.88.{n}.2")

    def namespace(self):
        holder = subprocess.Popen(["unshare", "-nu", "sh", "-c", f"hostname {self.name} && exec sleep 100000"])
        self.holders.append(holder)
        end = time.time() + 20
        while time.time() < end and os.path.basename(os.readlink(f"/proc/{holder.pid}/exe")) != os.path.basename(os.path.realpath(shutil.which("sleep"))):
            time.sleep(0.01)
        ip("link", "set", "lo", "up", at=holder.pid)
        return holder.pid

    @staticmethod
    def cable(a, name, a_address, b, b_address):
        ip("link", "add", name, "type", "veth", "peer", "name", "e0", "netns", b, at=a)
        ip("addr", "add", a_address + "/24", "dev", name, at=a)
        ip("link", "set", name, "up", at=a)
        ip("addr", "add", b_address + "/24", "dev", "e0", at=b)
        ip("link", "set", "e0", "up", at=b)
        ip("route", "add", "default", "via", a_address, at=b)

    @staticmethod
    def masquerade(router):
        at = ["nsenter", "-t", str(router), "-n"]
        with open("/proc/sys/net/ipv4/ip_forward"):
            subprocess.run(at + ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)
        for command in ("nft 'add table ip n; add chain ip n p { type nat hook postrouting priority 100; }; add rule ip n p oifname e0 masquerade'",
                        "iptables -t nat -A POSTROUTING -o e0 -j MASQUERADE"):
            if subprocess.run(at + ["sh", "-c", command], capture_output=True).returncode == 0:
                return True
        return False

    def shell(self, block, seconds=None):
        """Runs a block as a person would type it; (status, stdout, stderr). What it leaves in the background goes on."""
        paths = [os.path.join(folder, f"{self.name}-{len(self.jobs)}.{kind}") for kind in ("out", "err")]
        with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
            p = subprocess.Popen((["nsenter", "-t", str(self.pid), "-n", "-u"] if self.pid else []) + ["bash", "-c", block], cwd=self.home,
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                                 env={**environment, "HOME": self.home, "XDG_RUNTIME_DIR": os.path.join(self.home, "run")})
            self.jobs.append((p, paths))
            status = p.wait(seconds or PATIENCE) if seconds != 0 else None
        return status, open(paths[0]).read(), open(paths[1], errors="replace").read()

    def said(self):
        return [line for p, paths in self.jobs for line in open(paths[1], errors="replace").read().splitlines()[-6:]]

    def kill(self):
        for p, _ in self.jobs:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()

    def end(self):
        self.kill()
        for h in self.holders:
            h.kill()
            h.wait()


with open(os.path.join(SRC, "README.md"), encoding="utf-8") as f:
    section = f.read().split("## A model over two PCs, or more\n")[1].split("\n## ")[0]
blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
ok(len(blocks) == 3 and sum(len(b.splitlines()) for b in blocks) <= 10, "the quick start has three blocks of ten lines together", blocks)
if NETWORKS:
    ip("link", "set", "lo", "up")
    with open("/proc/sys/net/ipv4/ip_forward", "w") as f:
        f.write("1")
    subprocess.run(["hostname", "tower"], check=True)
machines = []


def machine(*args, **more):
    machines.append(Machine(*args, **more))
    return machines[-1]


def status(of):
    code, out, err = of.shell("stagecoach status --json")
    return json.loads(out) if code == 0 else {"health": err, "nodes": [], "stages": [], "events": []}


def wait_for(good, seconds=None):
    end = time.time() + (seconds or PATIENCE)
    while True:
        j = status(tower)
        if good(j) or time.time() > end:
            return good(j)
        time.sleep(0.3)


def where(j):
    """The machines that have layers, where the whole chain answers."""
    return sorted({s["node"] for s in j["stages"]}) if j["health"] == "ok" else []


def is_here(j, m):
    return any(n["name"] == m.name and n["state"] == "here" for n in j["nodes"])


def joins(m, token):
    """The second block, the token pasted into it."""
    m.shell(blocks[1].replace("NAME", m.name).replace("TOKEN", token).rstrip() + " &", 20)
    return wait_for(lambda j: is_here(j, m))


TOKENS, MORE = (8, 24) if LONG else (24, 200)
ASK = f'stagecoach chat --once "Why is the sky blue?" --seed 7 -n {TOKENS} --temp 1'
try:
    tower, attic, den = machine("tower", 0), machine("attic", 1), machine("den", 2, nat=True)
    os.symlink(model, os.path.join(tower.home, "model.gguf"))
    want = tower.shell(ASK.replace("chat", "chat -m model.gguf"))
    ok(want[0] == 0 and want[1], "one process answers", want)
    names = "" if NETWORKS else " --name {}"
    if not NETWORKS:  # side by side, they have one host's name
        blocks = [re.sub(r"worker --join (\S+( invite\)\")?)", r"worker --join \1 --name NAME", b) for b in blocks]

    code, out, err = tower.shell(blocks[0].replace("NAME", "tower"))
    token = out.strip().splitlines()[-1] if out.strip() else ""
    ok(code == 0 and re.fullmatch(r"\S{60,}", token), "the first block: a server, a worker, and a token for the next", code, out, err)
    ok(joins(attic, token), "the second block: attic joins", attic.said(), tower.said())
    ok(wait_for(lambda j: where(j) == ["attic", "tower"]), "two machines share what neither can hold", status(tower), tower.said())
    ok(joins(den, tower.shell("stagecoach invite")[1].strip()), "the second block once more: den joins", den.said(), tower.said())
    if den.hidden:
        code, out, err = tower.shell("timeout 2 bash -c 'exec 3<>/dev/tcp/192.168.77.2/7101'")
        ok(code != 0, "den is behind NAT: nothing reaches it from outside")
    else:
        skip("no NAT on this machine (nft or iptables): den is behind a router")
    lines = blocks[2].strip().splitlines()
    ok(lines[-1] == "stagecoach stop", "the third block ends with stop", lines)
    code, out, err = tower.shell("\n".join(lines[:-1]))
    ok(code == 0 and "ok, epoch" in out and len(out.splitlines()) > 8, "the third block: status, an answer", code, out, err)
    is_(tower.shell(ASK)[1], want[1], "the answer is one process's, to the token", tower.said())

    # --- a crash while an answer is on its way ---
    long = ASK.replace(f"-n {TOKENS}", f"-n {MORE}")
    calm = tower.shell(long)[1]
    shared = where(status(tower))
    victim, other = (attic, den) if "attic" in shared else (den, attic)
    p = subprocess.Popen(["bash", "-c", long], bufsize=0, cwd=tower.home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                         env={**environment, "HOME": tower.home, "XDG_RUNTIME_DIR": os.path.join(tower.home, "run")})
    first = p.stdout.read(1)
    victim.kill()
    rest = p.communicate(timeout=PATIENCE)[0]
    is_((first + rest).decode("utf-8", "replace"), calm, "a worker is killed in the middle of an answer: it goes on with the same tokens", tower.said())
    ok(wait_for(lambda j: where(j) == sorted(["tower", other.name])), "without it", status(tower))
    ok("stagecoach worker --coordinator" in section, "the README says how a worker comes back")
    address = "tcp://127.0.0.1:7100" if not NETWORKS else "tcp://10.88.1.1:7100" if victim is attic else "tcp://10.88.2.1:7100"
    victim.shell(f"stagecoach worker --coordinator {address}{names.format(victim.name)} --protocol 1 &", 20)
    ok(wait_for(lambda j: is_here(j, victim)), "it comes back as an older worker, which speaks protocol 1", victim.said(), status(tower))

    # --- a drain, a stop ---
    is_(tower.shell(f"stagecoach drain {other.name} --for 3h")[0], 0, "drain")
    ok(wait_for(lambda j: where(j) == sorted(["tower", victim.name])), "what it had, the older one takes", status(tower))
    is_(tower.shell(ASK)[1], want[1], "with the same answer")
    code, out, err = tower.shell(lines[-1])
    is_(code, 0, "stop", err)
    ok("no server of yours" in tower.shell("stagecoach stop")[2], "it has ended")
finally:
    for m in machines:
        m.end()
done()
