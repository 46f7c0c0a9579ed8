"""What is found under which path, by which method, and from where."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping

from netd.admin.http import AdminRequest

Answer = Callable[[AdminRequest], None]

READ = (b"GET", b"HEAD")


class Site:
    """Answers requests out of a table of paths.

    A request by TCP must name in its Host header an address, localhost, the machine's own name or one of `hosts`. Any
    other name may be a web page's that had its own name resolve to this machine (DNS rebinding), to read what only its
    visitor can reach.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        own = socket.gethostname().lower()
        self.hosts = tuple(hosts)
        self._own = {"localhost", own, own.partition(".")[0]}
        self._paths: dict[bytes, tuple[tuple[bytes, ...], Answer]] = {}
        self._trusted_paths: dict[bytes, tuple[tuple[bytes, ...], Answer]] = {}

    def add(self, answers: Mapping[bytes, Answer]) -> None:
        """Paths to be read by everybody."""
        self._paths |= {path: (READ, answer) for path, answer in answers.items()}

    def add_trusted(self, answers: Mapping[bytes, Answer]) -> None:
        """Paths to be posted to, by the unix socket alone."""
        self._trusted_paths |= {path: ((b"POST",), answer) for path, answer in answers.items()}

    def answer(self, request: AdminRequest) -> None:
        """Answer a request, whatever it is."""
        trusted = request.channel.trusted
        if not trusted and (complaint := self._wrong_host(request)):
            request.respond(421, complaint)
            return
        found = self._paths.get(request.path) or self._trusted_paths.get(request.path)
        if found is None:
            request.respond(404, b"there is no such page\n")
            return
        methods, answer = found
        if not trusted and request.path in self._trusted_paths:
            request.respond(403, b"this port only shows: verbs run by netdctl, over the unix socket\n")
        elif request.method not in methods:
            request.respond(405, b"not by this method\n", Allow=b", ".join(methods).decode())
        else:
            answer(request)

    def _wrong_host(self, request: AdminRequest) -> bytes:
        named = request.requestHeaders.getRawHeaders(b"Host", [])
        if len(named) == 1 and self._is_known(named[0].decode("latin-1")):
            return b""
        if not named and request.clientproto == b"HTTP/1.0":
            return b""
        return b"not known by this name: use an address, or add the name to admin.hosts\n"

    def _is_known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.lower().rstrip(".")
        if name in self._own or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True
