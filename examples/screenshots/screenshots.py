"""The work of kind `screenshots`: renders a page with headless Chromium and leaves its picture.

The payload is {"id", "url", "config": {"width", "height", "format"}, "cache"}, of which only `url` must be there; the result
{"file": "screenshot.png", "cached": false}, and that file is in out/. Whether the picture of an earlier job is taken instead is
for the worker to see to (`cache` of the kind).

The browser reaches the network through the proxy of guard.py alone, which lets it reach public addresses, and others only
with LEASEHOLD_FETCH__ALLOW_PRIVATE=true.
"""
import json
import os
import sys
import time
from pathlib import Path
from typing import Dict, NamedTuple, NoReturn
from urllib.parse import urlsplit

# What is beside this file is shared by all jobs: nothing is written there.
sys.dont_write_bytecode = True

from chromium import BrowserFailed, Chromium, Document, TooLate, find_chromium  # noqa: E402
from guard import Guard, Place  # noqa: E402

BAD_PAYLOAD = 65
"""The exit code that fails the job for good."""
START_S = 20
PAGE_S = 30
"""How long the browser may take to start, and a page to load and be drawn."""
SIDE_MAX = 8_192
"""Pixels of the width and of the height."""
URL_CHARACTERS_MAX = 8_192
FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
"""What may be asked for, and what Chromium calls it."""
AGAIN = (408, 425, 429)
"""Answers below 500 that may be others later."""
LASTING = ("ERR_CERT_", "ERR_SSL_", "ERR_UNSAFE_", "ERR_TOO_MANY_REDIRECTS", "ERR_ABORTED", "ERR_BLOCKED_", "ERR_INVALID_")
LASTING += ("ERR_UNKNOWN_URL_SCHEME", "ERR_DISALLOWED_URL_SCHEME")
"""Errors of a page that are the same the next time; the first words of each."""


class Order(NamedTuple):
    """What is to be rendered."""

    url: str
    width: int = 1280
    height: int = 800
    format: str = "png"


def refuse(message: str) -> NoReturn:
    """Fails the job for good."""
    print(f"screenshots: {message}", file=sys.stderr)
    sys.exit(BAD_PAYLOAD)


def fail(message: str) -> NoReturn:
    """Fails the attempt: the job is tried again."""
    print(f"screenshots: {message}", file=sys.stderr)
    sys.exit(1)


def tell(**said: object) -> None:
    """Says a line to the worker."""
    print(json.dumps(said), flush=True)


def checked_url(url: object) -> str:
    """The URL, if a browser may be sent there."""
    if not isinstance(url, str):
        refuse('the payload has no url; write {"url": "https://example.org/"}')
    shown = url[:200]
    if len(url) > URL_CHARACTERS_MAX or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        refuse(f"url {shown!r} is longer than {URL_CHARACTERS_MAX} characters, or has white space in it")
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_web = False
    if not is_web:
        refuse(f"url {shown!r} is no URL of a page; write http:// or https:// and a host")
    return url


def checked_side(config: Dict[str, object], name: str, default: int) -> int:
    """A width or a height."""
    side = config.get(name, default)
    if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= SIDE_MAX:
        refuse(f"config.{name} is {json.dumps(side)[:40]}; write a number of pixels, 1 to {SIDE_MAX}")
    return side


def read_order(line: bytes) -> Order:
    """What the payload asks for."""
    try:
        payload = json.loads(line)
    except (ValueError, RecursionError) as error:
        refuse(f"the payload is no JSON: {error}")
    if not isinstance(payload, dict):
        refuse('the payload is no object; write {"url": "https://example.org/"}')
    config = payload.get("config") or {}
    if not isinstance(config, dict):
        refuse('config is no object; write {"width": 1280, "height": 800, "format": "png"}')
    image_format = config.get("format", "png")
    if not isinstance(image_format, str) or image_format not in FORMATS:
        refuse(f"config.format is {json.dumps(image_format)[:40]}; write one of {', '.join(FORMATS)}")
    width, height = (checked_side(config, name, default) for name, default in (("width", 1280), ("height", 800)))
    return Order(checked_url(payload.get("url")), width, height, image_format)


def place_of(url: str) -> Place:
    """The host and port of a URL, as the guard names them."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def judge(document: Document, guard: Guard) -> None:
    """Ends the attempt when the page is not there to be rendered."""
    url, place = document.url[:300], place_of(document.url)
    refused, failed = guard.refused.get(place), guard.failed.get(place)
    if refused:
        refuse(f"{url} leads to a private address ({refused}); set LEASEHOLD_FETCH__ALLOW_PRIVATE=true to allow it")
    if failed:
        fail(f"{url} cannot be reached: {failed}")
    if document.status >= 400:
        lasts = document.status < 500 and document.status not in AGAIN
        (refuse if lasts else fail)(f"{url} answers with status {document.status}")
    if document.error:
        name = document.error.replace("net::", "")
        message = f"{url} cannot be rendered: {name}" + (", as of a download" if name == "ERR_ABORTED" else "")
        (refuse if name.startswith(LASTING) else fail)(message)


def render(program: str, order: Order) -> bytes:
    """The picture of the page."""
    guard = Guard(os.environ.get("LEASEHOLD_FETCH__ALLOW_PRIVATE") == "true")
    try:
        browser = Chromium(program, guard.port, order.width, order.height, time.monotonic() + START_S)
    except TooLate:
        fail(f"Chromium did not start within {START_S} s")
    try:
        tell(progress=20, message="loading")
        browser.deadline = time.monotonic() + PAGE_S
        browser.load(order.url)
        judge(browser.document, guard)
        tell(progress=70, message="rendering")
        picture = browser.picture(FORMATS[order.format])
        shown = browser.address()
        # It may have gone elsewhere since.
        judge(browser.document, guard)
    except TooLate:
        fail(f"timeout: {order.url[:300]} did not finish loading within {PAGE_S} s")
    finally:
        browser.close()
    if urlsplit(shown).scheme not in ("http", "https"):
        refuse(f"{order.url[:300]} leads to {shown[:100]}, which is no page of the web")
    return picture


def main() -> None:
    """Reads the payload, and renders."""
    order = read_order(sys.stdin.buffer.readline())
    program = find_chromium()
    if program is None:
        refuse("Chromium is missing; install it with: apt-get install chromium")
    tell(progress=0, message="starting Chromium")
    try:
        picture = render(program, order)
    except BrowserFailed as error:
        fail(str(error))
    name = f"screenshot.{order.format}"
    Path("out", name).write_bytes(picture)
    tell(progress=100, message="done")
    tell(result={"file": name, "cached": False})


if __name__ == "__main__":
    main()
