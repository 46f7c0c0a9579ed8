"""netd with one promise taken out, for tests of the tests: a check that cannot fail convinces nobody.

Each is a program that changes netd as it is imported and then runs twistd; netd itself knows nothing of it.
"""

import sys
from collections.abc import Sequence

NOSYNC = """
import netd.bridge.spoolfile as spoolfile
spoolfile.PRAGMAS = tuple(each.replace("synchronous = FULL", "synchronous = OFF") for each in spoolfile.PRAGMAS)
"""
"""Commits, and does not wait until the disk has them."""

EARLYOK = """
from netd.bridge.publish import PublishConnection

take = PublishConnection._take

def take_and_answer(self, received, size):
    take(self, received, size)
    for share in list(self._pending):
        self.share_done(share)

PublishConnection._take = take_and_answer
"""
"""Answers lines as soon as they are read, before they are committed."""

SABOTAGES = {"nosync": NOSYNC, "earlyok": EARLYOK}

_RUN = "from twisted.scripts.twistd import run\nrun()\n"


def sabotaged(name: str) -> Sequence[str]:
    """The command that stands for twistd."""
    return (sys.executable, "-c", SABOTAGES[name] + _RUN)
