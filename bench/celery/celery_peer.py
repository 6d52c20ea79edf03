"""Celery as `make bench-peers` runs it, with late acknowledgement and its results kept. The protocol is in bench/peers.py."""
import json
import os
import sys
import threading
import time
from multiprocessing import Value
from multiprocessing.pool import ThreadPool

import celery
import celery.signals
import redis

CALLERS = 8
REPORT_S = 0.05
# Of one worker process, which forks them: as many as the machine's cores, its default.
URL = os.environ["PEER_REDIS_URL"]
PAYLOAD = json.loads(os.environ["PEER_PAYLOAD"])

app = celery.Celery("bench", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,  # A job is acknowledged after it has run: a lost worker loses none.
    task_reject_on_worker_lost=True,
    task_default_queue="bench",
    worker_prefetch_multiplier=64,  # Short tasks: the guide says 64 or more.
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_send_task_events=False,
)

# Of the pool's processes, which are forked from this one.
executed, first, last = Value("q", 0), Value("q", 0), Value("q", 0)


def now():
    """Microseconds since 1970: comparable between the processes of a machine."""
    return time.time_ns() // 1000


@app.task(name="work")
def work(_payload):
    at = now()
    with executed.get_lock():
        first.value = first.value or at
        last.value = max(last.value, at)
        executed.value += 1


def say(**line):
    print(json.dumps(line), flush=True)


def hear():
    """Waits for the driver's next line. Not through sys.stdin: a forked process would wait for its lock."""
    while (byte := os.read(0, 1)) and byte != b"\n":
        pass


def ready():
    say(ready=f"Celery {celery.__version__}, redis-py {redis.__version__}, Python {sys.version.split()[0]}")
    hear()


def enqueue(how, count):
    begun = time.monotonic()
    if how == "one":
        for _ in range(count):
            work.delay(PAYLOAD)
    elif how == "concurrent":
        with ThreadPool(CALLERS) as pool:
            pool.map(lambda _: work.delay(PAYLOAD), range(count), chunksize=16)
    else:
        sys.exit(f"enqueue {how}: one or concurrent; Celery has no bulk call")
    say(jobs=count, seconds=time.monotonic() - begun)


def worker(slots):
    return app.Worker(pool="prefork", concurrency=slots, loglevel="ERROR", without_gossip=True, without_mingle=True,
                      hostname=f"worker-{os.getpid()}@%h", quiet=True)


def report(ended):
    with executed.get_lock():
        seen = executed.value
        say(executed=seen, first=first.value, last=last.value, ended=ended)
    return seen


def drain(slots):
    running = worker(slots)
    ready()

    def watch():
        stopped = threading.Event()
        threading.Thread(target=lambda: (hear(), stopped.set()), daemon=True).start()
        reported = 0
        while not stopped.wait(REPORT_S):
            if executed.value > reported:
                reported = report(False)
        celery.worker.state.should_stop = 0

    threading.Thread(target=watch, daemon=True).start()
    running.start()
    report(True)


def latency(samples):
    running, forked = worker(2), threading.Event()
    # A process that is forked while another thread holds a lock would wait for it forever.
    celery.signals.worker_ready.connect(lambda **_: forked.set(), weak=False)
    ready()

    def submit():
        forked.wait()
        warm_up, micros = samples // 10, []
        for at in range(samples + warm_up):
            time.sleep(0.005 + at * 7919 % 10000 / 1e6)  # Uneven, so that no poll falls into step.
            before, begun = executed.value, now()
            work.delay(PAYLOAD)
            while executed.value == before:
                time.sleep(0.0001)
            micros.append(last.value - begun)
        say(us=micros[warm_up:])
        celery.worker.state.should_stop = 0

    threading.Thread(target=submit, daemon=True).start()
    running.start()


def kept():
    say(kept=sum(1 for _ in redis.Redis.from_url(URL).scan_iter("celery-task-meta-*", count=1000)))


def main():
    match sys.argv[1:]:
        case ["enqueue", how, count]:
            for _ in range(int(os.environ["PEER_WARM_UP"])):
                work.delay(PAYLOAD)
            ready()
            enqueue(how, int(count))
        case ["drain", slots]:
            drain(int(slots))
        case ["latency", samples]:
            latency(int(samples))
        case ["kept"]:
            kept()
        case _:
            sys.exit("usage: enqueue one|concurrent JOBS, drain SLOTS, latency SAMPLES, or kept")


if __name__ == "__main__":
    main()
