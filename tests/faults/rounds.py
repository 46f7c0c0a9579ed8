"""A ledger of acknowledged lines, while netd, its broker and the connections between them break again and again.

Three publishers send numbered lines to three ports of a real daemon and note which ones were answered `+OK`. Three
consumers take them out again by netd's subscribe ports and acknowledge them. Whatever breaks meanwhile, in the end
every line that was answered `+OK` has been received; a line that came twice has one `x-netd-id`; and the lines of the
port whose queue has one consumer came in order, repeats aside.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Self

from tests.faults.lines import Consumer, Publisher
from tests.netd_process import Netd
from tests.servers import HOST, RabbitServer, VirtualHost, reserve_port

PATIENCE = 120.0
"""Seconds until all that was answered must have come out, after the last fault."""

PORTS = {"alone": "single", "one": "shared", "two": "shared"}
"""Publish ports, and the queues behind them."""
CONSUMERS = ["single", "shared", "shared"]


class Rounds:
    """The daemon, its broker, the clients, and what can happen to them."""

    def __init__(self, directory: Path, rabbit: RabbitServer, vhost: VirtualHost, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.history: list[tuple[float, float, str]] = []
        """When each fault began and ended."""
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
            self._rabbit.make_quorum_queue(self._vhost, queue)
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
            began = time.monotonic()
            self.faults[name]()
            self.history.append((began, time.monotonic(), name))
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
        connection that broke goes back to the queue while the next one, of the same client, may have its prefetch. It
        comes again in the end, and before that, when netd was killed too, the line's other copy may come, from netd's
        spool.
        """
        consumer = self.consumers[0]
        seen = dict.fromkeys((name, number) for name, number, _ in consumer.received if name == "alone")
        numbers = [number for name, number in seen if (name, number) not in consumer.again]
        for earlier, later in pairwise(numbers):
            assert earlier < later, f"{later} came after {earlier}:\n{self._story(earlier, later)}"

    def _story(self, *numbers: int) -> str:
        """What was received, and what broke, whenever some numbers came."""
        consumer = self.consumers[0]
        at = [index for index, each in enumerate(consumer.received) if each[1] in numbers]
        shown = sorted({index for each in at for index in range(max(each - 15, 0), each + 15)})
        told = [
            (when, f"{number} {netd_id.rpartition('-')[2]} by connection {link}{' again' * redelivered}")
            for index in shown
            if index < len(consumer.received)
            for (_, number, netd_id), (when, link, redelivered) in [
                (consumer.received[index], consumer.circumstances[index])
            ]
        ]
        told += [
            (moment, f"{name}: {what}")
            for began, ended, name in self.history
            for moment, what in ((began, "begins"), (ended, "is over"))
            if told[0][0] - 20 < moment < told[-1][0] + 5
        ]
        return "\n".join(f"{when:.3f} {line}" for when, line in sorted(told))
