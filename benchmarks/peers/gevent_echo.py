"""gevent's echo: StreamServer, a greenlet for each connection: `gevent_echo.py PORT [SIZE]`.

With a size, what is read is answered in pieces of that size, each with a send of its own.
"""

import sys
from socket import IPPROTO_TCP, TCP_NODELAY

from gevent.server import StreamServer
from gevent.socket import socket

READ = 64 * 1024


def echo(connection: socket, _address: tuple[str, int]) -> None:
    connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    while data := connection.recv(READ):
        connection.sendall(data)


class MessageEcho:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, connection: socket, _address: tuple[str, int]) -> None:
        connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        while data := connection.recv(READ):
            for start in range(0, len(data), self.size):
                connection.sendall(data[start : start + self.size])


if __name__ == "__main__":
    answer = MessageEcho(int(sys.argv[2])) if len(sys.argv) > 2 else echo
    StreamServer(("127.0.0.1", int(sys.argv[1])), answer, backlog=4096).serve_forever()
