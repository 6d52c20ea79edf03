"""What is measured of a system in one round: enqueue, drain and latency, each on a Redis of its own."""
import contextlib
import json
import statistics
import time

from .processes import Failure, Program, Redis
from .systems import environment

# Of every job: 200 bytes of JSON.
PAYLOAD = json.dumps({"user": 4711, "text": "x" * 177}, separators=(",", ":"))
assert len(PAYLOAD) == 200
# Seconds until a program must have answered: a run on a slow machine is slow, and not wrong.
READY_LIMIT, ANSWER_LIMIT = 120, 300


class Round:
    """Measures one system once."""

    def __init__(self, processes, programs, redis_program, redis_config, system, sizes):
        self.processes, self.programs, self.system, self.sizes = processes, programs, system, sizes
        self.redis_program, self.redis_config = redis_program, redis_config
        self.versions = ""
        # Of the first jobs of a program, which are not measured.
        self.warm_up = max(20, int(sizes.warm_up * system.share))

    def run(self):
        figures = {}
        one = self.system.jobs(self.sizes.one_by_one)
        jobs = self.system.jobs(self.sizes.jobs)
        for how, count in [("one", one), ("concurrent", jobs)]:
            with self.redis() as redis:
                figures[f"enqueue_{how}"], figures[f"enqueue_{how}_us"] = self.enqueue(redis, how, count)
        fill = "bulk" if self.system.has_bulk else "concurrent"
        filled = []
        for workers in (1, 2):
            with self.redis() as redis:
                filled.append(self.enqueue(redis, fill, jobs))
                rate, cpu = self.drain(redis, workers, jobs + self.warm_up)
                figures[f"drain_{workers}"], figures[f"drain_{workers}_us"] = rate, cpu
        if self.system.has_bulk:
            figures["enqueue_bulk"], figures["enqueue_bulk_us"] = map(statistics.mean, zip(*filled))
        with self.redis() as redis:
            figures["latency_p50"], figures["latency_p99"] = self.latency(redis)
        return figures

    def redis(self):
        return Redis(self.processes, self.redis_program, self.redis_config)

    def program(self, redis, *words):
        command = [*self.programs.command(self.system), *map(str, words)]
        variables = environment(redis, self.warm_up, PAYLOAD)
        return Program(self.processes, command, variables, f"{self.system.title}, {' '.join(map(str, words))}")

    def enqueue(self, redis, how, count):
        """Jobs a second, and microseconds of Redis a job."""
        with self.program(redis, "enqueue", how, count) as program:
            self.versions = program.next("ready", READY_LIMIT)["ready"] or self.versions
            before = redis.cpu_us()
            program.say("go")
            answer = program.next("seconds", ANSWER_LIMIT)
            return count / answer["seconds"], (redis.cpu_us() - before) / count

    def drain(self, redis, workers, expected):
        """Jobs a second from the first handler's start to the last one's, and microseconds of Redis a job."""
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(self.program(redis, "drain", self.system.slots)) for _ in range(workers)]
            for program in started:
                program.next("ready", READY_LIMIT)
            before = redis.cpu_us()
            for program in started:
                program.say("go")
            self.wait_until_executed(started, expected)
            for program in started:
                program.say("stop")
            reports = [self.last_report(program) for program in started]
            cpu = redis.cpu_us() - before
        executed = sum(report["executed"] for report in reports)
        if executed != expected:
            raise Failure(f"{self.system.title} has executed {executed} times what were {expected} jobs")
        busy = [report for report in reports if report["executed"]]
        seconds = (max(report["last"] for report in busy) - min(report["first"] for report in busy)) / 1e6
        if self.system.keeps:
            with self.program(redis, "kept") as program:
                kept = program.next("kept", READY_LIMIT)["kept"]
            if kept != expected:
                raise Failure(f"{self.system.title} has a record of {kept} finished jobs; there were {expected}")
        return expected / seconds, cpu / expected

    def wait_until_executed(self, programs, expected):
        counts, deadline = [0] * len(programs), time.monotonic() + ANSWER_LIMIT
        while sum(counts) < expected:
            for at, program in enumerate(programs):
                if program.process.poll() is not None:
                    program.next("never", READY_LIMIT)
                while not program.lines.empty():
                    counts[at] = program.next("executed", READY_LIMIT)["executed"]
            if time.monotonic() > deadline:
                raise Failure(f"{self.system.title} has executed {sum(counts)} of {expected} jobs in {ANSWER_LIMIT} s")
            time.sleep(0.02)

    def last_report(self, program):
        while True:
            report = program.next("executed", READY_LIMIT)
            if report["ended"]:
                return report

    def latency(self, redis):
        """Median and 99th percentile of the microseconds from submit to the start of the handler."""
        samples = self.system.jobs(self.sizes.samples) if self.system.share < 1 else self.sizes.samples
        with self.program(redis, "latency", samples) as program:
            program.next("ready", READY_LIMIT)
            program.say("go")
            micros = sorted(program.next("us", ANSWER_LIMIT)["us"])
        return statistics.median(micros), micros[min(len(micros) - 1, round(len(micros) * 0.99))]
