"""The browser's only way out: a proxy on loopback that connects to public addresses.

A name is resolved here, once for each connection, and the connection goes to the very address that was looked at, so that no
second answer of a name server, no redirect and no part of a page leads anywhere else. http comes as requests with a whole URL,
https and WebSockets as CONNECT; anything else is refused.
"""
import ipaddress
import select
import socket
import threading
from typing import Dict, List, Optional, Tuple, Union
from urllib.parse import urlsplit

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Place = Tuple[str, int]
"""A host, as the browser names it, and a port."""

HEAD_BYTES_MAX = 64 << 10
SILENCE_S = 30
"""How long a connection may be silent, and how long connecting may take."""
CONNECTIONS_MAX = 200
NAT64 = ipaddress.ip_network("64:ff9b::/96")
COMPATIBLE = ipaddress.ip_network("::/96")
SPECIAL = [
    ipaddress.ip_network(text)
    for text in "192.0.0.0/24 192.88.99.0/24 64:ff9b:1::/48 100::/64 2001::/23 3fff::/20 5f00::/16".split()
]
"""What Python takes for global in some of its versions, and no page is there."""
HOP = (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate")
"""Headers that are between two neighbours."""


class Refused(Exception):
    """The name leads to addresses that are not public, of which this is the first."""


def inner_addresses(address: Address) -> List[Address]:
    """The address, and what it wraps: an IPv4 address may be dressed as IPv6 in many ways."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    wrapped = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        wrapped.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    found: List[Address] = [one for one in wrapped if one is not None]
    # A mapped address is the one it wraps; what Python says of its outside differs from version to version.
    return found if address.ipv4_mapped or address in NAT64 else [address, *found]


def is_public(text: str) -> bool:
    """Whether an address belongs to the Internet at large."""
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    return "%" not in text and all(
        one.is_global
        and not any(one in network for network in SPECIAL)
        and not (one.is_private or one.is_multicast or one.is_reserved or one.is_loopback)
        and not (one.is_link_local or one.is_unspecified or getattr(one, "is_site_local", False))
        for one in inner_addresses(address)
    )


def connect(place: Place, allow_private: bool) -> socket.socket:
    """Connects to the first address of a name that may be used and answers."""
    found = socket.getaddrinfo(place[0], place[1], type=socket.SOCK_STREAM)
    usable = [one for one in found if allow_private or is_public(str(one[4][0]))]
    if not usable:
        raise Refused(str(found[0][4][0]))
    error: Optional[OSError] = None
    for family, kind, protocol, _, address in usable:
        upstream = socket.socket(family, kind, protocol)
        upstream.settimeout(SILENCE_S)
        try:
            upstream.connect(address)
            return upstream
        except OSError as failure:
            upstream.close()
            error = failure
    raise error or OSError("no address")


def read_head(stream: socket.socket, got: bytes = b"") -> Tuple[bytes, bytes]:
    """A head without the empty line at its end, and what came behind it; `got` has been read already."""
    while b"\r\n\r\n" not in got:
        piece = stream.recv(16 << 10)
        if not piece or len(got) > HEAD_BYTES_MAX:
            raise OSError("it sent no head of HTTP")
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def for_one_request(lines: List[bytes]) -> bytes:
    """A head of these lines for a connection that carries no second request: that may be for another host."""
    kept = [line for line in lines[1:] if line.split(b":", 1)[0].strip().lower() not in HOP]
    return b"\r\n".join([lines[0], *kept, b"Connection: close", b"", b""])


def body_bytes(lines: List[bytes]) -> int:
    """The length of a request's body; an OSError for one that is told in chunks, which no page needs."""
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if b"transfer-encoding" in headers:
        raise OSError("a body in chunks")
    return int(headers.get(b"content-length", b"0"))


def relay(one: socket.socket, other: socket.socket) -> None:
    """Passes bytes both ways until both sides have ended, or nothing has passed for long."""
    ways = {one: other, other: one}
    while ways:
        readable, _, _ = select.select(list(ways), [], [], SILENCE_S)
        if not readable:
            return
        for source in readable:
            piece = source.recv(64 << 10)
            if piece:
                ways[source].sendall(piece)
            else:
                ways.pop(source).shutdown(socket.SHUT_WR)


def place_of(target: str, is_tunnel: bool) -> Place:
    """Where a request is to go; a ValueError when it names no such place."""
    parts = urlsplit(f"//{target}" if is_tunnel else target)
    if not is_tunnel and parts.scheme.lower() != "http":
        raise ValueError("only http comes with a whole URL")
    if not parts.hostname:
        raise ValueError("there is no host")
    return parts.hostname, parts.port or (443 if is_tunnel else 80)


class Guard:
    """The proxy, from its start on; its threads end with the process."""

    def __init__(self, allow_private: bool) -> None:
        """Listens on a free port of loopback."""
        self.allow_private = allow_private
        self.refused: Dict[Place, str] = {}
        """Places that lead to an address that is not public, and that address."""
        self.failed: Dict[Place, str] = {}
        """Places that could not be reached, and why."""
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS_MAX)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            self._free.acquire()
            client, _ = self._listener.accept()
            client.settimeout(SILENCE_S)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                self._answer(client)
        except (OSError, ValueError):
            pass  # The browser, or the other side, has gone: the one that is left sees the end.
        finally:
            self._free.release()

    def _answer(self, client: socket.socket) -> None:
        head, rest = read_head(client)
        lines = head.split(b"\r\n")
        method, _, target_and_version = lines[0].decode("latin-1").partition(" ")
        target = target_and_version.rpartition(" ")[0]
        try:
            place = place_of(target, method == "CONNECT")
        except ValueError:
            return client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        try:
            upstream = connect(place, self.allow_private)
        except Refused as refused:
            self.refused[place] = str(refused)
            return client.sendall(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
        except (OSError, UnicodeError) as error:
            self.failed[place] = str(error)
            return client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n")
        with upstream:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                upstream.sendall(rest)
            else:
                self._forward(client, upstream, lines, target, rest)
            relay(client, upstream)

    @staticmethod
    def _forward(
        client: socket.socket, upstream: socket.socket, lines: List[bytes], target: str, rest: bytes
    ) -> None:
        """Passes a request on, and the head of its answer back."""
        parts = urlsplit(target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines[0] = lines[0].split(b" ", 1)[0] + b" " + path.encode("latin-1") + b" HTTP/1.1"
        left = body_bytes(lines) - len(rest)
        upstream.sendall(for_one_request(lines) + rest)
        while left > 0:
            piece = client.recv(min(left, 64 << 10))
            if not piece:
                raise OSError("the request broke off")
            upstream.sendall(piece)
            left -= len(piece)
        head, body = read_head(upstream)
        while head.split(b" ", 2)[1:2] in ([b"100"], [b"102"], [b"103"]):
            head, body = read_head(upstream, body)
        client.sendall(for_one_request(head.split(b"\r\n")) + body)
