"""The clients of `make faults` find out whoever lies to them, and believe whoever does not."""

import json
import re
import socket
import socketserver
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import hiredis
import pytest

from tests.faults.callers import (
    AdminCaller,
    Caller,
    EchoCaller,
    LineCaller,
    LineReader,
    MemcachedCaller,
    RedisCaller,
    SshCaller,
)
from tests.faults.crowd import Member, build_storm
from tests.faults.load import Load
from tests.faults.values import Values
from tests.waiting import eventually

Answer = Callable[[bytes], bytes]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def serving(make: Callable[[], Answer]) -> Iterator[int]:
    """A server that gives each read of each connection the answer of a function made for that connection."""

    class Conversation(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answer = make()
            try:
                while data := self.request.recv(1 << 16):
                    self.request.sendall(answer(data))
            except OSError:
                pass  # the client has left

    with _Server(("127.0.0.1", 0), Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def believes(caller: Caller) -> bool:
    """Whether a caller is content for fifty exchanges."""
    caller.start()
    assert eventually(lambda: caller.checked >= 50 or bool(caller.wrong) or caller.missed > 0)
    caller.leave()
    return not caller.wrong and not caller.missed


# --- echo


@pytest.mark.parametrize(
    ("answer", "believed"),
    [
        pytest.param(lambda data: data, True, id="the truth"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), False, id="a changed bit"),
        pytest.param(lambda data: data[1:] + data[:1], False, id="another order"),
        pytest.param(lambda data: data + b"!", False, id="a byte too much"),
    ],
)
def test_echo(answer: Answer, believed: bool) -> None:
    with serving(lambda: answer) as port:
        assert believes(EchoCaller(port)) is believed


def test_an_answer_that_never_comes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.callers.SILENCE", 0.2)
    with serving(lambda: lambda data: data[:-1]) as port:
        assert not believes(EchoCaller(port))


def test_a_connection_that_ends_is_counted_and_made_anew() -> None:
    class Leaves(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)

    with _Server(("127.0.0.1", 0), Leaves) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        caller = EchoCaller(server.server_address[1])
        caller.start()
        assert eventually(lambda: caller.broken >= 3)
        caller.leave()
        server.shutdown()
        thread.join()
    assert caller.checked == 0
    assert caller.wrong == []


# --- cache


class Store(dict[str, bytes]):
    """The truth."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value

    def fetch(self, key: str) -> bytes | None:
        return self.get(key)


class KeepsTheFirst(Store):
    def put(self, key: str, value: bytes) -> None:
        self.setdefault(key, value)


class ForgetsSome(Store):
    def fetch(self, key: str) -> bytes | None:
        return None if len(self) > 2 else self.get(key)


class MixesKeys(Store):
    def fetch(self, key: str) -> bytes | None:
        return next(iter(self.values()), None)


class CutsShort(Store):
    def fetch(self, key: str) -> bytes | None:
        value = self.get(key)
        return value and value[: len(value) // 2]


class KnowsTheFuture(Store):
    def fetch(self, key: str) -> bytes | None:
        return Values.value(key, 1_000_000)


STORES = [
    pytest.param(Store, True, id="the truth"),
    pytest.param(KeepsTheFirst, False, id="an old value"),
    pytest.param(ForgetsSome, False, id="a value that is gone"),
    pytest.param(MixesKeys, False, id="another key's value"),
    pytest.param(CutsShort, False, id="half a value"),
    pytest.param(KnowsTheFuture, False, id="a value that nobody wrote"),
]
_REQUEST = re.compile(rb"get (\S+)\r\n|set (\S+) 0 0 (\d+)\r\n")


def memcached(store: Store) -> Answer:
    rest = b""

    def answer(data: bytes) -> bytes:
        nonlocal rest
        rest += data
        said = b""
        while found := _REQUEST.match(rest):
            if found[1]:
                value = store.fetch(found[1].decode())
                said += b"" if value is None else b"VALUE %s 0 %d\r\n%s\r\n" % (found[1], len(value), value)
                said += b"END\r\n"
                rest = rest[found.end() :]
            else:
                end = found.end() + int(found[3])
                if len(rest) < end + 2:
                    break
                store.put(found[2].decode(), rest[found.end() : end])
                said += b"STORED\r\n"
                rest = rest[end + 2 :]
        return said

    return answer


def redis(store: Store) -> Answer:
    reader = hiredis.Reader(notEnoughData=Ellipsis)

    def answer(data: bytes) -> bytes:
        reader.feed(data)
        said = b""
        while (words := reader.gets()) is not Ellipsis:
            verb, key, *value = words
            if verb == b"SET":
                store.put(key.decode(), value[0])
                said += b"+OK\r\n"
            else:
                found = store.fetch(key.decode())
                said += b"$-1\r\n" if found is None else b"$%d\r\n%s\r\n" % (len(found), found)
        return said

    return answer


class MakesCaller(Protocol):
    def __call__(self, port: int, values: Values, name: str) -> Caller: ...


@pytest.mark.parametrize(("kind", "believed"), STORES)
@pytest.mark.parametrize(("protocol", "make"), [(memcached, MemcachedCaller), (redis, RedisCaller)])
def test_cache(protocol: Callable[[Store], Answer], make: MakesCaller, kind: type[Store], believed: bool) -> None:
    store = kind()
    with serving(lambda: protocol(store)) as port:
        assert believes(make(port, Values(), "x")) is believed


@pytest.mark.parametrize("make", [MemcachedCaller, RedisCaller])
def test_replies_in_another_order_are_found(make: MakesCaller) -> None:
    protocol, end = (memcached, b"END\r\n") if make is MemcachedCaller else (redis, b"+OK\r\n")
    store = Store()

    def reversed_replies() -> Answer:
        honest = protocol(store)
        return lambda data: b"".join(each + end for each in honest(data).split(end)[-2::-1])

    with serving(reversed_replies) as port:
        assert not believes(make(port, Values(), "x"))


@pytest.mark.parametrize(
    ("make", "said", "refusal"),
    [
        (MemcachedCaller, b"SERVER_ERROR away\r\n", "SERVER_ERROR away"),
        (RedisCaller, b"-ERR away\r\n", "ERR away"),
    ],
)
def test_a_refusal_is_no_lie(make: MakesCaller, said: bytes, refusal: str) -> None:
    with serving(lambda: lambda _data: said * 8) as port:
        caller = make(port, Values(), "x")
        caller.start()
        assert eventually(lambda: caller.refused[refusal] > 20)
        caller.leave()
    assert caller.wrong == []


# --- ssh and admin


@pytest.mark.parametrize(
    ("script", "believed"),
    [
        ('set -- $1; if [ $1 = cat ]; then cat; else seq $2; exit $3; fi', True),
        ('set -- $1; if [ $1 = cat ]; then cat; else seq $2; fi', False),
        ('set -- $1; if [ $1 = cat ]; then cat; else seq 1 $(($2 - 1)); exit $3; fi', False),
        ('set -- $1; if [ $1 = cat ]; then head -c 99; else seq $2; exit $3; fi', False),
        ('echo something else; exit 255', False),
    ],
    ids=["the truth", "another status", "a line less", "not all bytes", "false, and then the connection broke"],
)  # fmt: skip
def test_ssh(script: str, believed: bool) -> None:
    caller = SshCaller(["sh", "-c", script, "ssh"], longest=50)
    caller.pause = 0
    assert believes(caller) is believed


PAGES = {
    b"/livez": b"alive\n",
    b"/status": b'{"clock": 1, "services": []}',
    b"/metrics": b"# HELP netd_x x\nnetd_x 1\n",
}


def http(pages: dict[bytes, bytes]) -> Answer:
    def answer(data: bytes) -> bytes:
        body = pages[data.split(b" ")[1]]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    return answer


@pytest.mark.parametrize(
    ("pages", "believed"),
    [
        (PAGES, True),
        (PAGES | {b"/livez": b"alive"}, False),
        (PAGES | {b"/status": PAGES[b"/status"][:-1]}, False),
        (PAGES | {b"/metrics": PAGES[b"/metrics"][:-3]}, False),
    ],
    ids=["the truth", "livez", "status", "metrics"],
)
def test_admin(pages: dict[bytes, bytes], believed: bool) -> None:
    with serving(lambda: http(pages)) as port:
        caller = AdminCaller(port)
        caller.pause = 0
        assert believes(caller) is believed


# --- lines


def line(name: str, number: int, netd_id: str) -> bytes:
    body = f'{{"body": "{name} {number}", "headers": {{"x-netd-id": "{netd_id}"}}, "redelivered": false}}'
    return f"{number}\t1\t{body}\n".encode()


def settled(received: bytes) -> Load:
    """A load whose publisher was told that lines 1 to 20 are durable, and whose reader received these bytes."""
    numbers = (1, 20)
    publisher = LineCaller(0, "a")
    publisher.answered.append(numbers)
    near, far = socket.socketpair()
    reader = LineReader(0, "a", [publisher])
    with near, far:
        far.sendall(received)
        far.shutdown(socket.SHUT_WR)
        reader.work(near)
    return Load(publishers=[publisher], readers=[reader])


def test_lines_that_all_came_are_no_loss_and_repeats_are_counted() -> None:
    load = settled(b"".join(line("a", number, f"x{number}") for number in (*range(1, 21), 7)))
    load.check()
    assert load.repeats() == 1


@pytest.mark.parametrize(
    ("received", "complaint"),
    [
        (b"".join(line("a", number, f"x{number}") for number in range(1, 20)), "1 lines lost"),
        (b"".join(line("a", number, f"x{number}") for number in (*range(1, 21),)) + line("a", 3, "y3"), "two ids"),
        (b"".join(line("a", number, "x") for number in range(1, 21)), "two lines"),
    ],
    ids=["a line is missing", "a line has two ids", "an id has two lines"],
)
def test_lines(received: bytes, complaint: str) -> None:
    load = settled(received)
    with pytest.raises(AssertionError, match=complaint):
        load.check()


# --- a load


@pytest.mark.parametrize(
    ("happened", "allowed"),
    [
        ({"broken": 1}, "broken"),
        ({"refused": Counter({"SERVER_ERROR away": 1})}, "refused"),
        ({"missed": 1}, "missed"),
    ],
)
def test_what_happened_although_it_may_not_is_found(happened: dict[str, object], allowed: str) -> None:
    caller = EchoCaller(0)
    for name, value in happened.items():
        setattr(caller, name, value)
    load = Load([caller])
    with pytest.raises(AssertionError):
        load.check()
    load.check(**{allowed: True})


def test_a_wrong_answer_is_never_allowed() -> None:
    caller = EchoCaller(0)
    caller.wrong.append("it cannot be")
    with pytest.raises(AssertionError, match="it cannot be"):
        Load([caller]).check(broken=True, refused=True, missed=True)


def test_clients_that_do_not_get_on_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.callers.SILENCE", 0.2)
    with serving(lambda: lambda data: data) as good, serving(lambda: lambda _data: b"") as mute:
        content, stuck = EchoCaller(good), EchoCaller(mute)
        load = Load([content, stuck])
        for caller in load.callers:
            caller.start()
        load.recovered([content])
        with pytest.raises(AssertionError, match=r"not getting on: \{'EchoCaller': 1\}"):
            load.recovered([stuck], within=0.3)
        assert stuck.checked == 0
        load.leave()


# --- crowds


def hear_all(member: Member) -> None:
    while not member.hear():
        pass


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"STORED\r\nVALUE crowd.7 0 3\r\n7.1\r\nEND\r\n", "right"),
        (b"SERVER_ERROR Redis did not answer in time\r\n" * 2, "refused"),
        (b"STORED\r\nVALUE crowd.7 0 3\r\n7.2\r\nEND\r\n", "found"),
        (b"STORED\r\nEND\r\nEND\r\n", "found"),
        (b"SERVER_ERROR no\r\n" * 2, "found"),
    ],
)
def test_a_member_of_a_crowd(said: bytes, outcome: str) -> None:
    with serving(lambda: lambda _data: said) as port:
        member = Member("memcached", port, 7)
        with member.socket:
            member.ask(1)
            if outcome == "found":
                with pytest.raises(AssertionError, match="memcached 7"):
                    hear_all(member)
            else:
                hear_all(member)
                assert member.refused is (outcome == "refused")


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_storm(tmp_path_factory.mktemp("storm"))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param(lambda data: data, "answered", id="the truth"),
        pytest.param(lambda data: data.replace(b"5", b"6"), "wrong", id="a changed byte"),
        pytest.param(lambda _data: b"", "unanswered", id="silence"),
    ],
)
def test_a_storm(storm: Path, answer: Answer, found: str) -> None:
    with serving(lambda: answer) as port:
        command: list[str | Path] = [storm, str(port), "100", "0.3", "1", "storm %d 5", "storm %d 5"]
        told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert told["begun"] == told[found] > 0


def test_a_storm_at_a_closed_door(storm: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        command: list[str | Path] = [storm, str(nobody.getsockname()[1]), "100", "0.3", "1", "?", "!"]
        told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert told["begun"] == told["broken"] > 0
