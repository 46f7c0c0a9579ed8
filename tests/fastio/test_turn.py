"""What surrounds the events of a turn: log contexts, timers, the loop itself; and TLS begun on an open connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.ssl import CertificateOptions, DefaultOpenSSLContextFactory
from twisted.protocols import tls
from twisted.python import context, log
from twisted.python.failure import Failure

from tests.certificates import write_pair
from tests.fastio.talk import REACTORS, Stage, Talker, stage


@pytest.fixture(params=REACTORS, ids=lambda reactor: reactor.__name__)
def on(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage on each reactor."""
    with stage(request.param) as made:
        yield made


def say_go(talker: Talker) -> None:
    talker.transport.write(b"go")


def close(talker: Talker) -> None:
    talker.transport.loseConnection()


def systems(on: Stage) -> dict[str, str]:
    """Who said what the protocols logged."""
    return {event["message"][0]: event["system"] for event in on.logged if event.get("message")}


def test_what_a_protocol_logs_names_its_connection_and_what_a_timer_logs_names_none(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        log.msg("in data")
        on.reactor.callLater(0, later, talker)

    def later(talker: Talker) -> None:
        log.msg("in timer")
        close(talker)

    on.talk(Talker(data=answer, lost=lambda _: log.msg("in lost")), Talker(made=say_go))
    said = systems(on)
    assert said["in data"] == said["in lost"] == "Talker,0,127.0.0.1"
    assert said["in timer"] == "-"
    assert context.get(log.ILogContext) == {"system": "-"}


def test_what_is_logged_after_an_end_in_the_same_event_still_names_the_connection(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        transport = talker.transport
        name = repr(transport)
        transport.loseWriteConnection()
        transport.connectionLost(Failure(ValueError()))
        log.msg("afterwards")
        assert repr(transport) == name

    on.talk(Talker(data=answer), Talker(made=say_go))
    assert systems(on)["afterwards"] == "Talker,0,127.0.0.1"
    assert on.errors == []


def test_a_protocol_whose_log_prefix_is_broken_can_log(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        log.msg("heard")
        if talker.heard == b"go":
            talker.transport.logPrefix = lambda: 1 // 0
            talker.transport.write(b"once more")
        else:
            close(talker)

    server = Talker(data=answer)
    on.talk(server, Talker(made=say_go, data=say_go))
    assert systems(on)["heard"] == "(buggy logPrefix method)"


@pytest.mark.parametrize("how", ["new", "sooner"])
def test_a_timer_set_when_a_connection_ends_is_not_overslept(on: Stage, how: str) -> None:
    fired: list[float] = []
    far = on.reactor.callLater(10, lambda: fired.append(on.reactor.seconds()))

    def lost(talker: Talker) -> None:
        if how == "new":
            far.cancel()
            on.reactor.callLater(0.05, lambda: fired.append(on.reactor.seconds()))
        else:
            far.reset(0.05)
        started.append(on.reactor.seconds())

    started: list[float] = []
    server = Talker(data=lambda talker: on.reactor.callLater(0, close, talker), lost=lost)
    watched = Talker()
    on.connect(on.listen(server), Talker(made=say_go))
    on.reactor.callLater(0.6, watched.ended.callback, None)
    on.run(watched)
    assert len(fired) == 1
    assert fired[0] - started[0] < 0.4


def test_the_loop_ends_at_once_when_a_connection_that_ends_stops_it(on: Stage) -> None:
    server = Talker(data=lambda talker: on.reactor.callLater(0, close, talker), lost=lambda _: on.reactor.crash())
    on.connect(on.listen(server), Talker(made=say_go))
    late = on.reactor.callLater(5, on.reactor.crash)
    on.reactor.run(installSignalHandlers=False)
    assert late.active()
    late.cancel()


def test_text_before_starttls_goes_plain_and_what_follows_encrypted_in_order(
    on: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_get_default_clock", lambda: on.reactor)
    write_pair(tmp_path, "server", None)
    pair = DefaultOpenSSLContextFactory(str(tmp_path / "server.key"), str(tmp_path / "server.pem"))
    blocks = [b"%06d" % number * 1000 for number in range(100)]

    def serve(talker: Talker) -> None:
        if talker.heard == b"go":
            talker.transport.write(b"plain")
            talker.transport.startTLS(pair)
            for block in blocks:
                talker.transport.write(block)
        elif talker.heard == b"gothanks":
            close(talker)

    def hear(talker: Talker) -> None:
        if bytes(talker.heard[:5]) == b"plain" and not talker.transport.TLS:
            talker.transport.startTLS(CertificateOptions())
        elif len(talker.heard) == 5 + sum(map(len, blocks)):
            talker.transport.write(b"thanks")

    server, client = Talker(data=serve), Talker(made=say_go, data=hear)
    on.talk(server, client)
    assert client.heard == b"plain" + b"".join(blocks)
    assert server.heard == b"gothanks"
    assert [server.events[-2], client.events[-2]] == ["ConnectionDone"] * 2
