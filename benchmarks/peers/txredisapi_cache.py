"""A memcached port before Redis as Twisted and txredisapi would have you write it: `txredisapi_cache.py PORT REDIS`.

A LineReceiver, a pool with one connection, and a Deferred for each get and set.
"""

import sys

import txredisapi
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


class Cache(LineReceiver):
    redis = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:
        command, key, *rest = line.split()
        if command == b"get":
            self.redis.get(key).addCallback(self._found, key).addErrback(self._failed)
        else:
            self._key, self._missing, self._value = key, int(rest[2]) + 2, []
            self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        self._value.append(data[: self._missing])
        rest = data[self._missing :]
        self._missing -= len(self._value[-1])
        if not self._missing:
            value = b"".join(self._value)[:-2]
            self.redis.set(self._key, value).addCallback(self._stored).addErrback(self._failed)
            self.setLineMode(rest)

    def _found(self, value: bytes | None, key: bytes) -> None:
        if value is not None:
            self.transport.write(b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(value), value))
        self.transport.write(b"END\r\n")

    def _stored(self, _: object) -> None:
        self.transport.write(b"STORED\r\n")

    def _failed(self, _: object) -> None:
        self.transport.write(b"SERVER_ERROR\r\n")


def run(port: int, redis_port: int) -> None:
    from twisted.internet import reactor  # noqa: PLC0415, TID251  a program of its own

    Cache.redis = txredisapi.lazyConnection("127.0.0.1", redis_port, charset=None, convertNumbers=False)
    factory = Factory.forProtocol(Cache)
    factory.noisy = False
    reactor.listenTCP(port, factory, backlog=4096, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
