"""Runs Twisted's own test cases on one reactor and prints what came of each: python twisted_cases.py REACTOR MODULE…

A program, because it installs the reactor, and Twisted's ReactorBuilder then replaces that by others of its kind. The
cases leave directories named after them where they run.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from twisted.internet.main import installReactor
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.python.reflect import namedAny
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import TestSuite

CASE_TIMEOUT = 60.0
"""Seconds; the longest takes two on a machine that has time."""

CANNOT_APPLY = {
    "twisted.internet.test.test_fdset.ReactorFDSetTestsBuilder.test_lostFileDescriptor": (
        "closing a descriptor takes it out of epoll without a word; Twisted skips it for a class named EPollReactor"
    ),
}
"""Cases that are not run, on any reactor, with the reason."""


def outcomes(reactor: str, modules: list[str]) -> dict[str, str]:
    """The outcome of each case: "passed", "skipped: why" or "failed: traceback"."""
    installReactor(namedAny(reactor)())
    ReactorBuilder._reactors = [reactor]  # read when the modules below make their classes
    suffix = f"_{reactor.rsplit('.', 1)[1]}Tests"
    loader = TestLoader()
    found: dict[str, str] = {}
    for name in modules:
        for case in _cases(loader.loadModule(namedAny(name))):
            builder, method = type(case).__name__.removesuffix(suffix), case.id().rsplit(".", 1)[1]
            key = f"{name}.{builder}.{method}"
            if key in CANNOT_APPLY:
                continue
            case.timeout = CASE_TIMEOUT
            result = TestResult()
            case(result)
            found[key] = _outcome(result)
    return found


def _cases(suite: TestSuite) -> Iterator[Any]:
    for each in suite:
        if isinstance(each, TestSuite):
            yield from _cases(each)
        else:
            yield each


def _outcome(result: TestResult) -> str:
    bad = [str(text) for _, text in [*result.failures, *result.errors, *result.unexpectedSuccesses]]
    if bad:
        return f"failed: {bad[0]}"
    if result.skips:
        return f"skipped: {result.skips[0][1]}"
    return "passed"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answer = json.dumps(outcomes(sys.argv[1], sys.argv[2:]))
    print(answer, file=sys.__stdout__)
