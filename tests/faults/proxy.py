"""A proxy for TCP that does to connections what networks do, in either direction, while a test looks on.

It runs in a thread of its own, so that tests may block. Bytes go two ways, `up` to the server and `down` to the client,
and each is shaped by itself: late, in slices, or not at all. Connections that are open can be reset, closed on one side
or cut in the middle of what they say. What the proxy does of its own accord is what a wire does: an end is passed on as
an end, a reset as a reset, and a reset overtakes the bytes that are still on their way, as no kernel sends again what
its program has given up.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
PIECE = 1 << 16
"""Bytes that are read at once."""
ON_THE_WAY = 4 << 20
"""Bytes that may wait in a stalled connection while the proxy still looks whether it was reset."""
PARTING = 5.0
"""Seconds that both sides of a connection that was cut have to close theirs."""

_RESET = struct.pack("ii", 1, 0)
T = TypeVar("T")


def _abort(writer: asyncio.StreamWriter) -> None:
    """Reset a connection; the socket of one that was reset from outside is closed already."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Way:
    """How bytes go one way, of all connections. A test changes this while they go."""

    def __init__(self) -> None:
        self.passed = 0
        """Bytes that were passed on, of all connections there ever were."""
        self._flowing = asyncio.Event()
        self.clear()

    def clear(self) -> None:
        """Pass bytes on as they come."""
        self.latency = self.gap = 0.0
        self.slice = PIECE
        self._flowing.set()

    def late(self, seconds: float) -> None:
        """Hold what comes for so long before it is passed on."""
        self.latency = seconds

    def sliced(self, size: int = 1, gap: float = 0.0) -> None:
        """Pass on so many bytes at once, and wait between two slices."""
        self.slice, self.gap = size, gap

    def stall(self) -> None:
        """Pass nothing on until `clear`."""
        self._flowing.clear()

    async def hold(self) -> None:
        """Wait as long as bytes are to wait."""
        if self.latency:
            await asyncio.sleep(self.latency)
        if not self._flowing.is_set():
            await self._flowing.wait()
            for _ in range(2):  # the loop looks at its sockets first: a reset may have come just now
                await asyncio.sleep(0)

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The slices in which these bytes go."""
        at = 0
        while at < len(data):
            end = at + self.slice
            yield data[at:end]
            at = end


class Pump:
    """One way of one connection."""

    def __init__(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self.way = way
        self.left: int | None = None
        """How many more bytes may pass; None: any number."""
        self.used_up: Callable[[], None] = lambda: None
        self._source = source
        self._sink = sink
        self._ended = False

    async def run(self) -> None:
        """Pass bytes on until their end; raises ConnectionError when the connection is reset."""
        while data := await self._source.read(PIECE):
            for piece in self.way.cut(data):
                await self.way.hold()
                if (error := self._source.exception()) is not None:
                    raise error
                await self._pass(piece)
        await self.way.hold()
        self.end()

    async def _pass(self, piece: bytes) -> None:
        if self._ended:
            return
        if self.left is not None:
            piece = piece[: self.left]
            self.left -= len(piece)
        self._sink.write(piece)
        await self._sink.drain()
        self.way.passed += len(piece)
        if self.left == 0:
            self.used_up()
        if self.way.gap:
            await asyncio.sleep(self.way.gap)

    def end(self) -> None:
        """Tell the receiver that this was all; what comes later is dropped."""
        if not self._ended:
            self._ended = True
            with suppress(OSError):
                self._sink.write_eof()


class Tunnel:
    """One connection of a client, and the one to the server for it."""

    def __init__(self, writers: list[asyncio.StreamWriter], up: Pump, down: Pump) -> None:
        self.up, self.down = up, down
        self._writers = writers
        self._parting: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Both ways, until both have ended or one side is reset, which the other one is told."""
        ways = [asyncio.ensure_future(pump.run()) for pump in (self.up, self.down)]
        try:
            await asyncio.gather(*ways)
        except OSError:
            self.reset()
        finally:
            if self._parting is not None:
                self._parting.cancel()
            for way in ways:
                way.cancel()
            for writer in self._writers:
                writer.close()

    def reset(self) -> None:
        """Break it on both sides, as a firewall that has forgotten it does."""
        for writer in self._writers:
            _abort(writer)

    def cut(self) -> None:
        """End both ways at once, wherever they are in what they say."""
        self.up.end()
        self.down.end()
        self._parting = asyncio.get_running_loop().call_later(PARTING, self.reset)


class FaultProxy:
    """A context: a port that leads to another one."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tunnels: dict[Tunnel, asyncio.Task[None]] = {}
        self.up, self.down = Way(), Way()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, HOST, 0, limit=ON_THE_WAY, backlog=4096))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for tunnel, task in list(self._tunnels.items()):
            tunnel.reset()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there, back = await asyncio.open_connection(HOST, self.target, limit=ON_THE_WAY)
        except OSError:
            _abort(writer)
            return
        tunnel = Tunnel([writer, back], Pump(self.up, reader, back), Pump(self.down, there, writer))
        self._tunnels[tunnel] = asyncio.ensure_future(tunnel.run())
        try:
            await asyncio.wait([self._tunnels[tunnel]])
        finally:
            del self._tunnels[tunnel]

    # --- what happens to the connections that are open

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._tunnels)

    def clear(self) -> None:
        """Pass everything on again as it comes."""
        with self._still():
            self.up.clear()
            self.down.clear()

    def stall(self, *ways: Way) -> None:
        """Pass nothing on, these ways."""
        with self._still():
            for way in ways:
                way.stall()

    def reset(self) -> None:
        """Break every connection on both sides."""
        with self._still():
            for tunnel in list(self._tunnels):
                tunnel.reset()

    def half_close(self, way: Way) -> None:
        """End what goes one way; the other way goes on."""
        with self._still():
            for _, pump in self._pumps(way):
                pump.end()

    def truncate(self, way: Way, after: int) -> None:
        """Let so many more bytes of each connection pass one way, then end both."""
        with self._still():
            for tunnel, pump in self._pumps(way):
                pump.left, pump.used_up = after, tunnel.cut

    def _pumps(self, way: Way) -> list[tuple[Tunnel, Pump]]:
        return [(tunnel, tunnel.up if way is self.up else tunnel.down) for tunnel in self._tunnels]

    @contextmanager
    def _still(self) -> Iterator[None]:
        """The proxy's thread stands still meanwhile."""
        reached, leave = threading.Event(), threading.Event()

        def stand() -> None:
            reached.set()
            leave.wait()

        self._loop.call_soon_threadsafe(stand)
        reached.wait()
        try:
            yield
        finally:
            leave.set()
