"""How slow this machine is, for tests that hold netd to a figure of processor time that another machine has made."""

import time

WORK = "\n".join(f"def f{number}(a, *b, c={number}):\n    return [a + x for x in b if x > c]" for number in range(400))
SECONDS = 0.0125
"""Processor time that compiling that took where the figures were measured."""


def slowness() -> float:
    """How many times longer than there Python works here just now, and never less than 1."""
    return max(1.0, min(_work() for _ in range(5)) / SECONDS)


def _work() -> float:
    began = time.process_time()
    compile(WORK, "work", "exec")
    return time.process_time() - began
