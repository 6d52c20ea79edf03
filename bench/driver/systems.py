"""The systems that are compared: how each is installed and run, and what it does not guarantee."""
import dataclasses
import filecmp
import os
import shutil
import subprocess
import venv
from pathlib import Path

from .processes import Failure

ROOT = Path(__file__).resolve().parent.parent.parent
BENCH = ROOT / "bench"


@dataclasses.dataclass(frozen=True)
class System:
    """One row of the table."""

    key: str
    title: str
    program: str
    # Jobs a worker runs or fetches at once: the fastest of those tried.
    slots: int
    # How it is configured, and what it does not guarantee that another row does.
    configuration: str
    lacks: str
    words: tuple = ()
    has_bulk: bool = True
    # Whether every finished job is left in Redis with its result.
    keeps: bool = True
    # Share of the jobs of a run, and an upper limit to them; 0: none.
    share: float = 1.0
    jobs_max: int = 0

    def jobs(self, jobs):
        jobs = max(100, int(jobs * self.share))
        return min(jobs, self.jobs_max) if self.jobs_max else jobs


SYSTEMS = [
    System(
        "leasehold", "Leasehold", "leasehold", 300,
        "Rust client and worker library, 300 slots a worker",
        "a job runs only once (none of these systems guarantees that)",
    ),
    System(
        "bullmq", "BullMQ", "bullmq", 100,
        "finished jobs are kept (its default), concurrency 100 a worker, addBulk",
        "a lock that outlasts a busy event loop: a handler that blocks it loses its lock, and the job runs twice; tokens "
        "whose order a database could check",
    ),
    System(
        "sidekiq", "Sidekiq (free)", "sidekiq", 10,
        "its basic fetch, 10 threads a worker (its default), push_bulk",
        "that a job survives the crash of its worker; a lease, fencing, or a record of a finished job",
        keeps=False,
    ),
    System(
        "celery", "Celery", "celery", 2,
        "late acknowledgement, results kept for a day, 2 processes a worker, prefetch 64 a process; a twentieth of the jobs",
        "fencing or a lease: jobs of a lost worker wait for the visibility timeout, an hour, and a job that takes longer "
        "runs twice; a list of jobs",
        has_bulk=False, share=0.05,
    ),
    System(
        "apalis", "apalis, with locks", "apalis", 100,
        "apalis-redis with its default locks, batches of 100, polls each 10 ms; a backlog of at most 7,000 (with more it is slower)",
        "fencing of attempts; that a worker outlives an error of Redis, or a backlog of 8,000 jobs that are not moved by hand",
        jobs_max=7_000,
    ),
    System(
        "apalis-without-locks", "apalis, without locks", "apalis", 100,
        "apalis-redis with lock_tasks(false), batches of 100, polls each 10 ms; the backlog is moved to its active list beforehand",
        "a lock, a lease or fencing; that a worker outlives an error of Redis, or a backlog of 8,000 jobs that are not moved by "
        "hand",
        words=("without-locks",),
    ),
]


def run(command, why, **options):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    except FileNotFoundError:
        raise Failure(f"{why}: {command[0]} is missing; scripts/install-tools.sh installs it") from None
    if done.returncode:
        raise Failure(f"{why}: {' '.join(map(str, command))} failed:\n{done.stdout.decode(errors='replace')[-3000:]}")
    return done.stdout.decode()


def is_current(source, copy):
    return copy.exists() and filecmp.cmp(source, copy, shallow=False)


class Programs:
    """Installs what the chosen systems need into a folder that is kept, and gives the command of each."""

    def __init__(self, cache, leasehold):
        self.cache, self.leasehold = cache, leasehold

    def prepare(self, systems):
        for program in dict.fromkeys(system.program for system in systems):
            print(f"preparing {program}", flush=True)
            getattr(self, f"_prepare_{program}")()

    def command(self, system):
        commands = {
            "leasehold": [self.leasehold],
            "bullmq": ["node", self.cache / "bullmq/bullmq.mjs"],
            "sidekiq": [ruby(), BENCH / "sidekiq/sidekiq.rb"],
            "celery": [self.cache / "celery/bin/python", BENCH / "celery/celery_peer.py"],
            "apalis": [self.cache / "apalis/release/peer-apalis"],
        }
        return [*map(str, commands[system.program]), *system.words]

    def _prepare_leasehold(self):
        if not self.leasehold.is_file():
            raise Failure(
                f"{self.leasehold} is missing; build it with:\n"
                "cargo build --release --locked -p leasehold-worker --example peer"
            )

    def _prepare_bullmq(self):
        folder = self.cache / "bullmq"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(BENCH / "bullmq/bullmq.mjs", folder)
        lock, installed = BENCH / "bullmq/package-lock.json", folder / "installed"
        if not is_current(lock, installed):
            for name in ["package.json", "package-lock.json"]:
                shutil.copy(BENCH / "bullmq" / name, folder)
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund"]
            run(["npm", "ci", *quiet], "BullMQ cannot be installed", cwd=folder)
            shutil.copy(lock, installed)

    def _prepare_sidekiq(self):
        run([ruby(), "-e", "require 'sidekiq'"], "Sidekiq is not installed (scripts/install-tools.sh sidekiq)")

    def _prepare_celery(self):
        folder, wanted = self.cache / "celery", BENCH / "celery/requirements.txt"
        if not is_current(wanted, folder / "installed"):
            venv.create(folder, with_pip=True, clear=True)
            pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            run([*pip, "-r", wanted], "Celery cannot be installed")
            shutil.copy(wanted, folder / "installed")

    def _prepare_apalis(self):
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.cache / "apalis")}
        manifest = BENCH / "apalis/Cargo.toml"
        command = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest]
        run(command, "apalis cannot be built", env=environment)


def ruby():
    """Debian's Ruby, which its ruby-sidekiq is for, where there is one."""
    return "/usr/bin/ruby" if Path("/usr/bin/ruby").exists() else "ruby"


def environment(redis, warm_up, payload):
    """What a program finds in its environment: nothing that configures Leasehold or Python otherwise."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEASEHOLD_", "PYTHON"))}
    return {
        **kept,
        "PEER_REDIS_URL": redis.url,
        "PEER_PAYLOAD": payload,
        "PEER_WARM_UP": str(warm_up),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NODE_ENV": "production",
    }
