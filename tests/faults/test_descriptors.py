"""netd runs out of file descriptors: who is served is served on, links are made anew, the operator gets in."""

import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from netd.ports import KEPT_DESCRIPTORS
from tests.faults.conftest import MakeWorld, Tell
from tests.netd_process import TWISTD, Netd
from tests.servers import HOST, find_program

LIMIT = 200
CROWD = 400
EVENTS = 20
"""Lines logged a second, at most, about something that happens a thousand times a second."""


def test_no_more_descriptors(make_world: MakeWorld, tmp_path: Path, tell: Tell) -> None:
    limited: list[str | Path] = [find_program("prlimit"), f"--nofile={LIMIT}:{LIMIT}", TWISTD]
    world = make_world(tmp_path, start=partial(Netd, command=limited))

    def in_use() -> int:
        return sum(1 for _ in Path(f"/proc/{world.netd.process.pid}/fd").iterdir())

    for path in ("/status", "/metrics"):  # what is asked for the first time is read from files
        world.get(path)
    with world.everybody("ssh") as load, ExitStack() as crowd:
        before, logged = in_use(), len(world.netd.events)
        began = time.monotonic()
        for _ in range(CROWD):
            client = crowd.enter_context(socket.create_connection((HOST, world.doors["echo"]), 20))
            with suppress(ConnectionError):  # it has been sent away
                client.sendall(b"x")
        load.until(lambda: in_use() >= LIMIT - KEPT_DESCRIPTORS, "a crowd has all descriptors that it can get")
        load.recovered()
        # Links that break now are made anew with what is kept for them, and the operator gets in.
        world.proxies["Redis"].reset()
        world.proxies["RabbitMQ"].reset()
        load.recovered()
        world.get("/status")
        time.sleep(2)
        lasted = time.monotonic() - began
        assert (len(world.netd.events) - logged) / lasted < EVENTS
        crowd.close()
        took = load.until_answered()
        with world.callers("ssh", each=1) as newcomer:
            newcomer.settle()
        newcomer.check()
        load.settle()
        load.until(lambda: in_use() <= before, "no descriptor is left behind")
    load.check(refused=True)
    tell(f"descriptors: {LIMIT} in all, {CROWD} more wanted, for {lasted:.0f} s", load.said(), took)
