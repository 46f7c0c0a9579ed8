"""`make demo`: 200,000 numbered lines go through netd while things break around it, and every one is accounted for.

With SABOTAGE=nosync or SABOTAGE=earlyok it runs a netd that has a promise taken out (tests/sabotage.py), and must find
that out. The exit status is 0 only if nothing is lost and nothing else is wrong: 1 otherwise, 3 when a sabotage was not
found out.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.demo.feed import Feed, Reader, converse, line_of
from tests.demo.ledger import Ledger
from tests.demo.screen import Screen
from tests.demo.stage import PATIENCE, QUEUE, Stage, enter_namespace, own_namespace, until
from tests.netd_process import TWISTD
from tests.sabotage import SABOTAGES, sabotaged
from tests.servers import HOST, exchange, find_program
from tests.strace import early_replies

CLIENTS = 4
TRACED = (101, 102, 103, 104)
"""Clients that talk while strace looks on, and lines of each."""
TRACED_LINES = 90
DEAD = {"nowhere": 201, "unknown": 202}
"""Ports whose lines nobody takes, and their clients' numbers."""
DEAD_LINES = 100
PORTION = 4000
"""Lines that are sent at once while the disk fills up."""
CALM = 5.0
"""Seconds for which the spool and the queue are empty, after which nothing more is expected."""
FRESH = 3.0
"""Seconds until netd must have seen what `redis-cli` wrote."""


class Play:
    """The acts, one after another."""

    def __init__(self, lines: int, sabotage: str) -> None:
        title = f"netd, {lines:,} lines, and what can go wrong"
        self.ledger = Ledger()
        self.screen = Screen(title + (f" - SABOTAGE: {sabotage}" if sabotage else ""), self.ledger.counts)
        self.problems: list[str] = []
        self.not_shown: list[str] = []
        self._lines = lines
        self._left = lines
        self._sabotage = sabotage
        self._say = self.screen.say

    def run(self) -> int:
        """The exit status."""
        self.screen.open()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._drawing())
                self._say("stage", "starting a RabbitMQ, a Redis and netd of its own")
                self._stage = stack.enter_context(Stage(sabotaged(self._sabotage) if self._sabotage else (TWISTD,)))
                self._reader = Reader(self._stage.vhost, QUEUE, self.ledger)
                stack.callback(self._reader.leave)
                self._reader.start()
                self._feeds = [
                    Feed(self._stage.ports["lines"], number, self.ledger) for number in range(1, CLIENTS + 1)
                ]
                for feed in self._feeds:
                    stack.callback(feed.leave)
                self._acts()
                self._say("end", "taking everything down")
        finally:
            self.screen.close()
        return self._verdict()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        enough = threading.Event()

        def draw() -> None:
            while not enough.wait(0.25):
                self.screen.draw()

        drawing = threading.Thread(target=draw, daemon=True)
        drawing.start()
        try:
            yield
        finally:
            enough.set()
            drawing.join()

    def _acts(self) -> None:
        self._trace()
        for feed in self._feeds:
            feed.start()
        self._left = self._lines - len(TRACED) * TRACED_LINES - len(DEAD) * DEAD_LINES
        self._kill_netd(self._left // 5)
        self._nowhere()
        self._reload()
        self._kill_broker(self._left // 10)
        self._fill_disk()
        self._start_broker()
        self._send(self._left)
        self._kill_while_delivering()
        self._settle()
        self._cache()

    def _send(self, count: int, seconds: float = 0) -> None:
        """Have the clients send so many lines together, in so many seconds or as fast as they are taken."""
        self._left -= count
        for at, feed in enumerate(self._feeds):
            share = count // CLIENTS + (at < count % CLIENTS)
            feed.send(share, share / seconds if seconds else 0)

    def _until_answered(self, goal: int) -> bool:
        return until(lambda: self.ledger.counts().answered >= goal)

    def _restart(self, when: str) -> None:
        self._stage.kill_netd()
        seconds = self._stage.start_netd()
        self._say("netd", f"kill -9 {when}; up again in {seconds:.1f} s")

    # --- the acts

    def _trace(self) -> None:
        """No +OK leaves before the sync that covers its line has returned, as the kernel sees it."""
        with self._stage.traced() as (path, reason):
            talks = [
                threading.Thread(
                    target=converse, args=(self._stage.ports["lines"], number, TRACED_LINES + 1, self.ledger)
                )
                for number in TRACED
            ]
            for talk in talks:
                talk.start()
            for talk in talks:
                talk.join()
        if reason:
            self._say("strace", f"NOT SHOWN: {reason}")
            self.not_shown.append(f"that no +OK leaves before its sync: {reason}")
            return
        replies, early = early_replies(path.read_text(errors="replace"))
        self._say("strace", f"{replies} replies +OK seen, {len(early)} of them before the sync that covers the line")
        if early or not replies:
            self.problems.append(f"the trace shows {len(early)} of {replies} +OK before the sync that covers the line")

    def _kill_netd(self, count: int) -> None:
        answered = self.ledger.counts().answered
        self._send(count, 8)
        for quarter in (1, 2, 3):
            self._until_answered(answered + quarter * count // 4)
            self._restart("while lines come in")

    def _nowhere(self) -> None:
        """Lines that RabbitMQ has no queue for, and lines for an exchange that it does not have."""
        feeds = [Feed(self._stage.ports[name], number, self.ledger) for name, number in DEAD.items()]
        for feed in feeds:
            feed.send(DEAD_LINES)
            feed.start()
        want = len(DEAD) * DEAD_LINES
        until(lambda: self._stage.figures()["dead_letters"] >= want)
        for feed in feeds:
            feed.leave()
        for body, reason in self._stage.letters():
            self.ledger.bury(line_of(body), reason)
        self._say(
            "nowhere", f"{self.ledger.counts().dead.total()} lines that no queue takes: dead letters with reasons"
        )

    def _reload(self) -> None:
        before = self._stage.netd.process.pid
        said = self._stage.reload_badly()
        self._say("reload", f"a wrong file: {said.partition('netd.toml: ')[2] or said}")
        if not said or self._stage.netd.process.poll() is not None or self._stage.netd.process.pid != before:
            self.problems.append("a wrong configuration was taken")

    def _kill_broker(self, count: int) -> None:
        self._stage.rabbit.kill()
        answered = self.ledger.counts().answered
        self._send(count)
        if not self._until_answered(answered + count):
            self.problems.append("not every line was answered while the broker was away")
        self._say("RabbitMQ", f"kill -9; {count:,} lines answered while it is away")

    def _start_broker(self) -> None:
        began = time.monotonic()
        self._stage.rabbit.start()
        self._say("RabbitMQ", f"started again in {time.monotonic() - began:.0f} s; what waits flows out")

    def _fill_disk(self) -> None:
        """Twice: netd goes on by itself when there is room again, and it is killed while there is none."""
        if self._stage.why_no_disk:
            self._say("disk", f"NOT SHOWN: {self._stage.why_no_disk}")
            self.not_shown.append(f"a full disk: {self._stage.why_no_disk}")
            return
        self._fill_up()
        self._stage.free_disk()
        answered = self.ledger.counts().answered
        self._send(min(self._left, PORTION))
        if until(lambda: not self._waiting() and self.ledger.counts().answered > answered, 30):
            self._say("disk", "room again: *GO, by itself")
        else:
            self.problems.append("netd did not go on by itself when the disk had room again")
            self._say("disk", "room again, and netd DOES NOT GO ON by itself")
        self._fill_up()
        self._stage.kill_netd()
        self._stage.free_disk()
        seconds = self._stage.start_netd()
        self._say("netd", f"kill -9 while the disk is full; with room again it is up in {seconds:.1f} s")

    def _fill_up(self) -> None:
        """Take all room, and send until netd has none of its own either."""
        self._stage.fill_disk()
        while self._left and not self._waiting():
            self._send(min(self._left, PORTION))
            until(lambda: self._waiting() or all(feed.done for feed in self._feeds))
        if self._waiting():
            self._say("disk", f"full: *WAIT {self._told()}")
        else:
            self.problems.append("the disk did not become full, or clients were not told")

    def _waiting(self) -> bool:
        return any(feed.waiting for feed in self._feeds)

    def _told(self) -> str:
        return next((feed.waiting for feed in self._feeds if feed.waiting), "")

    def _kill_while_delivering(self) -> None:
        found = self.ledger.counts().in_queue
        until(lambda: self.ledger.counts().in_queue > found + 1000)
        self._restart("while lines go out")

    def _settle(self) -> None:
        """Until all is there; or nothing is on its way any more, and it is not."""
        self._say("rest", "nothing breaks any more: the last lines come in, and all go out")
        counts, since, at_rest = self.ledger.counts(), time.monotonic(), 0.0
        while time.monotonic() - since < PATIENCE:
            before, counts = counts, self.ledger.counts()
            if counts.sent == counts.answered == self._lines and not counts.lost:
                break
            now = time.monotonic()
            since = now if counts != before else since
            at_rest = (at_rest or now) if self._reader.empty and not self._backlog() else 0.0
            if at_rest and now - max(at_rest, since) > CALM:
                break
            time.sleep(0.1)
        else:
            self.problems.append("it did not come to rest")
        self._reader.leave()
        self.screen.settle(self.ledger.counts())
        self.problems += self.ledger.problems()
        if self._reader.strange:
            self.problems.append(f"a message that is no line: {self._reader.strange}")

    def _backlog(self) -> bool:
        """Whether anything is in netd's spool, dead letters aside."""
        try:
            return bool(self._stage.figures()["backlog"])
        except OSError:
            return True

    def _cache(self) -> None:
        """A value has two writers: a memcached client of netd's, and redis-cli straight into Redis."""
        port, redis = self._stage.ports["memcached"], str(self._stage.redis.port)
        read = lambda: exchange(port, b"get greeting\r\n", b"END\r\n").split(b"\r\n")[1:2]  # noqa: E731 - said twice
        stored = exchange(port, b"set greeting 0 0 5\r\nhello\r\n").strip().decode()
        before = read()
        cli = [find_program("redis-cli"), "-h", HOST, "-p", redis]
        seen = subprocess.run([*cli, "get", "greeting"], capture_output=True, text=True, check=True).stdout.strip()
        self._say("cache", f"memcached's set: {stored}; redis-cli, straight into Redis, reads: {seen}")
        subprocess.run([*cli, "set", "greeting", "changed"], capture_output=True, check=True)
        began = time.monotonic()
        fresh = until(lambda: read() == [b"changed"], FRESH)
        milliseconds = 1000 * (time.monotonic() - began)
        self._say(
            "cache",
            f"redis-cli sets it anew; memcached's get: {b''.join(read()).decode()}, {milliseconds:.0f} ms later",
        )
        if (stored, before, seen, fresh) != ("STORED", [b"hello"], "hello", True):
            self.problems.append(f"the cache: {stored}, {before}, {seen}, {'fresh' if fresh else 'stale'}")

    # --- the end

    def _verdict(self) -> int:
        status = status_of(self.problems, self._sabotage)
        for text in self.not_shown:
            print(f"not shown: {text}")  # noqa: T201 - a program's output, as below
        for problem in self.problems:
            print(f"WRONG: {problem}")  # noqa: T201
        match status, self._sabotage:
            case 0, _:
                print("Every line that was answered +OK is in the queue, or dead with its reason. LOST 0.")  # noqa: T201
            case 3, sabotage:
                print(f"The sabotage {sabotage} was NOT found out.")  # noqa: T201
            case _, "":
                print("It does NOT hold.")  # noqa: T201
            case _, sabotage:
                print(f"The sabotage {sabotage} was found out, as it should be.")  # noqa: T201
        return status


def status_of(problems: Sequence[str], sabotage: str) -> int:
    """The exit status: 0 all is well, 1 something is wrong, 3 something should be wrong and was not found."""
    if problems:
        return 1
    return 3 if sabotage else 0


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--sabotage", choices=["", *SABOTAGES], default="")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return Play(given.lines, given.sabotage).run()


if __name__ == "__main__":
    if not own_namespace() and shutil.which("unshare"):
        enter_namespace([sys.executable, "-m", "tests.demo", *sys.argv[1:]])
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
