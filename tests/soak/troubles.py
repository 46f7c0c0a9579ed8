"""What happens during a soak, at random: reloads, good and bad, and backends that break."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

from netd.admin import client as netdctl
from tests.servers import RabbitServer, RedisServer, VirtualHost

BETWEEN = (4.0, 12.0)
"""Seconds between two troubles."""

Settings = dict[str, str]


class NotAsExpected(Exception):
    """A reload that was refused, or that should have been."""


class Troubles:
    """The configuration as it changes, and what can be done."""

    def __init__(
        self,
        seed: int,
        template: str,
        *,
        file: Path,
        socket: Path,
        redis: RedisServer,
        rabbit: RabbitServer,
        vhost: VirtualHost,
    ) -> None:
        self.random = random.Random(seed)
        self._template = template
        self._file = file
        self._socket = socket
        self._redis = redis
        self._rabbit = rabbit
        self._vhost = vhost
        self.replaced = 0
        """Reloads after which the cache is another one, and its old connections are closed."""
        self._choices: Settings = {"idle": "10m", "timeout": "1s", "extra": "", "command": ""}
        self._weighted: dict[Callable[[], str], int] = {
            self.reload: 8,
            self.reload_badly: 3,
            self.freeze_redis: 3,
            self.kill_redis: 2,
            self.freeze_broker: 3,
            self.kill_broker: 1,
            self.close_connections: 1,
        }

    def play(self, enough: threading.Event, say: Callable[[str], object]) -> None:
        """One after another until it is enough."""
        while not enough.wait(self.random.uniform(*BETWEEN)):
            say(self.random.choices(list(self._weighted), list(self._weighted.values()))[0]())

    def configuration(self) -> str:
        return self._template.format(**self._choices)

    # --- reloads

    def reload(self) -> str:
        """Another setting in some of the services, one more service, or one less."""
        what = self.random.choice(list(self._choices))
        other: dict[str, list[str]] = {
            "idle": ["10m", "20m", "30m"],
            "timeout": ["1s", "1500ms", "2s"],
            "extra": ["", '[echo.extra]\nlisten = "127.0.0.1:0"\n'],
            "command": ["", 'uptime = ["uptime"]\n'],
        }
        self._choices[what] = self.random.choice([each for each in other[what] if each != self._choices[what]])
        self._file.write_text(self.configuration())
        status, said = self._verb("reload", "--json")
        if status:
            raise NotAsExpected(f"reload: {said}")
        self.replaced += what == "timeout"
        document = json.loads(said)
        done = [f"{how} {', '.join(document[how])}" for how in ("added", "changed", "removed") if document[how]]
        return f"reloaded: {'; '.join(done)}"

    def reload_badly(self) -> str:
        mistake = self.random.choice(["[echo.plain]\n", "[echo.worse]\nlisten = 7\n", "[[[", "[daemon]\ndrain = 1\n"])
        self._file.write_text(self.configuration() + mistake)
        status, said = self._verb("reload")
        self._file.write_text(self.configuration())
        if not status:
            raise NotAsExpected(f"a wrong file was taken: {said}")
        return "a wrong reload was refused"

    def _verb(self, *words: str) -> tuple[int, str]:
        said: list[str] = []
        status = netdctl.run(self._socket, words, said.append, said.append)
        return status, "".join(said)

    # --- backends

    def freeze_redis(self) -> str:
        self._redis.pause()
        seconds = self._wait(0.2, 3)
        self._redis.resume()
        return f"Redis stood still for {seconds:.1f} s"

    def kill_redis(self) -> str:
        self._redis.kill()
        seconds = self._wait(0.1, 2)
        self._redis.start()
        return f"Redis was killed, and away for {seconds:.1f} s"

    def freeze_broker(self) -> str:
        self._rabbit.pause()
        seconds = self._wait(0.2, 4)
        self._rabbit.resume()
        return f"RabbitMQ stood still for {seconds:.1f} s"

    def kill_broker(self) -> str:
        self._rabbit.kill()
        self._rabbit.start()
        return "RabbitMQ was killed and started again"

    def close_connections(self) -> str:
        self._rabbit.ctl("close_all_connections", "--vhost", self._vhost.name, "soak")
        return "RabbitMQ closed its connections"

    def _wait(self, least: float, most: float) -> float:
        seconds = self.random.uniform(least, most)
        threading.Event().wait(seconds)
        return seconds
