"""Search for inputs that make a codec fail: python -m fuzz [CODEC ...] [--seconds 600].

For each codec it prints how many inputs were tried, how quickly, how many edges of the code they reach together, and
what was found. What reaches most is kept in fuzz/corpus, what failed in fuzz/findings: `make test` tries both again.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fuzz import inputs
from fuzz.target import Target, be_quiet, examine, load, names

HEAD = f"{'codec':<16}{'inputs':>12}{'per second':>12}{'edges':>8}{'corpus':>8}{'findings':>10}"
MOST_KEPT = 200
"""Inputs kept for a codec, the short ones first: all of them are tried by `make test`."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search came to."""

    name: str
    executions: int
    per_second: int
    edges: int
    kept: int
    findings: list[str]

    def __str__(self) -> str:
        counts = f"{self.executions:>12,}{self.per_second:>12,}{self.edges:>8,}{self.kept:>8}{len(self.findings):>10}"
        return f"{self.name:<16}{counts}" + "".join(f"\n    {finding}" for finding in self.findings)


class SearchFailed(Exception):
    """The fuzzer itself came to a bad end; the text is the last that it said."""


def search(name: str, seconds: int) -> Search:
    """Try inputs for so many seconds; keep the corpus and what was found."""
    target = load(name)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        work = Path(made)
        corpus, merged, words = work / "corpus", work / "merged", work / "words"
        _unpack(name, corpus)
        merged.mkdir()
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS), "ascii")
        limits = [f"-max_len={target.LONGEST}", f"-artifact_prefix={work}/", "-timeout=60", "-rss_limit_mb=4096"]
        told = _explore(
            name,
            inputs.findings_of(name),
            [str(corpus), f"-dict={words}", f"-max_total_time={seconds}", "-print_final_stats=1", *limits],
        )
        _explore(name, Path(os.devnull), ["-set_cover_merge=1", str(merged), str(corpus), *limits])
        kept = _keep(name, target, merged)
        return Search(
            name,
            _number(r"stat::number_of_executed_units: (\d+)", told),
            _number(r"stat::average_exec_per_sec: +(\d+)", told),
            _number(r"cov: (\d+)", told),
            kept,
            re.findall(r"^FOUND (.*)$", told, re.MULTILINE),
        )


def _unpack(name: str, corpus: Path) -> None:
    corpus.mkdir()
    known = inputs.read(inputs.corpus_of(name)) + inputs.read(inputs.findings_of(name))
    for number, data in enumerate(known):
        (corpus / str(number)).write_bytes(data)


def _keep(name: str, target: Target, directory: Path) -> int:
    """Keep what the merge has left, of what passes."""
    found = sorted((path.read_bytes() for path in directory.iterdir()), key=len)
    kept = [data for data in found if examine(target.check, data) is None][:MOST_KEPT]
    inputs.write(inputs.corpus_of(name), kept)
    return len(kept)


def _explore(name: str, findings: Path, options: list[str]) -> str:
    command = [sys.executable, "-m", "fuzz.explore", name, str(findings), *options]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)  # noqa: S603 - ourselves
    told = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise SearchFailed(f"{name}: exit status {done.returncode}\n{told[-2000:]}")
    return told


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _number(pattern: str, told: str) -> int:
    found = re.findall(pattern, told)
    return int(found[-1]) if found else 0


def main() -> None:
    """Search for all codecs named, one after the other."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("codec", nargs="*", help="; ".join(names()))
    parser.add_argument("--seconds", type=int, default=600, help="for each codec (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.codec) - set(names()):
        parser.error(f"no such codec: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    be_quiet()
    print(HEAD, flush=True)
    found = False
    for name in options.codec or names():
        done = search(name, options.seconds)
        print(done, flush=True)
        found = found or bool(done.findings)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
