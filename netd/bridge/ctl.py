"""`netdctl send` and `netdctl spool …`: lines into a bridge from a shell, a look into a spool that nobody has open."""

import json
import os
import select
import socket
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

from netd.bridge.messages import Block
from netd.bridge.spoolfile import SpoolFailed, SpoolFile, SpoolInUse

CHUNK = 64 << 10
"""Bytes read from standard input at once, and at most on the way to the socket."""
PROGRESS_INTERVAL = 0.2
"""Seconds between two reports on a terminal."""
CONNECT_TIMEOUT = 10.0
SHOWN_ERRORS = 20
"""Refused lines that are named; the rest are counted."""


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--key", help="The routing key of every line, for a port with framing = key-tab only.")
def send(address: str, key: str | None) -> None:
    """Send standard input to a publish port, a message a line, and wait until every line is answered.

    --key sends the key and a tab before each line, and no port says what its framing is: with framing = raw they become
    part of the body.

    Exit status 0 when every line was taken, 1 when some were refused, 69 when the bridge could not be reached or went
    away before it had answered for all.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise click.UsageError("expected HOST:PORT")
    if key is not None and ("\t" in key or "\n" in key):
        raise click.UsageError("a key has neither tabs nor line ends")
    try:
        connection = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), CONNECT_TIMEOUT)
    except OSError as error:
        _give_up(f"{address}: {error.strerror or error}")
    with connection:
        connection.setblocking(False)
        sending = Sending(connection, b"" if key is None else key.encode() + b"\t")
        try:
            sending.run(sys.stdin.fileno())
        except OSError as error:
            sending.report(last=True)
            _give_up(f"{address}: {error.strerror or error}; {sending.answered} of {sending.sent} lines were answered")
    if sending.answered < sending.sent:
        _give_up(f"{address} closed; {sending.answered} of {sending.sent} lines were answered")
    if sending.refused:
        click.echo(f"{sending.refused} of {sending.sent} lines were refused", err=True)
        sys.exit(1)


def _give_up(reason: str) -> NoReturn:
    click.echo(reason, err=True)
    sys.exit(os.EX_UNAVAILABLE)


class Sending:
    """Standard input on its way to a bridge, and the answers."""

    def __init__(self, connection: socket.socket, prefix: bytes) -> None:
        self.sent = 0
        """Lines that were read."""
        self.answered = 0
        self.refused = 0
        self._connection = connection
        self._prefix = prefix
        self._tail = b""
        self._out = b""
        self._heard = b""
        self._ended = False
        self._reported = 0.0
        self._terminal = sys.stderr.isatty()

    def run(self, source: int) -> None:
        """Until all is answered, or the bridge closes."""
        while True:
            reading: list[socket.socket | int] = (
                [self._connection] if self._ended or self._out else [self._connection, source]
            )
            writing = [self._connection] if self._out else []
            readable, writable, _ = select.select(reading, writing, [], PROGRESS_INTERVAL)
            if source in readable:
                self._read(source)
            if writable:
                self._out = self._out[self._connection.send(self._out) :]
                if self._ended and not self._out:
                    self._connection.shutdown(socket.SHUT_WR)
            if self._connection in readable and not self._listen():
                break
            self.report()
        self.report(last=True)

    def _read(self, source: int) -> None:
        data = os.read(source, CHUNK)
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        if not data:
            self._ended = True
            if self._tail:
                lines.append(self._tail)
        self.sent += len(lines)
        self._out = b"".join(self._prefix + line + b"\n" if line else b"\n" for line in lines)
        if self._ended and not self._out:
            self._connection.shutdown(socket.SHUT_WR)

    def _listen(self) -> bool:
        data = self._connection.recv(CHUNK)
        *replies, self._heard = (self._heard + data).split(b"\n")
        for reply in replies:
            word, _, rest = reply.decode("utf-8", "replace").partition(" ")
            if word == "+OK" and rest.isdigit():
                self.answered = int(rest)
            elif word == "-ERR":
                self.refused += 1
                if self.refused <= SHOWN_ERRORS:
                    click.echo(f"line {rest}", err=True)
            elif word == "*WAIT":
                click.echo(f"waiting: {rest}", err=True)
        return bool(data)

    def report(self, *, last: bool = False) -> None:
        """Say on a terminal how far it has come."""
        now = time.monotonic()
        if self._terminal and (last or now - self._reported >= PROGRESS_INTERVAL):
            self._reported = now
            click.echo(f"\r{self.answered:,} of {self.sent:,} lines\x1b[K" + ("\n" if last else ""), nl=False, err=True)


@click.group()
def spool() -> None:
    """Look into the spool of a bridge that is stopped."""


@spool.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def inspect(file: Path) -> None:
    """Show what waits in a spool FILE, as JSON."""
    found = _open(file)
    try:
        lanes = [
            {
                "port": row.route.port,
                "exchange": row.route.exchange,
                "routing_key": row.route.routing_key,
                "waiting": row.next - row.released - 1,
                "oldest": found.accepted_at(row.id, 0),
            }
            for row in found.lanes()
        ]
        document = {
            "id": found.id,
            "used_bytes": found.used(),
            "dead_letters": found.dead_total,
            "lanes": lanes,
            "queues": found.queue_names(),
        }
    finally:
        found.close()
    click.echo(json.dumps(document, indent=2))


@spool.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dead", is_flag=True, help="The dead letters instead of what waits.")
def export(file: Path, dead: bool) -> None:
    """Print what waits in a spool FILE, a JSON object a message, as a port with framing = json takes it."""
    found = _open(file)
    try:
        for line in _dead_lines(found) if dead else _waiting_lines(found):
            click.echo(line)
    finally:
        found.close()


def _open(file: Path) -> SpoolFile:
    try:
        return SpoolFile(file)
    except SpoolInUse:
        _give_up(f"{file}: in use: stop the daemon first, or ask it: bridge status")
    except SpoolFailed as error:
        _give_up(f"{file}: {error}")


def _waiting_lines(found: SpoolFile) -> Iterator[str]:
    for row in found.lanes():
        number = 0
        while blocks := found.read(row.id, number, 1 << 20):
            for block in blocks:
                if isinstance(block, Block):
                    for index in range(len(block)):
                        key = block.keys[index] if block.keys is not None else row.route.routing_key.encode()
                        yield _message(key, block.bodies[index])
                    number = block.first + len(block)
                else:
                    click.echo(f"a block of {row.route.port} is damaged: {block.reason}", err=True)
                    number = block.after


def _dead_lines(found: SpoolFile) -> Iterator[str]:
    after = 0
    while letters := found.dead(after=after):
        for letter in letters:
            yield _message(letter.key, letter.body)
        after = letters[-1].id


def _message(key: bytes, body: bytes) -> str:
    document = {"key": key.decode("utf-8", "replace")}
    try:
        document["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        document["body_base64"] = b64encode(body).decode()
    return json.dumps(document, ensure_ascii=False)
