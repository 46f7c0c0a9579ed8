"""One target under atheris, in a process of its own: python -m fuzz.explore NAME FINDINGS [libFuzzer's arguments].

What the target raises is noted in the file FINDINGS, once for each error and place, and the search goes on.
"""

import random
import shlex
import sys
from pathlib import Path

import atheris

from fuzz import inputs

REPEATED = 0.1
"""Of the mutations, how many repeat a piece; libFuzzer has none that does."""
LONGEST_PIECE, MOST_DOUBLINGS = 16, 8

AFTER_A_HANG = 0.1
"""Seconds that inputs may take once one was found that takes too long: there will be many."""

INSTRUMENTED = ["netd", "tomllib", "json", "ipaddress", "twisted.web.http", "twisted.conch.ssh"]


def main() -> None:
    """Search until libFuzzer's limits are reached."""
    name, findings, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from fuzz.target import PATIENCE, Hang, be_quiet, bounded_memory, describe, examine, load  # noqa: PLC0415 - they import what is to be instrumented

        be_quiet()
        check = load(name).check
    seen: set[str] = set()
    patience = PATIENCE

    def one(data: bytes) -> None:
        nonlocal patience
        error = examine(check, data, patience)
        if error is None or (isinstance(error, Hang) and patience < PATIENCE):
            return
        if isinstance(error, Hang):
            patience = AFTER_A_HANG
        remark = describe(error)
        if remark not in seen:
            seen.add(remark)
            inputs.add(Path(findings), {remark: data})
            print(f"FOUND {remark}: {error!s:.200}", file=sys.stderr, flush=True)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 - no secret
        if data and chance.random() < REPEATED:
            return repeat(data, chance)[:most]
        mutated: bytes = atheris.Mutate(data, most)
        return mutated

    # libFuzzer starts itself anew to merge: a line for the shell, made of its first argument and of options.
    again = shlex.join([sys.executable, "-m", "fuzz.explore", name, findings])
    atheris.Setup([again, *options], one, custom_mutator=mutate, enable_python_coverage=True)
    with bounded_memory():
        atheris.Fuzz()


def repeat(data: bytes, chance: random.Random) -> bytes:
    """The same with a piece of it many times: what takes more time than it should does so in repetitions."""
    start = chance.randrange(len(data))
    piece = data[start : start + chance.randint(1, LONGEST_PIECE)]
    return data[:start] + piece * (1 << chance.randint(1, MOST_DOUBLINGS)) + data[start:]


if __name__ == "__main__":
    main()
