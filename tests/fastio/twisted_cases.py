"""Runs Twisted's own reactor tests on one reactor and prints what came of each: python twisted_cases.py REACTOR MODULE…

A program, because Twisted's ReactorBuilder replaces the global reactor while it works.
"""

import json
import sys
import warnings
from importlib import import_module

from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase

CASE_TIMEOUT = 10.0
"""Seconds; the longest takes two."""


def outcomes(reactor: str, modules: list[str]) -> dict[str, str]:
    """The outcome of each case: "passed", "skipped: why" or "failed: traceback"."""
    ReactorBuilder._reactors = [reactor]  # read when the modules below make their classes
    suffix = f"_{reactor.rsplit('.', 1)[1]}Tests"
    found: dict[str, str] = {}
    loader = TestLoader()
    for name in modules:
        for attribute, case in sorted(vars(import_module(name)).items()):
            if not attribute.endswith(suffix) or not issubclass(case, SynchronousTestCase):
                continue
            case.timeout = CASE_TIMEOUT
            for test in loader.loadClass(case):
                result = TestResult()
                test(result)
                key = f"{name}.{attribute.removesuffix(suffix)}.{test.id().rsplit('.', 1)[1]}"
                bad = [text for _, text in [*result.failures, *result.errors]]
                if bad:
                    found[key] = f"failed: {bad[0]}"
                elif result.skipped:
                    found[key] = f"skipped: {result.skipped[0][1]}"
                else:
                    found[key] = "passed"
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.__stdout__.write(json.dumps(outcomes(sys.argv[1], sys.argv[2:])))  # type: ignore[union-attr]
