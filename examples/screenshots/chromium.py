"""A Chromium of one page, driven over its DevTools pipe: messages of JSON, each with a NUL behind it, on two descriptors."""
import base64
import fcntl
import json
import os
import queue
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET_S = 2.0
"""How long a loaded page may still fetch before it is taken as it is."""
WINDOW_MIN = 600
CLOSE_S = 2.0
LOG_LINES = 5
FLAGS = """
--headless=new --remote-debugging-pipe --no-first-run --no-default-browser-check --disable-background-networking
--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-domain-reliability
--disable-client-side-phishing-detection --disable-breakpad --disable-crash-reporter --metrics-recording-only --no-pings
--mute-audio --hide-scrollbars --disable-gpu --disable-dev-shm-usage --password-store=basic --use-mock-keychain
--force-device-scale-factor=1 --disable-quic --dns-prefetch-disable --no-service-autorun
--force-webrtc-ip-handling-policy=disable_non_proxied_udp --webrtc-ip-handling-policy=disable_non_proxied_udp
--disable-features=HttpsUpgrades,Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider,AutofillServerCommunication
""".split()
STILL = """
document.fonts.ready.then(() => new Promise(still => requestAnimationFrame(() => requestAnimationFrame(() => still(1)))))
"""
"""Comes true when fonts are there and what was laid out is drawn."""


class BrowserFailed(Exception):
    """The browser did not start, ended, or refused a command."""


class TooLate(Exception):
    """The time is up."""


class Document(NamedTuple):
    """The page's main document, as far as it has come."""

    url: str
    request: str
    status: int = 0
    """The status of HTTP; 0 while there is no answer."""
    error: str = ""
    """Chromium's name of what went wrong."""


def find_chromium() -> Optional[str]:
    """The path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def high_pipe() -> Tuple[int, int]:
    """A pipe whose ends are none of the numbers that a browser wants its own to have."""
    low = os.pipe()
    reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return reader, writer


class Chromium:
    """A browser with one page. All its calls end by the deadline (of `time.monotonic`)."""

    def __init__(self, program: str, proxy_port: int, width: int, height: int, deadline: float) -> None:
        """Starts it, with a profile in the working directory."""
        self.deadline = deadline
        self.document = Document("", "")
        self.frame = ""
        self.loaded = self.quiet = False
        self._session = ""
        self._number = 0
        self._inbox: "queue.Queue[Optional[Dict[str, Any]]]" = queue.Queue()
        self._log = Path("chromium.log")
        self._home = home = Path("profile").absolute()
        (home / "tmp").mkdir(parents=True)
        flags = [
            *FLAGS,
            f"--user-data-dir={home}",
            # In a window that is smaller than one may be, nothing is ever drawn.
            f"--window-size={max(width, WINDOW_MIN)},{max(height, WINDOW_MIN)}",
            f"--proxy-server=http://127.0.0.1:{proxy_port}",
            # Loopback goes through the proxy too, and nothing is looked up beside it.
            "--proxy-bypass-list=<-loopback>",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        # Its sandbox refuses to run as root, and cannot be set up in a container that may not make namespaces.
        if os.geteuid() == 0 or os.environ.get("CHROMIUM_SANDBOX") == "off":
            flags.append("--no-sandbox")
        self._start([program, *flags, "about:blank"], home)
        self._open_page(width, height)

    def _start(self, command: List[str], home: Path) -> None:
        (its_input, our_output), (our_input, its_output) = high_pipe(), high_pipe()
        environment = {**os.environ, **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(home))}
        # Not from the root: it makes a socket there, whose path may have 107 bytes only.
        environment["TMPDIR"] = "profile/tmp"
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        ends = {0: os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 1: log, 2: log, 3: its_input, 4: its_output}
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in ends.items()]
        self._process = os.posix_spawn(command[0], command, environment, file_actions=actions)
        os.close(ends[0])
        os.close(log)
        os.close(its_input)
        os.close(its_output)
        self._output = our_output
        threading.Thread(target=self._listen, args=(our_input,), daemon=True).start()

    def _listen(self, pipe: int) -> None:
        with open(pipe, "rb") as stream:
            pieces: List[bytes] = []
            for piece in iter(lambda: stream.read1(1 << 20), b""):
                *ends, rest = piece.split(b"\0")
                for end in ends:
                    self._inbox.put(json.loads(b"".join([*pieces, end])))
                    pieces = []
                pieces.append(rest)
        self._inbox.put(None)

    def _open_page(self, width: int, height: int) -> None:
        self.call("Browser.setDownloadBehavior", behavior="deny")
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Inspector"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        # The proxy carries no UDP, and a page is not to try what goes beside it.
        hide = "delete self.RTCPeerConnection; delete self.webkitRTCPeerConnection; delete self.WebTransport;"
        self.call("Page.addScriptToEvaluateOnNewDocument", source=hide)
        self.frame = self.call("Page.getFrameTree")["frameTree"]["frame"]["id"]

    def call(self, method: str, **parameters: object) -> Dict[str, Any]:
        """Calls a method, and returns what it returns; takes in the events that come before."""
        number = self._send(method, parameters)
        while True:
            message = self._next(self.deadline)
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserFailed(f"{method}: {message['error'].get('message')}")
                return message["result"]

    def _send(self, method: str, parameters: Dict[str, Any]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        try:
            os.write(self._output, json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise BrowserFailed(self._last_words()) from error
        return self._number

    def _next(self, until: float) -> Dict[str, Any]:
        """The next message; an event has been taken in by then."""
        try:
            message = self._inbox.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise TooLate from None
        if message is None:
            raise BrowserFailed(self._last_words())
        self._take_in(message.get("method", ""), message.get("params", {}))
        return message

    def _take_in(self, event: str, said: Dict[str, Any]) -> None:
        is_document = said.get("type") == "Document" and said.get("frameId") == self.frame
        if event == "Network.requestWillBeSent" and is_document:
            self.document = Document(said["request"]["url"], said["requestId"])
        elif event == "Network.responseReceived" and is_document:
            self.document = self.document._replace(status=said["response"]["status"])
        elif event == "Network.loadingFailed" and said["requestId"] == self.document.request:
            if said.get("canceled"):
                return  # The page has thought better of it, and goes elsewhere.
            self.document = self.document._replace(error=said["errorText"])
        elif event == "Page.lifecycleEvent" and said["frameId"] == self.frame:
            if said["name"] == "init":
                self.loaded = self.quiet = False
            self.loaded |= said["name"] == "load"
            self.quiet |= said["name"] == "networkAlmostIdle"
        elif event == "Page.javascriptDialogOpening":
            # Until it is answered, the page stands still.
            self._send("Page.handleJavaScriptDialog", {"accept": said["type"] == "beforeunload"})
        elif event == "Inspector.targetCrashed":
            raise BrowserFailed("the page has crashed")

    def load(self, url: str) -> None:
        """Goes to a page, and waits until it has loaded and, for a while, fetches no more. How it went is in `document`."""
        self.document = Document(url, "")
        error = self.call("Page.navigate", url=url).get("errorText", "")
        if error:
            self.document = self.document._replace(error=error)
            return
        while not self.loaded and not self.document.error:
            self._next(self.deadline)
        until = min(self.deadline, time.monotonic() + QUIET_S)
        while not (self.quiet and self.loaded):
            try:
                self._next(until)
            except TooLate:
                break

    def picture(self, image_format: str) -> bytes:
        """The page as it is seen now: `png`, `jpeg` or `webp`."""
        self.call("Runtime.evaluate", expression=STILL, awaitPromise=True)
        quality = {} if image_format == "png" else {"quality": 85}
        shot = self.call("Page.captureScreenshot", format=image_format, captureBeyondViewport=False, **quality)
        return base64.b64decode(shot["data"])

    def address(self) -> str:
        """The URL of what is shown."""
        return str(self.call("Page.getFrameTree")["frameTree"]["frame"]["url"])

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n".join(["Chromium has ended; the end of its log:", *lines])

    def close(self) -> None:
        """Ends it, and removes its profile: there is nothing in it that is to be kept."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        # Its children notice a moment later, and write until then.
        until = time.monotonic() + CLOSE_S
        while self._home.exists() and time.monotonic() < until:
            shutil.rmtree(self._home, ignore_errors=True)
            time.sleep(0.01)
