"""`make soak`: every service under mixed load for half an hour, while backends break and the daemon is reloaded.

At the end nothing may have been answered wrongly, no acknowledged line may be lost, and memory, descriptors, threads
and the reactor's lag must have been flat in the second half of the time, as `tests.soak.flat` says what that is.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import charts
from tests.faults.lines import Consumer, Publisher
from tests.netd_process import Netd
from tests.servers import HOST, RabbitServer, RedisServer, ServerFailed, reserve_ports
from tests.soak.flat import TooFew, Trend, trend
from tests.soak.loads import CLOSED, Cached, Echoes, Load, Nowhere, Operator, Passers, Sessions
from tests.soak.samples import ALLOWED, LAG, Sampler
from tests.soak.troubles import NotAsExpected, Troubles

PATIENCE = 120.0
"""Seconds until all that was acknowledged must have come out of the bridge, once nothing breaks any more."""

CACHE_CLIENTS = 4

PORTS = ("admin", "plain", "upper", "memcached", "redis", "into", "nowhere", "out", "ssh")

TEMPLATE = """
[daemon]
state_dir = "state"
[admin]
listen = "{host}:{admin}"
[echo.plain]
listen = "{host}:{plain}"
idle_timeout = "{{idle}}"
[echo.upper]
listen = "{host}:{upper}"
transform = "upper"
[cache.main]
listen_memcached = "{host}:{memcached}"
listen_redis = "{host}:{redis}"
store = "{store}"
max_memory = "4MiB"
timeout = "{{timeout}}"
[bridge.main]
broker = "{broker}"
heartbeat = "2s"
[bridge.main.publish.into]
listen = "{host}:{into}"
routing_key = "soak"
[bridge.main.publish.nowhere]
listen = "{host}:{nowhere}"
routing_key = "no such queue"
[bridge.main.subscribe.out]
listen = "{host}:{out}"
queue = "soak"
ack = "client"
framing = "json"
[ssh.console]
listen = "{host}:{ssh}"
penalty_exempt = ["127.0.0.0/8"]
[ssh.console.users.ops]
role = "admin"
authorized_keys_file = "key.pub"
[ssh.console.commands]
df = ["df", "-h"]
zeros = {{{{ argv = ["head", "-c", "{{{{size}}}}", "/dev/zero"], args = {{{{ size = "[0-9]+" }}}} }}}}
{{command}}
{{extra}}
"""


class Soak:
    """One run, from its seed to its verdict."""

    def __init__(self, minutes: float, seed: int, chart: Path) -> None:
        self._seconds = 60 * minutes
        self._seed = seed
        self._chart = chart
        self._enough = threading.Event()
        self._began = time.monotonic()
        self._marks: list[tuple[float, str]] = []
        self.failures: list[str] = []

    def run(self) -> bool:
        """Whether everything held."""
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netd-soak-")))
            ports = stack.enter_context(reserve_ports(PORTS))
            redis = stack.enter_context(RedisServer())
            rabbit = stack.enter_context(RabbitServer())
            vhost = stack.enter_context(rabbit.vhost())
            rabbit.make_quorum_queue(vhost, "soak")
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"], check=True)
            template = TEMPLATE.format(host=HOST, store=redis.url, broker=vhost.url, **ports)
            troubles = Troubles(
                self._seed,
                template,
                file=directory / "netd.toml",
                socket=directory / "state" / "netd.sock",
                redis=redis,
                rabbit=rabbit,
                vhost=vhost,
            )
            netd = Netd(directory, troubles.configuration())
            stack.callback(netd.process.wait)
            stack.callback(netd.process.kill)
            netd.wait_for("ready: ", PATIENCE)
            self._began = time.monotonic()
            sampler = Sampler(netd.process.pid, ports["admin"], self._enough)
            loads = self._loads(directory, ports)
            publisher, consumer = Publisher(ports["into"], "soak"), Consumer(ports["out"], "soak")
            self.say(f"seed {self._seed}: {len(loads) + 2} clients for {self._seconds / 60:g} minutes")
            watched: list[Load | Sampler] = [*loads, sampler]
            for thread in (*watched, publisher, consumer):
                thread.start()
            self._endure(troubles, watched)
            for each in watched:
                each.join(2 * PATIENCE)
                if each.is_alive():
                    self.failures.append(f"{type(each).__name__} waits and waits")
            self.say("nothing breaks any more: what was acknowledged must come out")
            self._settle(publisher, consumer)
            self.failures += [each.failure for each in watched if each.failure]
            self.failures += [f"logged: {event['traceback']}" for event in netd.events if "traceback" in event]
            closed = sum(each.done[CLOSED] for each in loads)
            if closed > 2 * CACHE_CLIENTS * troubles.replaced:
                self.failures.append(
                    f"{closed} connections to the cache were closed, which was replaced {troubles.replaced} times"
                )
            self._tell(loads, publisher, consumer)
            return self._judge(sampler) and not self.failures

    def _loads(self, directory: Path, ports: dict[str, int]) -> list[Load]:
        chance = random.Random(self._seed)
        seeds = iter(lambda: chance.randrange(1 << 30), None)
        doors = [ports[name] for name in ("plain", "upper", "memcached", "redis", "admin", "ssh")]
        return [
            *(Echoes(next(seeds), self._enough, ports["plain"], upper=False) for _ in range(4)),
            *(Echoes(next(seeds), self._enough, ports["upper"], upper=True) for _ in range(2)),
            *(
                Cached(next(seeds), self._enough, ports["memcached"], ports["redis"], f"c{n}")
                for n in range(CACHE_CLIENTS)
            ),
            Passers(next(seeds), self._enough, doors),
            Nowhere(next(seeds), self._enough, ports["nowhere"]),
            *(Operator(next(seeds), self._enough, ports["admin"], directory / "state" / "netd.sock") for _ in range(2)),
            *(Sessions(next(seeds), self._enough, ports["ssh"], directory / "key") for _ in range(2)),
        ]

    def _endure(self, troubles: Troubles, watched: Sequence[Load | Sampler]) -> None:
        """Troubles until the time is over, or until somebody has found something wrong."""
        timer = threading.Timer(self._seconds, self._enough.set)
        timer.start()

        def say(text: str) -> None:
            self._marks.append(((time.monotonic() - self._began) / 60, text))
            self.say(text)
            if any(each.failure for each in watched):
                self._enough.set()

        try:
            troubles.play(self._enough, say)
        except (NotAsExpected, ServerFailed) as error:
            self.failures.append(str(error))
        finally:
            self._enough.set()
            timer.cancel()

    def _settle(self, publisher: Publisher, consumer: Consumer) -> None:
        publisher.leave()
        deadline = time.monotonic() + PATIENCE
        while (lost := _lost(publisher, consumer)) and time.monotonic() < deadline and not consumer.failed:
            time.sleep(0.2)
        consumer.leave()
        if lost:
            self.failures.append(f"{lost} acknowledged lines have not come out")
        self.failures += [repr(each.failed) for each in (publisher, consumer) if each.failed]
        self.failures += [f"a line was answered {line!r}" for line in publisher.refused[:1]]

    def _tell(self, loads: Sequence[Load], publisher: Publisher, consumer: Consumer) -> None:
        done = sum((load.done for load in loads), Counter())
        done["lines acknowledged"] = len(publisher.sure)
        done["lines received"] = len(consumer.received)
        self.say(", ".join(f"{count:,} {what}" for what, count in sorted(done.items())))
        for failure in self.failures:
            self.say(f"WRONG: {failure}")

    def _judge(self, sampler: Sampler) -> bool:
        """Print and draw what was measured; whether all of it was flat."""
        judged = sampler.judged()
        try:
            trends = {name: trend(sampler.points[name], ALLOWED[name]) for name in ALLOWED if name in judged}
        except TooFew as error:
            self.say(f"nothing can be said: {error}")
            return False
        for name, found in trends.items():
            self.say(_verdict(name, found))
        self.say(f"{LAG}: of the {sampler.calm:.0%} of the seconds in which the reactor had a processor at once")
        if LAG not in judged:
            self.say(f"{LAG}: not judged, as the machine was busy")
        panels = [
            charts.Course(
                name,
                [(x / 60, y) for x, y in points],
                [(x / 60, y) for x, y in (trends[name].start, trends[name].end)] if name in trends else [],
            )
            for name, points in sampler.points.items()
        ]
        self._chart.parent.mkdir(parents=True, exist_ok=True)
        title = f"netd under mixed load, {len(self._marks)} reloads and faults, seed {self._seed}"
        self._chart.write_text(charts.courses(title, "minutes", panels, [at for at, _ in self._marks]))
        self._chart.with_suffix(".json").write_text(json.dumps(sampler.points))
        self.say(f"drawn: {self._chart}, with its samples beside it")
        return all(found.flat for found in trends.values())

    def say(self, text: str) -> None:
        """Print a line, with how long it has been."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)  # noqa: T201 - a program's output


def _lost(publisher: Publisher, consumer: Consumer) -> int:
    return len(publisher.sure - {number for _, number, _ in list(consumer.received)})


def _verdict(name: str, found: Trend) -> str:
    word = "flat" if found.flat else "NOT FLAT"
    return (
        f"{name}: {found.start[1]:.2f} at half time, {found.rise:+.2f} by the end ({found.allowed:.2f} allowed): {word}"
    )


def main() -> int:
    """The exit status: 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--chart", type=Path, default=Path("build/soak.svg"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    held = Soak(given.minutes, given.seed, given.chart).run()
    print("held" if held else "DID NOT HOLD")  # noqa: T201 - as above
    return 0 if held else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
