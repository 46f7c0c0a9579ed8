"""The echo of asyncio's documentation, as a Protocol, on its own loop or uvloop's: `asyncio_echo.py PORT LOOP [SIZE]`.

With a size, what is read is answered in pieces of that size, each with a write of its own. Both loops set TCP_NODELAY.
"""

import asyncio
import sys
from typing import cast


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class MessageEcho(Echo):
    size = 64

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), self.size):
            self.transport.write(data[start : start + self.size])


async def serve(port: int, size: int) -> None:
    MessageEcho.size = size
    loop = asyncio.get_running_loop()
    server = await loop.create_server(MessageEcho if size else Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def run(port: int, loop: str, size: int) -> None:
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415  asyncio's own loop is measured without it

        uvloop.run(serve(port, size))
    else:
        asyncio.run(serve(port, size))


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
