"""RabbitMQ's clients for Python: `rabbit.py publish|consume CLIENT URL QUEUE SIZE COUNT WINDOW`.

CLIENT is `blocking` (pika's BlockingConnection), `twisted` (pika's Twisted adapter), or `stomp` (publish only: the
broker's STOMP plug-in, over a plain socket). Each is used as its documentation has it, at its best: many messages under
way where it can, acknowledgements for many at once. Prints what it took as JSON, from the first message.
"""

import json
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater, react


class Watch:
    """Time and CPU since the first message."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        if self._since is None:
            self._since = time.perf_counter(), _cpu()

    def tell(self) -> None:
        assert self._since is not None
        seconds, cpu = time.perf_counter() - self._since[0], _cpu() - self._since[1]
        print(json.dumps({"messages": self._count, "seconds": seconds, "cpu_seconds": cpu}), flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def properties(number: int) -> pika.BasicProperties:
    """As netd's messages have them."""
    netd_id = f"0123456789ab-1-{number:016d}"
    return pika.BasicProperties(delivery_mode=2, message_id=netd_id, headers={"x-netd-id": netd_id})


def publish_blocking(url: str, queue: str, size: int, count: int, _window: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    body, watch = b"x" * size, Watch(count)
    watch.start()
    for number in range(count):
        channel.basic_publish("", queue, body, properties(number), mandatory=True)
    watch.tell()
    connection.close()


def consume_blocking(url: str, queue: str, _size: int, count: int, window: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=window)
    watch = Watch(count)
    for got, (method, _, _) in enumerate(channel.consume(queue), 1):
        watch.start()
        if got % (window // 4) == 0 or got == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if got == count:
            break
    watch.tell()
    connection.close()


def _on_twisted(url: str, work: Callable[[Any, Any], Any]) -> None:
    """Run a coroutine with a channel of pika's Twisted adapter."""
    parameters = pika.URLParameters(url)

    async def main(reactor: Any) -> None:
        endpoint = TCP4ClientEndpoint(reactor, parameters.host, parameters.port)
        connection = await connectProtocol(endpoint, TwistedProtocolConnection(parameters, custom_reactor=reactor))
        await connection.ready
        await work(reactor, await connection.channel())
        connection.transport.abortConnection()

    react(lambda reactor: ensureDeferred(main(reactor)))


def publish_twisted(url: str, queue: str, size: int, count: int, window: int) -> None:
    body, watch = b"x" * size, Watch(count)

    async def work(_reactor: Any, channel: Any) -> None:
        await channel.confirm_delivery()
        done: Deferred[None] = Deferred()
        sent = confirmed = 0

        def send(_: object = None) -> None:
            nonlocal sent
            sent += 1
            channel.basic_publish("", queue, body, properties(sent), mandatory=True).addCallbacks(told, done.errback)

        def told(_: object) -> None:
            nonlocal confirmed
            confirmed += 1
            if sent < count:
                send()
            elif confirmed == count:
                done.callback(None)

        watch.start()
        for _ in range(min(window, count)):
            send()
        await done
        watch.tell()

    _on_twisted(url, work)


def consume_twisted(url: str, queue: str, _size: int, count: int, window: int) -> None:
    watch = Watch(count)

    async def work(reactor: Any, channel: Any) -> None:
        await channel.basic_qos(prefetch_count=window)
        messages, _ = await channel.basic_consume(queue)
        for got in range(1, count + 1):
            message = await messages.get()
            watch.start()
            if got % (window // 4) == 0 or got == count:
                channel.basic_ack(message.method.delivery_tag, multiple=True)
        watch.tell()
        await deferLater(reactor, 0.1)

    _on_twisted(url, work)


def publish_stomp(url: str, queue: str, size: int, count: int, window: int) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    stomp = socket.create_connection((parts.hostname, parts.port))
    stomp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    log_in = f"host:{unquote(parts.path[1:])}\nlogin:{parts.username}\npasscode:{parts.password}"
    stomp.sendall(f"CONNECT\naccept-version:1.2\n{log_in}\n\n\0".encode())
    assert stomp.recv(4096).startswith(b"CONNECTED")
    body, watch = b"x" * size, Watch(count)
    header = f"SEND\ndestination:/amq/queue/{queue}\npersistent:true\ncontent-length:{size}\nreceipt:".encode()
    sent = told = 0
    cut = b""  # the end of what was read last, which may be the beginning of a receipt
    watch.start()
    while told < count:
        room = min(window - (sent - told), count - sent)
        if room > 0 and (room >= window // 4 or sent + room == count):
            stomp.sendall(b"".join(b"%b%d\n\n%b\0" % (header, number, body) for number in range(sent, sent + room)))
            sent += room
        answer = stomp.recv(262144)
        assert answer, "the connection was lost"
        assert b"ERROR" not in answer, answer[:300]
        told += (cut + answer).count(b"RECEIPT\n") - cut.count(b"RECEIPT\n")
        cut = (cut + answer)[-7:]
    watch.tell()


if __name__ == "__main__":
    _, mode, client, where, queue_name, *numbers = sys.argv
    globals()[f"{mode}_{client}"](where, queue_name, *map(int, numbers))
