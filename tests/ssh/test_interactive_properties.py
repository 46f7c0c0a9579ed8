"""Whatever is typed and however the client behaves, the session goes on or leaves, and nothing goes wrong inside."""

from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from tests.ssh.test_interactive import Operator, Ping

TYPED = st.sampled_from(
    [
        *(
            line.encode()
            for line in ("status", "long", "slow", "count", "close 1", "watch count", "help", "ping", "exit")
        ),
        b"\r",
        b"\r",
        b"y\r",
        b" ",
        b"q",
        b"\t",
        b"\x03",
        b"\x04",
        b"\x12sta",
        b"\x1b[A",
        b"\x1b[200~log level\nwhoami\n\x1b[201~",
    ]
)
STEPS = st.lists(
    st.one_of(
        TYPED,
        TYPED,
        st.binary(max_size=12),
        st.sampled_from(["pause", "resume", "wait", "dismiss", "end of input"]),
        st.tuples(st.integers(0, 90), st.integers(0, 30)),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.sampled_from(["xterm", "dumb", ""]))
def test_nothing_that_is_typed_or_done_goes_wrong(steps: list[bytes | str | tuple[int, int]], term: str) -> None:
    failures: list[LogEvent] = []
    observer = cast("ILogObserver", lambda event: failures.append(event) if "log_failure" in event else None)
    globalLogPublisher.addObserver(observer)
    one = Operator(term=term, programs=Ping())
    one.desk.network.client()
    try:
        for step in steps:
            match step:
                case bytes():
                    one.session.receive(step)
                case "pause":
                    one.session.pause()
                case "resume":
                    one.session.resume()
                case "wait":
                    one.clock.advance(3)
                case "dismiss":
                    one.session.dismiss("hello")
                case "end of input":
                    one.session.end_of_input()
                case (int(width), int(height)):
                    one.terminal.screen.resize(height or 24, width or 80)
                    one.session.resize(width, height)
            one.clock.advance(0)
        one.session.stop()
        one.clock.advance(60)
    finally:
        globalLogPublisher.removeObserver(observer)
    assert not failures
    assert one.left in ([], [0])
    assert len(one.clock.getDelayedCalls()) <= len(one.desk.runtime.services)
