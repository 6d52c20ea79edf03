"""The processes of a run, each in a session of its own: private Redis servers, and programs that speak the protocol."""
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path


class Failure(Exception):
    """A run that cannot continue, with the reason as a person reads it."""


class Processes:
    """Everything that was started, and the folder for its files. Nothing of it is left when this closes."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="leasehold-peers-"))
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave anything behind.
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        for process in reversed(self.running):
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, command, log, **options):
        with open(log, "ab") as errors:
            process = subprocess.Popen(command, stderr=errors, start_new_session=True, **options)
        self.running.append(process)
        return process

    def ended(self, process):
        end(process)
        self.running.remove(process)


def end(process):
    """Ends a process and its children at once: nothing that is measured is left to lose."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


class Redis:
    """A private server on a free port of the loopback interface, with the project's redis.conf and `everysec`."""

    def __init__(self, processes, program, config):
        self.processes = processes
        self.folder = Path(tempfile.mkdtemp(prefix="redis-", dir=processes.folder))
        self.log = self.folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [program, config, "--port", str(self.port), "--dir", self.folder, "--appendfsync", "everysec"]
        with open(self.log, "wb") as out:
            self.process = processes.start(command, self.log, stdout=out)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"{program} does not start: {tail(self.log)}") from None
                time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        self.processes.ended(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def info(self, section):
        self.connection.sendall(f"INFO {section}\r\n".encode())
        answer = b""
        while b"\r\n" not in answer or len(answer) < answer.index(b"\r\n") + int(answer[1 : answer.index(b"\r\n")]) + 4:
            part = self.connection.recv(1 << 16)
            if not part:
                raise Failure("Redis has ended during a measurement")
            answer += part
        lines = answer.decode().splitlines()[1:]
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu_us(self):
        """CPU time of the server so far, microseconds, without its children."""
        cpu = self.info("cpu")
        return (float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])) * 1e6


class Program:
    """A program that was started for one command: its lines are read as JSON."""

    def __init__(self, processes, command, environment, what):
        self.processes, self.what = processes, what
        descriptor, log = tempfile.mkstemp(prefix="log-", dir=processes.folder)
        os.close(descriptor)
        self.log = Path(log)
        self.lines = queue.Queue()
        self.process = processes.start(
            command, self.log, env=environment, cwd=processes.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.processes.ended(self.process)
        self.log.unlink(missing_ok=True)

    def _read(self):
        try:
            for line in self.process.stdout:
                self.lines.put(line)
        except ValueError:  # Closed meanwhile.
            pass
        self.lines.put(None)

    def say(self, word):
        try:
            self.process.stdin.write(f"{word}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failure(f"{self.what} has ended early: {tail(self.log)}") from None

    def next(self, field, limit):
        """The next line that has `field`, within `limit` seconds."""
        deadline = time.monotonic() + limit
        while True:
            try:
                line = self.lines.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise Failure(f"{self.what} has not answered for {limit} s: {tail(self.log)}") from None
            if line is None:
                raise Failure(f"{self.what} has ended early: {tail(self.log)}")
            try:
                answer = json.loads(line)
            except ValueError:
                raise Failure(f"{self.what} printed something else than JSON: {line[:200]!r}") from None
            if field in answer:
                return answer


def tail(log):
    """The end of a log file, for a message."""
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    return text[-2000:] or "it printed no error"
