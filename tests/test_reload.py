"""From one configuration to the next while clients are connected, with services that live in memory."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import capturedLogs, formatEvent

from netd.reload import CannotReload, Difference
from tests.fakes import Client, result_of
from tests.test_daemon import Running

ONE = """
[echo.one]
listen = "127.0.0.1:1001"
"""
TWO = """
[echo.two]
listen = "127.0.0.1:1002"
"""


class Following(Running):
    """A daemon, and the file it follows."""

    def __init__(self, directory: Path, text: str) -> None:
        self.path = directory / "netd.toml"
        self.path.write_text(text)
        super().__init__(self.path)
        self.start()

    def reload(self, text: str) -> Difference:
        self.path.write_text(text)
        difference: Difference = result_of(self.daemon.reload())
        return difference

    def refusal(self, text: str) -> list[str]:
        with pytest.raises(CannotReload) as refused:
            self.reload(text)
        return [reason.replace(f"{self.path}: ", "") for reason in refused.value.reasons]

    def client(self, number: int) -> Client:
        """A client of the port with this number."""
        return self.network.client(port=self.open_ports.index(number))


@pytest.fixture
def following(tmp_path: Path) -> Following:
    return Following(tmp_path, ONE)


def test_an_unchanged_service_keeps_its_connections(following: Following) -> None:
    client = following.client(1001)
    difference = following.reload(ONE + TWO)
    assert difference.document() == {
        "added": ["echo.two"],
        "changed": [],
        "removed": [],
        "untouched": ["echo.one"],
        "warnings": [],
    }
    assert str(difference) == "added echo.two; untouched echo.one"
    assert client.send(b"still here") == b"still here"
    assert following.client(1002).send(b"new") == b"new"


def test_a_changed_limit_applies_in_place(following: Following) -> None:
    client = following.client(1001)
    difference = following.reload(ONE + "max_connections = 1")
    assert difference.document()["changed"] == ["echo.one"]
    assert client.send(b"still here") == b"still here"
    assert following.network.connect() is None
    assert following.open_ports == [1001]


def test_what_is_spoken_on_a_live_port_changes_for_new_clients(following: Following) -> None:
    old = following.client(1001)
    following.reload(ONE + 'transform = "upper"')
    assert following.client(1001).send(b"a") == b"A"
    assert old.send(b"a") == b"a"


def test_a_service_that_cannot_adapt_is_replaced_by_one_of_its_name(following: Following) -> None:
    cache = '[cache.main]\nlisten_memcached = "127.0.0.1:1003"\n'
    following.reload(ONE + cache)
    for size in ("2MiB", "3MiB"):
        old = following.client(1003)
        difference = following.reload(ONE + cache + f'max_memory = "{size}"')
        assert difference.document()["changed"] == ["cache.main"]
        assert old.send(b"mn\r\n") == b"MN\r\n"
        assert following.client(1003).send(b"mn\r\n") == b"MN\r\n"
        following.network.pump([0.2, 0.2, 0.2])
        assert old.gone
        assert [service.key for service in following.daemon] == ["echo.one", "cache.main", "admin"]


def test_an_address_moves_to_another_service_without_being_closed(following: Following) -> None:
    port = following.network.tcpServers[0]
    old = following.client(1001)
    difference = following.reload(ONE.replace("echo.one", "echo.other") + 'transform = "upper"')
    assert (difference.document()["added"], difference.document()["removed"]) == (["echo.other"], ["echo.one"])
    assert following.network.tcpServers == [port]
    assert following.client(1001).send(b"a") == b"A"
    assert old.send(b"a") == b"a"
    following.network.pump([0.2, 0.2])
    assert old.gone
    assert following.client(1001).send(b"a") == b"A"


def test_a_service_that_still_goes_when_the_next_reload_comes_is_stopped_all_the_same(following: Following) -> None:
    """It stayed with its clients for ever, and a bridge kept its spool."""
    following.reload(ONE + TWO)
    client = following.client(1002)
    client.reads = False
    following.reload(ONE)
    following.reload(ONE + "max_connections = 1")
    assert not client.gone
    following.network.pump([10, 0.1])
    assert client.gone
    assert [service.key for service in following.daemon] == ["echo.one", "admin"]


def test_the_daemon_waits_for_a_service_that_was_removed_and_has_not_stopped_yet(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bridge that writes to its spool."""
    following.reload(ONE + TWO)
    (removed,) = (service for service in following.daemon if service.key == "echo.two")
    written: Deferred[None] = Deferred()
    stop = removed.stop

    async def stop_slowly() -> None:
        await written
        await stop()

    monkeypatch.setattr(removed, "stop", stop_slowly)
    following.reload(ONE)
    following.daemon.request_stop("SIGTERM")
    following.network.pump([0.2, 0.2])
    assert following.left == []
    written.callback(None)
    assert following.left == [None]


def test_a_service_that_is_removed_finishes_what_is_in_flight(following: Following) -> None:
    following.reload(ONE + TWO)
    client = following.client(1002)
    following.reload(ONE)
    assert following.open_ports == [1001]
    assert client.send(b"more") == b"more"
    following.network.pump([0.2, 0.2, 0.2])
    assert client.gone
    assert [service.key for service in following.daemon] == ["echo.one", "admin"]


def test_a_mistake_in_the_file_changes_nothing(following: Following) -> None:
    assert following.refusal(ONE + "transfrom = 1\n[echoo.x]") == [
        "echo.one.transfrom: unknown key; did you mean transform?",
        "echoo: unknown kind of service; did you mean echo?",
    ]
    assert following.client(1001).send(b"as before") == b"as before"


def test_a_port_that_cannot_be_opened_changes_nothing_and_closes_what_was_opened(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = following.network.listenTCP

    def refuse(port: int, *more: Any, **options: Any) -> object:
        if port == 1003:
            raise CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))
        return listen(port, *more, **options)

    monkeypatch.setattr(following.network, "listenTCP", refuse)
    three = '[echo.three]\nlisten = "127.0.0.1:1003"\n'
    (reason,) = following.refusal(ONE + "max_connections = 1\n" + TWO + three)
    assert reason.startswith("echo.three.listen: 127.0.0.1:1003: Address already in use; find out by whom")
    assert following.open_ports == [1001]
    first, second = following.client(1001), following.client(1001)
    assert first.send(b"1") + second.send(b"2") == b"12"
    assert [service.key for service in following.daemon] == ["echo.one", "admin"]


def test_a_service_that_fails_in_an_unexpected_way_changes_nothing_and_closes_what_was_opened(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = following.daemon.runtime.ports.open

    async def fail(service: str, key: str, address: Any) -> object:
        if address.port == 1003:
            raise RuntimeError("no idea")
        return await opened(service, key, address)

    monkeypatch.setattr(following.daemon.runtime.ports, "open", fail)
    with capturedLogs() as events:
        reasons = following.refusal(ONE + TWO + '[echo.three]\nlisten = "127.0.0.1:1003"\n')
    assert reasons == ["echo.three: unexpected error: no idea; the log has more"]
    (failure,) = (event["log_failure"] for event in events if "log_failure" in event)
    failure.trap(RuntimeError)
    assert following.open_ports == [1001]


def test_an_address_that_overlaps_an_open_one_needs_a_restart(following: Following) -> None:
    (reason,) = following.refusal(TWO.replace("127.0.0.1:1002", "0.0.0.0:1001") + "open = true")
    assert reason == "echo.two.listen: 0.0.0.0:1001 overlaps 127.0.0.1:1001, open as echo.one.listen: needs a restart"


def test_what_is_in_force_for_the_life_of_the_process_needs_a_restart(following: Following) -> None:
    reasons = following.refusal('[daemon]\nfastio = false\nstate_dir = "elsewhere"\n[log]\nformat = "json"\n' + ONE)
    assert reasons == [
        f"daemon.state_dir: {following.path.parent}/state to {following.path.parent}/elsewhere: needs a restart",
        "daemon.fastio: needs a restart",
        "log.format: needs a restart",
    ]


def test_general_settings_apply_at_once(following: Following) -> None:
    difference = following.reload('[daemon]\ndrain_timeout = "1s"\n[log]\nlevel = "debug"\n' + ONE)
    assert difference.general == ["daemon.drain_timeout", "log.level"]
    assert following.daemon.runtime.log.level == "debug"
    client = following.client(1001)
    client.reads = False
    following.daemon.request_stop("SIGTERM")
    following.network.pump([1.0, 0.1])
    assert client.gone


def test_reloads_go_one_at_a_time_and_never_while_stopping(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: Deferred[None] = Deferred()
    listen = following.daemon.runtime.ports.open

    async def wait(*wanted: Any) -> object:
        await slow
        return await listen(*wanted)

    monkeypatch.setattr(following.daemon.runtime.ports, "open", wait)
    following.path.write_text(ONE + TWO)
    first = Deferred.fromCoroutine(following.daemon.reload())
    assert following.refusal(ONE + TWO) == ["a reload is under way: try again when it is done"]
    following.daemon.request_stop("SIGTERM")
    slow.callback(None)
    failed = first.result
    first.addErrback(lambda failure: failure.trap(CannotReload))
    assert "the daemon is stopping" in str(failed)
    assert following.open_ports == []


def test_a_reload_that_has_begun_ends_though_who_asked_for_it_goes_away(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As netdctl at Ctrl-C: it left a port open that nobody served, and a spool that nobody closed."""
    slow: Deferred[None] = Deferred()
    listen = following.daemon.runtime.ports.open

    async def wait(service: str, key: str, address: Any) -> object:
        if address.port == 1003:
            await slow
        return await listen(service, key, address)

    monkeypatch.setattr(following.daemon.runtime.ports, "open", wait)
    following.path.write_text(ONE + TWO + '[echo.three]\nlisten = "127.0.0.1:1003"\n')
    asked = Deferred.fromCoroutine(following.daemon.reload())
    asked.cancel()
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    slow.callback(None)
    assert following.client(1002).send(b"2") + following.client(1003).send(b"3") == b"23"
    assert [service.key for service in following.daemon] == ["echo.one", "echo.two", "echo.three", "admin"]


def test_a_hangup_while_a_reload_is_under_way_is_answered_in_the_log(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: Deferred[None] = Deferred()

    async def wait(*_: Any) -> None:
        await slow

    monkeypatch.setattr(following.daemon.runtime.ports, "open", wait)
    following.path.write_text(ONE + TWO)
    following.daemon.request_reload("SIGHUP")
    with capturedLogs() as events:
        following.daemon.request_reload("SIGHUP")
    [told] = map(formatEvent, events)
    assert told == "SIGHUP: not reloaded: a reload is under way: try again when it is done"


def test_a_hangup_reloads_and_the_log_has_the_answer(following: Following) -> None:
    following.path.write_text(ONE + TWO)
    following.daemon.request_reload("SIGHUP")
    assert following.client(1002).send(b"new") == b"new"
    following.path.write_text("nonsense")
    following.daemon.request_reload("SIGHUP")
    assert following.client(1002).send(b"old") == b"old"


# --- drain and resume


def test_a_drain_goes_on_though_who_asked_for_it_goes_away(following: Following) -> None:
    """Ctrl-C at `netdctl drain` cut every client."""
    client = following.client(1001)
    client.reads = False
    asked = Deferred.fromCoroutine(following.daemon.drain_services(["echo.one"]))
    asked.cancel()
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    following.network.pump([0.2, 0.2, 0.2])
    assert not client.gone
    following.network.advance(10)
    following.network.pump([0.1])
    assert client.gone


def test_a_drained_service_takes_nothing_new_until_it_is_resumed(following: Following) -> None:
    following.reload(ONE + TWO)
    client = following.client(1001)
    draining = Deferred.fromCoroutine(following.daemon.drain_services(["echo.one"]))
    assert following.open_ports == [1002]
    assert client.send(b"in flight") == b"in flight"
    following.network.pump([0.2, 0.2, 0.2])
    assert client.gone
    assert draining.called
    assert following.refusal(ONE + "max_connections = 1\n" + TWO) == ["echo.one is drained: resume it first"]
    result_of(following.daemon.resume_services(["echo.one"]))
    assert following.client(1001).send(b"back") == b"back"


def test_a_drain_cuts_who_does_not_finish(following: Following) -> None:
    client = following.client(1001)
    client.reads = False
    draining = Deferred.fromCoroutine(following.daemon.drain_services(["echo.one"]))
    following.network.pump([0.2] * 60)
    assert client.gone
    assert draining.called


def test_ports_stay_open_for_the_drain_delay_while_services_say_that_they_go(following: Following) -> None:
    following.reload('[daemon]\ndrain_delay = "5s"\n' + ONE)
    following.daemon.request_stop("SIGTERM")
    following.network.advance(4.9)
    service, admin = following.daemon
    assert (admin.draining, service.draining) == (False, True)
    assert following.client(1001).send(b"late") == b"late"
    following.network.pump([0.2, 0.2, 0.2])
    assert following.left == [None]


def test_a_second_request_to_stop_cuts_the_delay_too(following: Following) -> None:
    following.reload('[daemon]\ndrain_delay = "60s"\n' + ONE)
    following.daemon.request_stop("SIGTERM")
    following.daemon.request_stop("SIGTERM")
    following.network.pump([0])
    assert following.left == [None]
