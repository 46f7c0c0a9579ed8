"""Twisted's own cases for reactors, TCP, TLS and producers, on the fast reactor and on stock epoll in the same run."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.fastio.twisted_cases import CANNOT_APPLY

PROGRAM = Path(__file__).with_name("twisted_cases.py")
TIMEOUT = 300.0
"""Seconds for all cases on one reactor; nine on a machine that has time."""

FAST, STOCK = "netd.fastio.reactor.FastReactor", "twisted.internet.epollreactor.EPollReactor"

MODULES = [
    *(
        f"twisted.internet.test.test_{name}"
        for name in (
            *("tcp", "tls", "newtls", "unix", "udp", "socket", "endpoints", "fdset", "posixbase"),
            *("base", "core", "time", "threads", "process", "sigchld", "stdio"),
        )
    ),
    *(
        f"twisted.test.test_{name}"
        for name in ("tcp", "ssl", "sni", "internet", "unix", "udp", "threads", "policies", "protocols", "loopback")
    ),
    "twisted.test.test_amp",
    "twisted.protocols.test.test_tls",
]

DIFFERS = {
    "twisted.test.test_tcp.LoopbackTests.test_tcpNoDelay": (
        "expects Nagle's algorithm at work until it is turned off; fastio turns it off for every connection"
    ),
}
"""Cases that pass on stock epoll and not on the fast reactor, with the reason."""

_AS_ROOT = "run by root, it starts this interpreter as another user, who may not be let into its directory"
MAY_FAIL = {
    "twisted.internet.test.test_process.ProcessTestsBuilder.test_changeUID": _AS_ROOT,
    "twisted.internet.test.test_process.PTYProcessTestsBuilder.test_changeUID": _AS_ROOT,
}
"""Cases that stock epoll does not pass on every machine either, with the reason."""

Outcomes: TypeAlias = dict[str, str]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Outcomes]:
    """What came of each case on the fast reactor, and on stock epoll."""
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, PROGRAM, reactor, *MODULES],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=tmp_path_factory.mktemp("cases"),
                )
            )
            for reactor in (FAST, STOCK)
        ]
        try:
            answers = [run.communicate(timeout=TIMEOUT) for run in runs]
        finally:
            for run in runs:
                run.kill()
    for run, (_, said) in zip(runs, answers, strict=True):
        assert run.returncode == 0, said.decode()[-2000:]
    fast, stock = (json.loads(answer) for answer, _ in answers)
    return fast, stock


def test_every_module_has_cases(outcomes: tuple[Outcomes, Outcomes]) -> None:
    fast, _ = outcomes
    assert [module for module in MODULES if not any(case.startswith(f"{module}.") for case in fast)] == []
    assert len(fast) > 900


def test_each_case_ends_on_the_fast_reactor_as_on_stock_epoll(outcomes: tuple[Outcomes, Outcomes]) -> None:
    fast, stock = outcomes
    assert fast.keys() == stock.keys()
    differing = [case for case in fast if _how(fast[case]) != _how(stock[case]) and case not in DIFFERS]
    assert {case: (fast[case], stock[case]) for case in differing} == {}


def test_the_known_differences_are_still_there(outcomes: tuple[Outcomes, Outcomes]) -> None:
    fast, stock = outcomes
    assert {case: (_how(fast[case]), _how(stock[case])) for case in DIFFERS} == dict.fromkeys(
        DIFFERS, ("failed", "passed")
    )
    assert not CANNOT_APPLY.keys() & fast.keys()


def test_what_stock_epoll_fails_is_known(outcomes: tuple[Outcomes, Outcomes]) -> None:
    _, stock = outcomes
    assert {case: why for case, why in stock.items() if _how(why) == "failed" and case not in MAY_FAIL} == {}


def _how(outcome: str) -> str:
    return outcome.partition(":")[0]
