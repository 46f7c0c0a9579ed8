"""Waiting for what comes about in another thread or process."""

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds for what takes milliseconds where there is time."""
LOOK = 0.01


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether the condition comes to hold in time. Once it has held it is not asked again: it may not hold for long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK)
    return True
