#!/usr/bin/env python3
"""Compares Leasehold with other queues on Redis, as `make bench-peers` does: drain, enqueue and start latency.

Every system has a small program below bench/ that runs it through its own client and worker. The rounds of all systems
take turns, and each measurement has a Redis of its own with the project's redis.conf and `appendfsync everysec`.

A program gets a command and, in its environment, PEER_REDIS_URL, PEER_PAYLOAD and PEER_WARM_UP. It answers with lines of
JSON, and waits for a line after the first of them:
  enqueue HOW JOBS   {"ready": VERSIONS}; after `go` {"jobs", "seconds"}. HOW: one (by one), concurrent, bulk.
  drain SLOTS        {"ready"}; after `go` {"executed", "first", "last", "ended"} whenever more were executed, with the
                     times of the first and the last handler's start, µs since 1970; after `stop` the last such line.
  latency SAMPLES    {"ready"}; after `go` {"us": [...]}, from submit to the handler's start in an idle system.
  kept               {"kept": N}, the finished jobs of which there is a record.

Exits with 1 when a goal is missed, and 2 when something cannot be measured.
"""
import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))

from driver import goals, report  # noqa: E402
from driver.measure import Round  # noqa: E402
from driver.processes import Failure, Processes, Redis  # noqa: E402
from driver.systems import ROOT, SYSTEMS, Programs  # noqa: E402

KEYS = [system.key for system in SYSTEMS]


@dataclasses.dataclass
class Sizes:
    """How much is measured."""

    rounds: int = 3
    jobs: int = 60_000
    one_by_one: int = 10_000
    samples: int = 500
    warm_up: int = 500


QUICK = Sizes(rounds=1, jobs=20_000, one_by_one=3_000, samples=200, warm_up=500)


def names(text):
    chosen = [name for name in text.replace(",", " ").split() if name]
    unknown = [name for name in chosen if name not in KEYS]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(f"{' '.join(unknown) or 'nothing'}: choose from {', '.join(KEYS)}")
    return chosen


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least 1 is needed")
    return int(text)


def arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=names, metavar="NAMES", help=f"some systems, with commas between: {', '.join(KEYS)}")
    parser.add_argument("--quick", action="store_true", help="one round with fewer jobs; the goals are judged by it")
    parser.add_argument("--rounds", type=positive, help="rounds; the median counts")
    parser.add_argument("--jobs", type=positive, help="jobs of a drain; Celery has a twentieth of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures into this file, too")
    parser.add_argument("--docs", action="store_true", help="write the tables and the chart into README.md and docs/")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing: report what --json has written")
    parser.add_argument("--cache", type=Path, default=target / "peers", help="folder for the packages; it is kept")
    parser.add_argument(
        "--leasehold", type=Path, default=target / "release/examples/peer", help="the program of Leasehold, as built"
    )
    given = parser.parse_args()
    if given.docs and (given.only or given.quick):
        parser.error("--docs: the page has all systems and whole runs; leave out --only and --quick")
    if given.report and (given.only or given.quick or given.rounds or given.jobs):
        parser.error("--report: a finished run is reported as it was; leave out what would change it")
    return given


def machine():
    """What the figures depend on, without anything that names the machine."""
    model = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {"cores": os.cpu_count(), "processor": model[0] if model else platform.machine(), "system": platform.system()}


def measure(given):
    systems = [system for system in SYSTEMS if not given.only or system.key in given.only]
    sizes = dataclasses.replace(QUICK if given.quick else Sizes())
    sizes.rounds, sizes.jobs = given.rounds or sizes.rounds, given.jobs or sizes.jobs
    sizes.one_by_one = min(sizes.one_by_one, sizes.jobs)
    programs = Programs(given.cache.resolve(), given.leasehold.resolve())
    programs.prepare(systems)
    redis_program = os.environ.get("LEASEHOLD_REDIS_SERVER") or "redis-server"
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the machine is busy (load {load:.1f}): the figures will be lower, and further apart", flush=True)
    rounds, versions = [], {}
    with Processes() as processes:
        with Redis(processes, redis_program, ROOT / "redis.conf") as redis:
            redis_version = redis.info("server")["redis_version"]
        for at in range(sizes.rounds):
            figures = {}
            # Another begins each time, so that none always has the same place.
            for system in systems[at % len(systems) :] + systems[: at % len(systems)]:
                begun = time.monotonic()
                measured = Round(processes, programs, redis_program, ROOT / "redis.conf", system, sizes)
                figures[system.key] = measured.run()
                versions[system.key] = measured.versions
                of = figures[system.key]
                print(
                    f"round {at + 1} of {sizes.rounds}, {system.title}: drain {of['drain_1']:,.0f} and {of['drain_2']:,.0f} "
                    f"jobs/s, latency {of['latency_p50']:,.0f} µs ({time.monotonic() - begun:.0f} s)",
                    flush=True,
                )
            rounds.append(figures)
    return {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "redis": redis_version, "versions": versions,
        "sizes": dataclasses.asdict(sizes), "load": load, "rounds": rounds,
    }


def about(run):
    sizes, where = run["sizes"], run["machine"]
    busy = f"; other work ran meanwhile (load {run['load']:.0f} before it)" if run["load"] >= 1 else ""
    return (
        f"{run['date']}, {where['cores']} cores ({where['processor']}) for workers and Redis {run['redis']} together, "
        f"`appendfsync everysec`, {sizes['jobs']:,} jobs of 200 bytes, medians of {sizes['rounds']} rounds{busy}"
    )


def conclude(given, run):
    """Prints and writes the results; returns the exit code."""
    systems = [system for system in SYSTEMS if system.key in run["rounds"][0]]
    summaries = {system.key: report.summary(run["rounds"], system.key) for system in systems}
    titles = {system.key: system.title for system in SYSTEMS}
    judged = goals.judge(run["rounds"])
    lines = [goals.line(goal, titles) for goal in judged]
    print(f"\n{about(run)}\n")
    print(report.terminal(systems, summaries))
    print("\nversions and settings:")
    for system in systems:
        print(f"  {system.title}: {run['versions'].get(system.key) or '-'}; {system.configuration}")
    print("\ngoals, as the median of the rounds' ratios:")
    for line in lines or ["none: they need leasehold beside bullmq, sidekiq or apalis-without-locks"]:
        print(f"  {line}")
    if given.json:
        given.json.write_text(json.dumps({**run, "summary": summaries, "goals": judged}, indent=1) + "\n")
    if given.docs:
        page = ROOT / "docs/performance.md"
        report.into_page(page, report.markdown(systems, summaries, run["versions"], about(run) + ".", lines))
        report.into_page(ROOT / "README.md", report.short(systems, summaries, about(run) + "."))
        caption = f"{run['date']}, {run['machine']['cores']} cores, Redis {run['redis']}, everysec; see docs/performance.md"
        (ROOT / "docs/peers.svg").write_text(report.chart(systems, summaries, caption))
    return 0 if all(goal["met"] for goal in judged) else 1


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # Unwinds, and so ends what was started.
    try:
        run = json.loads(given.report.read_text()) if given.report else measure(given)
        sys.exit(conclude(given, run))
    except (Failure, OSError, ValueError) as failure:
        sys.exit(fail(failure))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted"))


def fail(reason):
    print(f"bench-peers: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
