"""Podman with storage in one folder, and what the parts share."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

# The default limits need a privilege that root may lack, and crun refuses hybrid cgroups. The folders keep the networks
# and the state of this machine's own podman out of reach.
CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=10000:10000", "nproc=20000:20000"]
[engine]
runtime = "runc"
tmp_dir = "{folder}/libpod"
[network]
network_config_dir = "{folder}/networks"
"""
TOKEN = "lh_development_only"


class CannotRun(Exception):
    """Why this machine cannot run a part."""


class Machine:
    """The folder of a test, and the containers in it."""

    def __init__(self, folder, root):
        self.folder, self.root = folder, root
        self.state = {}
        for name in ("libpod", "networks", "run", "storage"):
            (folder / name).mkdir(exist_ok=True)
        conf = folder / "containers.conf"
        conf.write_text(CONTAINERS_CONF.format(folder=folder))
        self.program = folder / "podman"
        self.program.write_text(
            f"#!/bin/sh\nexport CONTAINERS_CONF={conf}\n"
            f'exec /usr/bin/podman --root {folder}/storage --runroot {folder}/run "$@"\n'
        )
        self.program.chmod(0o755)

    def podman(self, *words, check=True, limit=300):
        """Runs podman; its standard output."""
        done = subprocess.run([self.program, *words], capture_output=True, text=True, timeout=limit)
        if check and done.returncode != 0:
            raise RuntimeError(f"podman {' '.join(map(str, words))}: {done.stdout}{done.stderr}".strip()[-2000:])
        return done.stdout.strip()

    def inspect(self, name):
        return json.loads(self.podman("inspect", name))[0]

    def kill9(self, name):
        """Kills the container's process 1 from outside, as a crash would; `podman kill` would count as a stop."""
        os.kill(self.inspect(name)["State"]["Pid"], signal.SIGKILL)

    def clean(self, keep_images):
        """Removes all containers, volumes and networks; what is left of them."""
        self.podman("pod", "rm", "--all", "--force", "--time", "2", check=False)
        self.podman("rm", "--all", "--force", "--time", "2", check=False)
        self.podman("volume", "rm", "--all", "--force", check=False)
        self.podman("secret", "rm", "--all", check=False)
        self.podman("network", "prune", "--force", check=False)
        left = self.podman("ps", "--all", "--format", "{{.Names}}", check=False).split()
        left += [name for name in self.podman("network", "ls", "--format", "{{.Name}}").split() if name != "podman"]
        if not keep_images:
            self.podman("rmi", "--all", "--force", check=False)
            left += self.podman("images", "--quiet", check=False).split()
            for mount in (self.folder / "storage/overlay", self.folder / "storage"):
                subprocess.run(["umount", mount], capture_output=True)
        words = ["pgrep", "--full", "--list-full", f"{self.folder}/(storage|run|libpod)"]
        running = subprocess.run(words, capture_output=True, text=True).stdout
        return left + running.splitlines()


def need(*programs):
    """Fails unless the programs are installed."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise CannotRun(f"not installed: {', '.join(missing)}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def request(url, body=None, token=TOKEN, headers=None, limit=40):
    """Asks once: the status and the body, 0 when nothing answers."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers={"content-type": "application/json", **(headers or {})})
    if token:
        asked.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(asked, timeout=limit) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError as failure:
        return 0, str(failure)


def eventually(what, condition, limit=60):
    """Waits until the condition returns something; the last reason is reported when it does not."""
    end, last = time.monotonic() + limit, None
    while time.monotonic() < end:
        try:
            found = condition()
            if found:
                return found
        except (RuntimeError, AssertionError, KeyError, ValueError) as failure:
            last = failure
        time.sleep(0.3)
    raise AssertionError(f"not within {limit} s: {what}" + (f": {last}" if last else ""))
