"""The compose file: three APIs and four workers, under load and under faults."""
import json
import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .image import NEXT, VERSION
from .machine import TOKEN, eventually, free_port, request

PROJECT = "leasehold-deploy-test"
APIS, WORKERS = 3, 4
# More than a lease of 30 s, a sweep, and the run of what waited meanwhile.
SETTLED = 150


class Stack:
    """The running compose project."""

    def __init__(self, machine):
        self.machine, self.port, self.prometheus = machine, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.version = VERSION

    def compose(self, *words, limit=300, **variables):
        """Runs podman-compose with the images of this test; `variables` are the compose file's."""
        environment = dict(
            os.environ,
            **{"APIS": str(APIS), "WORKERS": str(WORKERS), **variables},
            PUBLISH=f"127.0.0.1:{self.port}",
            PROMETHEUS_PUBLISH=f"127.0.0.1:{self.prometheus}",
            IMAGE=f"localhost/leasehold:{self.version}",
            WORKER_IMAGE=f"localhost/leasehold-python:{self.version}",
            FULL_IMAGE=f"localhost/leasehold-full:{VERSION}",
            **{f"{name.upper()}_IMAGE": f"localhost/{name}:test" for name in ("redis", "haproxy", "prometheus")},
        )
        compose = [self.machine.folder / "venv/bin/podman-compose", "--podman-path", self.machine.program]
        compose += ["--in-pod", "false", "--project-name", PROJECT, "--file", self.machine.root / "docker-compose.yml"]
        # Its output goes to a file: a conmon that it starts keeps a pipe open.
        with open(self.machine.folder / "compose.log", "a+") as log:
            at = log.tell()
            done = subprocess.run([*compose, *words], env=environment, stdout=log, stderr=log, timeout=limit)
            log.seek(at)
            if done.returncode != 0:
                raise RuntimeError(f"podman-compose {' '.join(words)}: {log.read()[-2000:]}")

    def up(self):
        """Starts what is missing."""
        self.compose("up", "--detach", "--no-build", "--no-recreate")

    def remove(self, container):
        """Stops a container as compose would, and removes it."""
        self.machine.podman("stop", "--time", "60", container, limit=90)
        self.machine.podman("rm", container)

    def containers(self, service):
        """The names of a service's running containers."""
        filters = ["--filter", f"label=com.docker.compose.project={PROJECT}"]
        filters += ["--filter", f"label=com.docker.compose.service={service}"]
        listed = self.machine.podman("ps", *filters, "--format", "{{.Names}}")
        return sorted(listed.split())

    def address(self, container):
        """The address of a container in the project's network."""
        networks = self.machine.inspect(container)["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    def command(self, *words, limit=120):
        """Runs `leasehold` in a container of the API, as an operator would."""
        return self.machine.podman("exec", self.containers("api")[0], "leasehold", *words, limit=limit)

    def completes(self, kind, payload):
        """Submits a job, and waits until it is completed; the job."""
        status, text = request(f"{self.url}/api/v1/jobs", {"kind": kind, "payload": payload})
        assert status == 202, f"{status} {text}"

        def completed():
            shown = self.get(f"/api/v1/jobs/{json.loads(text)['id']}")
            assert shown["state"] not in ("failed", "cancelled"), shown
            return shown if shown["state"] == "completed" else None

        return eventually(f"a job of {kind} is completed", completed)

    def get(self, path):
        status, text = request(f"{self.url}{path}")
        assert status == 200, f"{path}: {status} {text[:300]}"
        return json.loads(text)

    def ready(self):
        """Waits until every replica is ready, as its health check says."""
        for service in ("api", "worker"):
            for container in self.containers(service):
                # Podman runs health checks by systemd's timers, where there is a systemd.
                check = lambda: self.machine.podman("healthcheck", "run", container) or True
                eventually(f"{container} is healthy", check)
        eventually("the proxy reaches an API", lambda: request(f"{self.url}/readyz")[0] == 200)


class Load:
    """Clients that submit through the proxy; a submit without an answer is repeated with its Idempotency-Key."""

    def __init__(self, stack, name, clients=4):
        self.stack, self.name, self.acknowledged, self.repeated = stack, name, {}, 0
        self.stopping = threading.Event()
        self.pool = ThreadPoolExecutor(clients)
        self.running = [self.pool.submit(self._client, number) for number in range(clients)]

    def _client(self, number):
        count = 0
        while not self.stopping.is_set():
            key, words = f"{self.name}-{number}-{count}", count % 7 + 1
            body = {"kind": "word-count", "payload": {"text": " ".join(["word"] * words)}}
            for attempt in range(200):
                headers = {"idempotency-key": key}
                status, text = request(f"{self.stack.url}/api/v1/jobs", body, headers=headers, limit=15)
                if status in (200, 201, 202):
                    break
                assert status in (0, 429, 502, 503, 504), f"{status}: {text[:300]}"
                self.repeated += 1
                time.sleep(0.2)
            else:
                raise AssertionError(f"{key} was never accepted: {status} {text[:300]}")
            self.acknowledged[json.loads(text)["id"]] = words
            count += 1
            time.sleep(0.15)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.pool.shutdown()

    def finish(self):
        """Stops, and waits until every acknowledged job is completed with the right result."""
        self.stopping.set()
        for client in self.running:
            client.result()
        left = dict(self.acknowledged)

        def completed():
            for job in list(left):
                shown = self.stack.get(f"/api/v1/jobs/{job}")
                assert shown["state"] not in ("failed", "cancelled"), shown
                if shown["state"] != "completed":
                    raise RuntimeError(f"{len(left)} jobs are left, {job} is {shown['state']}")
                assert shown["result"] == {"words": left[job]}, shown
                del left[job]
            return True

        eventually("all acknowledged jobs are completed", completed, SETTLED)
        said = self.stack.command("doctor")
        assert "nothing is wrong" in said, said
        return len(self.acknowledged)


def of(machine):
    """The stack, started if it is not."""
    if "stack" not in machine.state:
        stack = machine.state["stack"] = Stack(machine)
        stack.up()
        stack.ready()
    return machine.state["stack"]


def comes_up(machine):
    """The stack is up, and the README's first curl works on it."""
    stack = of(machine)
    counts = {service: len(stack.containers(service)) for service in ("redis", "api", "worker", "proxy")}
    assert counts == {"redis": 1, "api": APIS, "worker": WORKERS, "proxy": 1}, counts
    readme = (machine.root / "README.md").read_text()
    curl = re.search(r"^curl .*?/api/v1/jobs$", readme, re.M | re.S)[0].replace("http://127.0.0.1:8080", stack.url)
    without = json.loads(subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout)
    assert without["status"] == 401, without
    curl = curl.replace("curl ", f"curl -H 'authorization: Bearer {TOKEN}' ", 1)
    job = json.loads(subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout)
    done = eventually("the README's first job is completed", lambda: _completed(stack, job["id"]))
    assert done["result"] == {"words": 3}, done
    return f"{APIS} APIs, {WORKERS} workers; the README's first job is completed"


def _completed(stack, job):
    shown = stack.get(f"/api/v1/jobs/{job}")
    return shown if shown["state"] == "completed" else None


def every_replica_is_reached(machine):
    """The proxy sends requests to each API, and each worker runs jobs."""
    stack = of(machine)
    served = (("api", 8080, r"http_requests_total\{.*POST.*\}"), ("worker", 9190, r"jobs_finished_total\{.*\}"))

    def reached():
        counts = []
        for service, port, metric in served:
            for container in stack.containers(service):
                status, text = request(f"http://{stack.address(container)}:{port}/metrics")
                assert status == 200, f"{container}: {status} {text[:200]}"
                numbers = re.findall(rf"^leasehold_{metric} ([0-9.]+)", text, re.M)
                counts.append(round(sum(map(float, numbers))))
        return counts if all(counts) else None

    with Load(stack, "reach") as load:
        counts = eventually("every replica has worked", reached)
        load.finish()
    worker = stack.address(stack.containers("worker")[0])
    status, _ = request(f"http://{worker}:9190/metrics", token=None)
    assert status == 401, f"a worker's /metrics without a token answers {status}"
    return f"requests or jobs of each: {counts}"


def survives_kills(machine):
    """kill -9 of an API, of two workers and of Redis, one after the other, while clients submit."""
    stack = of(machine)
    killed = [stack.containers("api")[0], *stack.containers("worker")[:2], *stack.containers("redis")]
    with Load(stack, "kill") as load:
        for container in killed:
            time.sleep(2)
            before = machine.inspect(container)["State"]["Pid"]
            machine.kill9(container)

            def restarted():
                state = machine.inspect(container)["State"]
                return state["Running"] and state["Pid"] not in (0, before)

            eventually(f"{container} is restarted", restarted)
        stack.ready()
        count = load.finish()
    return f"{len(killed)} containers killed; {count} acknowledged jobs, none lost; {load.repeated} submits repeated"


def rolls_a_new_version(machine):
    """Every worker and API is replaced by one of the next image, one at a time, while clients submit."""
    stack = of(machine)
    old = [*stack.containers("worker"), *stack.containers("api")]
    stack.version = NEXT
    with Load(stack, "roll") as load:
        for container in old:
            stack.remove(container)
            stack.up()
            stack.ready()
        count = load.finish()
    new = [*stack.containers("worker"), *stack.containers("api")]
    images = {machine.inspect(name)["ImageName"] for name in new}
    assert images == {f"localhost/leasehold:{NEXT}", f"localhost/leasehold-python:{NEXT}"}, images
    crashes = sum(stack.get(f"/api/v1/jobs/{job}").get("crashes", 0) for job in load.acknowledged)
    assert crashes == 0, f"{crashes} crashes were counted"
    return f"{len(old)} containers replaced; {count} jobs, no crash counted; {load.repeated} submits repeated"


def scales_to_zero_and_back(machine):
    """Without workers a delayed job becomes demand when it is due; a started worker runs it."""
    stack = of(machine)
    demand = lambda: stack.get("/api/v1/queues/default")["demand"]
    eventually("no job is left", lambda: demand() == 0, SETTLED)
    for container in stack.containers("worker"):
        stack.remove(container)
    body = {"kind": "word-count", "payload": {"text": "one two"}, "delay_ms": 3000}
    status, text = request(f"{stack.url}/api/v1/jobs", body)
    assert status == 202, f"{status} {text}"
    assert demand() == 0, "a job that is not due is not demand"
    eventually("the due job is demand", lambda: demand() == 1)
    stack.up()
    stack.ready()
    eventually("the job is completed", lambda: _completed(stack, json.loads(text)["id"]))
    return f"0 workers, demand 1 once the job was due, {WORKERS} workers, job completed"


def prometheus_finds_all(machine):
    """The profile `observability`: Prometheus scrapes every API and worker."""
    stack = of(machine)
    check = ["run", "--rm", "--entrypoint", "promtool"]
    for mounted in ("prometheus.yml:/prometheus.yml", "prometheus.token:/run/secrets/prometheus_token"):
        check += ["--volume", f"{machine.root}/compose/{mounted}:ro"]
    machine.podman(*check, "localhost/prometheus:test", "check", "config", "/prometheus.yml")
    stack.compose("--profile", "observability", "up", "--detach", "--no-build", "--no-recreate", "prometheus")
    url = f"http://127.0.0.1:{stack.prometheus}/api/v1/targets"

    def all_up():
        status, text = request(url, token=None)
        targets = json.loads(text)["data"]["activeTargets"] if status == 200 else []
        seen = sorted(f"{target['labels']['job']} {target['health']}" for target in targets)
        wanted = ["leasehold-api up"] * APIS + ["leasehold-worker up"] * WORKERS
        assert seen == wanted, f"{seen} {[target['lastError'] for target in targets]}"
        return True

    eventually("every replica is scraped", all_up, 90)
    return f"{APIS} APIs and {WORKERS} workers are scraped"


def five_systems(machine):
    """The profile `five-systems`: the kinds of examples/kinds.toml, and Chromium in the confined container."""
    stack = of(machine)
    stack.compose("down", "--volumes")
    stack.version = VERSION
    file = (machine.root / "compose/five-systems.env").read_text()
    variables = dict(line.split("=", 1) for line in file.splitlines() if not line.startswith("#"))
    variables["KINDS_FOLDER"] = str(machine.root / variables["KINDS_FOLDER"])
    profile = ["--profile", "five-systems"]
    stack.compose(*profile, "up", "--detach", "--no-build", "--no-recreate", **variables)
    [worker] = stack.containers("worker-five-systems")
    assert stack.containers("worker") == [], stack.containers("worker")
    eventually("the proxy reaches an API", lambda: request(f"{stack.url}/readyz")[0] == 200)
    stack.completes("process-files", {"file": "night-shift.txt"})
    stack.completes("suggestions", {"text": "It is what it is, in order to be."})
    # The service's own page: kinds fetch from public addresses only, which this machine may not reach.
    page = {"id": "x", "url": "http://api:8080/", "config": {"width": 320, "height": 240, "format": "png"}}
    script = "python3 /etc/leasehold/kinds/screenshots/screenshots.py && test -s out/screenshot.png"
    run = [machine.program, "exec", "--interactive", "--workdir", "/tmp"]
    run += ["--env", "LEASEHOLD_FETCH__ALLOW_PRIVATE=true", worker, "sh", "-c", f"mkdir -p out && {script}"]
    done = subprocess.run(run, input=json.dumps(page) + "\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    stack.compose(*profile, "down", "--volumes", **variables)
    del machine.state["stack"]
    return "a document is read, a text improved, a page rendered by Chromium"
