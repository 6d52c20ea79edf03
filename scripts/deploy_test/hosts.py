"""Several hosts, as network namespaces: one of them is cut off from Redis, and comes back."""
import json
import os
import shutil
import subprocess
import time

from .machine import need

REDIS = "10.213.0.1"
LEASE_MS = 3_000
KINDS = """
[kinds.step]
command = ["sh", "{dir}/step.sh"]
"""
STEP = """
echo "$HOST $LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN" >> "$(dirname "$0")/journal"
sleep 1
echo "{\\"result\\": $LEASEHOLD_TOKEN}"
"""


class Hosts:
    """A switch and hosts a, b and c, in namespaces of their own; nothing of the machine's own network is touched."""

    def __init__(self, machine, binaries):
        self.binaries = binaries
        self.folder = machine.folder / "hosts"
        self.folder.mkdir()
        self.names = {host: f"lh{os.getpid()}{host}" for host in ("switch", "a", "b", "c")}
        self.processes = []

    def __enter__(self):
        for name in self.names.values():
            ip("netns", "add", name)
        self.ip("switch", "link", "add", "bridge", "type", "bridge")
        self.ip("switch", "link", "set", "bridge", "up")
        for number, host in enumerate("abc", 1):
            ip("link", "add", "eth0", "netns", self.names[host], "type", "veth", "peer", "name", f"to-{host}", "netns",
               self.names["switch"])
            self.ip("switch", "link", "set", f"to-{host}", "master", "bridge", "up")
            self.ip(host, "address", "add", f"10.213.0.{number}/24", "dev", "eth0")
            self.ip(host, "link", "set", "eth0", "up")
            self.ip(host, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ip(self, host, *words):
        ip("-n", self.names[host], *words)

    def start(self, host, *words, **environment):
        log = open(self.folder / f"{len(self.processes)}.log", "wb")
        environment = {**os.environ, "HOST": host, **environment}
        words = ["ip", "netns", "exec", self.names[host], *map(str, words)]
        self.processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=self.folder))

    def leasehold(self, *words):
        words = ["ip", "netns", "exec", self.names["a"], self.binaries / "leasehold", *words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "LEASEHOLD_REDIS_URL": f"redis://{REDIS}"})
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, count):
        jobs = (self.leasehold("jobs", "submit", "--kind", "step", "--output", "json") for _ in range(count))
        return [json.loads(job)["id"] for job in jobs]

    def jobs(self):
        listed = self.leasehold("jobs", "ls", "--all", "--output", "json").splitlines()
        return {job["id"]: job for job in map(json.loads, listed)}

    def journal(self):
        journal = self.folder / "kinds/journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [line.split() for line in lines]


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def eventually(limit, what, probe):
    """Waits until `probe` returns something true; it, and how long that took."""
    begun = time.monotonic()
    while not (seen := probe()):
        assert time.monotonic() - begun < limit, f"not within {limit} s: {what}"
        time.sleep(0.2)
    return seen, time.monotonic() - begun


def one_is_cut_off(machine):
    """A worker's host loses its route to Redis: another takes its jobs over, and it works again once it is back."""
    need("ip", "redis-server")
    with Hosts(machine, machine.state["binaries"]) as hosts:
        kinds = hosts.folder / "kinds"
        kinds.mkdir()
        (kinds / "kinds.toml").write_text(KINDS)
        (kinds / "step.sh").write_text(STEP)
        hosts.start("a", "redis-server", machine.root / "redis.conf", "--bind", REDIS, "--port", 6379, "--protected-mode",
                    "no", "--dir", hosts.folder)
        settings = {"LEASEHOLD_REDIS_URL": f"redis://{REDIS}", "LEASEHOLD_LEASE_MS": str(LEASE_MS),
                    "LEASEHOLD_KINDS": str(kinds / "kinds.toml"), "LEASEHOLD_WORKER__CONCURRENCY": "2"}
        hosts.start("a", hosts.binaries / "leasehold-api", **settings)
        for host in "bc":
            hosts.start(host, hosts.binaries / "leasehold-worker", **settings)
        eventually(30, "both workers are there", lambda: hosts.leasehold("workers", "ls").count("alive") == 2)
        first = hosts.submit(24)
        eventually(30, "host b works", lambda: any(line[0] == "b" for line in hosts.journal()))
        hosts.ip("b", "route", "add", "blackhole", f"{REDIS}/32")
        held = {line[1] for line in hosts.journal() if line[0] == "b"}
        done = lambda ids: all((job := hosts.jobs().get(id)) and job["state"] == "completed" for id in ids)
        _, took = eventually(60, "host c has taken the jobs of host b over", lambda: done(first))
        again = {line[1] for line in hosts.journal() if line[0] == "c"} & held
        assert again, "host c ran nothing that host b had"
        tokens = [line[2] for line in hosts.journal()]
        assert len(tokens) == len(set(tokens)), "a token was issued twice"
        hosts.ip("b", "route", "del", "blackhole", f"{REDIS}/32")
        begun = len(hosts.journal())
        second = hosts.submit(24)
        _, back = eventually(60, "host b works again", lambda: any(line[0] == "b" for line in hosts.journal()[begun:]))
        eventually(60, "all jobs are completed", lambda: done(first + second))
        hosts.leasehold("doctor")
    return f"{len(again)} jobs were taken over, all done {took:.0f} s after the cut; the host worked again after {back:.0f} s"
