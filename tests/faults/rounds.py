"""A ledger of acknowledged lines, while netd, its broker and the connections between them break again and again.

Three publishers send numbered lines to three ports of a real daemon and note which ones were answered `+OK`. Three
consumers take them out again by netd's subscribe ports and acknowledge them. Whatever breaks meanwhile, in the end
every line that was answered `+OK` has been received; a line that came twice has one `x-netd-id`; and the lines of the
port whose queue has one consumer came in order, repeats aside.
"""

import json
import random
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Self

from tests.netd_process import Netd
from tests.servers import HOST, RabbitServer, VirtualHost, reserve_port

LINES_AT_ONCE, PACE = 20, 0.05
"""Lines that a publisher sends in one piece, and seconds between two pieces: load enough to be in every state."""
MOST_UNANSWERED = 2000
PATIENCE = 120.0
"""Seconds until all that was answered must have come out, after the last fault."""

PORTS = {"alone": "single", "one": "shared", "two": "shared"}
"""Publish ports, and the queues behind them."""
CONSUMERS = ["single", "shared", "shared"]

_OK = re.compile(rb"\+OK (\d+)")
_RESET = struct.pack("ii", 1, 0)


class NotUnderstood(Exception):
    """A line of netd's that a client cannot make sense of."""


class Client(threading.Thread):
    """Connects, works until the connection breaks, and connects again, until it is told to leave."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._leaving = threading.Event()
        self._socket: socket.socket | None = None
        self.failed: Exception | None = None

    def run(self) -> None:
        while not self._leaving.is_set():
            with suppress(OSError), socket.create_connection((HOST, self._port), 5) as connection:
                self._socket = connection
                connection.settimeout(0.2)
                try:
                    self.work(connection)
                except NotUnderstood as error:
                    self.failed = error
                    return
            self._leaving.wait(0.05)

    def work(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Break its connection as a crash does."""
        connection = self._socket
        if connection is not None:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()

    def leave(self) -> None:
        self._leaving.set()
        self.join(20)


class Publisher(Client):
    """Sends numbered lines, and none twice."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port)
        self.name = name
        self.answered: list[tuple[int, int]] = []
        """Ranges of the numbers that were answered `+OK`."""
        self.refused: list[bytes] = []
        self._next = 1

    def work(self, connection: socket.socket) -> None:
        first = self._next
        answered = 0
        rest = b""
        while True:
            sent = self._next - first
            if self._leaving.is_set():
                connection.shutdown(socket.SHUT_WR)
            elif sent - answered < MOST_UNANSWERED:
                numbers = range(self._next, self._next + LINES_AT_ONCE)
                self._next = numbers.stop
                connection.sendall(b"".join(b"%s %d\n" % (self.name.encode(), number) for number in numbers))
            self._leaving.wait(PACE)
            with suppress(TimeoutError):
                if not (received := connection.recv(65536)):
                    return
                *lines, rest = (rest + received).split(b"\n")
                self.refused += [line for line in lines if line.startswith(b"-")]
                upto = max((int(found[1]) for line in lines if (found := _OK.fullmatch(line.rstrip()))), default=0)
                if upto > answered:
                    self.answered.append((first + answered, first + upto - 1))
                    answered = upto

    @property
    def sure(self) -> set[int]:
        return {number for first, last in self.answered for number in range(first, last + 1)}


class Consumer(Client):
    """Takes lines, notes them, and only then acknowledges."""

    def __init__(self, port: int, queue: str) -> None:
        super().__init__(port)
        self.queue = queue
        self.received: list[tuple[str, int, str]] = []
        """Publisher, number and `x-netd-id`, in the order they came."""
        self._seen: set[tuple[str, int]] = set()
        self.again: set[tuple[str, int]] = set()
        """Those that had been on their way before when they came for the first time."""

    def work(self, connection: socket.socket) -> None:
        rest = b""
        while not self._leaving.is_set():
            with suppress(TimeoutError):
                if not (received := connection.recv(65536)):
                    return
                *lines, rest = (rest + received).split(b"\n")
                # An answer for a message that went back to the queue meanwhile is told to have come too late.
                lines = [line for line in lines if not line.startswith(b"-ERR ") or b" ID " not in line]
                for line in lines:
                    self._note(line)
                if lines:
                    connection.sendall(b"ACK *%s\n" % lines[-1].partition(b"\t")[0])

    def _note(self, line: bytes) -> None:
        try:
            _, _, document = line.split(b"\t", 2)
            found = json.loads(document)
            name, number = found["body"].split()
            self.received.append((name, int(number), found["headers"]["x-netd-id"]))
            if found["redelivered"] and (name, int(number)) not in self._seen:
                self.again.add((name, int(number)))
            self._seen.add((name, int(number)))
        except (ValueError, KeyError) as error:
            raise NotUnderstood(f"{error!r} in {line!r}") from None


class Rounds:
    """The daemon, its broker, the clients, and what can happen to them."""

    def __init__(self, directory: Path, rabbit: RabbitServer, vhost: VirtualHost, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._directory = directory
        self._rabbit = rabbit
        self._vhost = vhost
        self._reserved = [reserve_port() for _ in [*PORTS, *CONSUMERS]]
        ports = [each.getsockname()[1] for each in self._reserved]
        self.publishers = [Publisher(port, name) for port, name in zip(ports, PORTS, strict=False)]
        self.consumers = [Consumer(port, queue) for port, queue in zip(ports[len(PORTS) :], CONSUMERS, strict=True)]
        self._netd: Netd | None = None
        self.faults: dict[str, Callable[[], None]] = {
            "kill netd": self.kill_netd,
            "kill broker": self.kill_broker,
            "kill both": self.kill_both,
            "freeze broker": self.freeze_broker,
            "freeze netd": self.freeze_netd,
            "reset clients": self.reset_clients,
            "close broker's connections": self.close_connections,
            "alarm": self.alarm,
        }

    def __enter__(self) -> Self:
        for queue in set(CONSUMERS):
            arguments = {"x-queue-type": "quorum"}
            self._rabbit.api(
                "PUT", f"/api/queues/{self._vhost.name}/{queue}", {"durable": True, "arguments": arguments}
            )
        self.start_netd()
        for client in [*self.publishers, *self.consumers]:
            client.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with ExitStack() as stack:
            for reserved in self._reserved:
                stack.callback(reserved.close)
            if self._netd is not None:
                stack.callback(self._netd.process.wait)
                stack.callback(self._netd.process.kill)
            for client in [*self.publishers, *self.consumers]:
                stack.callback(client.leave)

    def _config(self) -> str:
        text = f'[bridge.main]\nbroker = "{self._vhost.url}"\nheartbeat = "1s"\n'
        for publisher in self.publishers:
            text += f'[bridge.main.publish.{publisher.name}]\nlisten = "{HOST}:{publisher._port}"\n'
            text += f'routing_key = "{PORTS[publisher.name]}"\n'
        for number, consumer in enumerate(self.consumers):
            text += f'[bridge.main.subscribe.c{number}]\nlisten = "{HOST}:{consumer._port}"\n'
            text += f'queue = "{consumer.queue}"\nack = "client"\nframing = "json"\nprefetch = 200\n'
        return text

    def start_netd(self) -> None:
        self._netd = Netd(self._directory, self._config())
        self._netd.wait_for("ready: ")

    @property
    def netd(self) -> Netd:
        assert self._netd is not None
        return self._netd

    # --- what breaks

    def play(self, names: Sequence[str]) -> None:
        """One fault after another, with some traffic between."""
        for name in names:
            time.sleep(self.random.uniform(0.2, 0.8))
            self.faults[name]()
            self.done[name] += 1

    def kill_netd(self) -> None:
        self.netd.process.kill()
        self.netd.process.wait()
        self.start_netd()

    def kill_broker(self) -> None:
        self._rabbit.kill()
        self._rabbit.start()

    def kill_both(self) -> None:
        self.netd.process.kill()
        self._rabbit.kill()
        self.netd.process.wait()
        if self.random.random() < 0.5:
            self.start_netd()
            time.sleep(self.random.uniform(0, 1))
            self._rabbit.start()
        else:
            self._rabbit.start()
            self.start_netd()

    def freeze_broker(self) -> None:
        self._rabbit.pause()
        time.sleep(self.random.choice([0.3, 1, 4]))  # the last one is noticed
        self._rabbit.resume()

    def freeze_netd(self) -> None:
        self.netd.process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.choice([0.3, 1, 4]))
        self.netd.process.send_signal(signal.SIGCONT)

    def reset_clients(self) -> None:
        for client in [*self.publishers, *self.consumers]:
            client.reset()

    def close_connections(self) -> None:
        self._rabbit.ctl("close_all_connections", "--vhost", self._vhost.name, "round")

    def alarm(self) -> None:
        self._rabbit.ctl("set_vm_memory_high_watermark", "0.000001")
        time.sleep(self.random.uniform(0, 1))
        self._rabbit.ctl("set_vm_memory_high_watermark", "absolute", "2GB")

    # --- what must hold

    def settle(self) -> None:
        """No more faults: wait until all that was answered has come out."""
        for publisher in self.publishers:
            publisher.leave()
        deadline = time.monotonic() + PATIENCE
        while (lost := self.lost()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for consumer in self.consumers:
            consumer.leave()
        failed = [client.failed for client in [*self.publishers, *self.consumers] if client.failed]
        assert failed == [], f"a client did not understand netd: {failed}"
        refused = [line for publisher in self.publishers for line in publisher.refused]
        assert refused == [], f"refused: {refused[:5]}"
        assert not lost, f"{len(lost)} lost, the first is {min(lost)}; after {dict(self.done)}"

    def answered(self) -> set[tuple[str, int]]:
        return {(publisher.name, number) for publisher in self.publishers for number in publisher.sure}

    def received(self) -> list[tuple[str, int, str]]:
        return [each for consumer in self.consumers for each in list(consumer.received)]

    def lost(self) -> set[tuple[str, int]]:
        return self.answered() - {(name, number) for name, number, _ in self.received()}

    def check_repeats(self) -> int:
        """Each line has one id, and each id one line; returns how many came again."""
        received = self.received()
        ids: dict[tuple[str, int], set[str]] = {}
        lines: dict[str, set[tuple[str, int]]] = {}
        for name, number, netd_id in received:
            ids.setdefault((name, number), set()).add(netd_id)
            lines.setdefault(netd_id, set()).add((name, number))
        assert [each for each in ids.items() if len(each[1]) > 1] == []
        assert [each for each in lines.items() if len(each[1]) > 1] == []
        return len(received) - len(ids)

    def check_order(self) -> None:
        """What came from the port whose queue has one consumer came in order, repeats aside.

        What the broker has delivered before is a repeat too, whether it was seen or not: what was on its way to a
        connection that broke goes back to the queue while the next one, of the same client, may have its prefetch.
        """
        consumer = self.consumers[0]
        seen = dict.fromkeys((name, number) for name, number, _ in consumer.received if name == "alone")
        numbers = [number for name, number in seen if (name, number) not in consumer.again]
        for earlier, later in pairwise(numbers):
            assert earlier < later, f"{later} came after {earlier}"
