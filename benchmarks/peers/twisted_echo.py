"""Twisted's own echo on a reactor of choice, netd's fast one among them: `twisted_echo.py PORT REACTOR [SIZE]`.

With a size, what is read is answered in pieces of that size, each with a write of its own.
"""

import importlib
import sys

from twisted.internet.protocol import Factory, Protocol

REACTORS = {
    "select": "twisted.internet.selectreactor",
    "poll": "twisted.internet.pollreactor",
    "epoll": "twisted.internet.epollreactor",
    "fastio": "netd.fastio.reactor",
}


class Echo(Protocol):
    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class MessageEcho(Echo):
    size = 64

    def dataReceived(self, data: bytes) -> None:
        for start in range(0, len(data), self.size):
            self.transport.write(data[start : start + self.size])


def run(port: int, reactor_name: str, size: int) -> None:
    importlib.import_module(REACTORS[reactor_name]).install()
    from twisted.internet import reactor  # noqa: PLC0415, TID251  a program of its own; only now is it the right one

    MessageEcho.size = size
    factory = Factory.forProtocol(MessageEcho if size else Echo)
    factory.noisy = False
    reactor.listenTCP(port, factory, backlog=4096, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
