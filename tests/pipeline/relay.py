"""The relay (relay.c) for tests in Python: one bad link.

    with Relay("127.0.0.1:7101", "delay 5", "rate 300") as link:
        connect_to(link.address)
        link("cut")
"""
import os
import subprocess


class Relay:
    def __init__(self, to, *commands, seed=1, listen="127.0.0.1:0"):
        program = os.path.join(os.environ.get("SC_BUILD", "build"), "tests/pipeline/relay")
        self.process = subprocess.Popen([program, "--to", to, "--listen", listen, "--seed", str(seed), *commands],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = self.process.stdout.readline().split()
        if not said:
            raise RuntimeError("the relay did not start")
        self.address = said[1]
        self.port = int(self.address.rsplit(":", 1)[1])

    def __call__(self, command):
        """Its answer; an error is raised."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        if not said or said.startswith("error"):
            raise RuntimeError(f"relay: {command}: {said or 'it has ended'}")
        return said

    def stats(self):
        words = self("stats").split()
        return dict(zip(words[::2], map(int, words[1::2])))

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
