r"""Files of inputs: one a line, as Python would write the bytes (\r, \x00, \\). A line that begins with # is a remark.

So the corpus of a codec is one file, and its changes can be read.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent


def corpus_of(name: str) -> Path:
    """Where the inputs of a target are kept that together reach all of it that is reached."""
    return HERE / "corpus" / f"{name}.txt"


def findings_of(name: str) -> Path:
    """Where the inputs are kept that once made it fail."""
    return HERE / "findings" / f"{name}.txt"


def read(path: Path) -> list[bytes]:
    """The inputs of a file; none when it is not there."""
    lines = path.read_text("ascii").splitlines() if path.exists() else []
    return [_decode(line) for line in lines if line and not line.startswith("#")]


def write(path: Path, inputs: Iterable[bytes]) -> None:
    """Write inputs, the short ones first."""
    ordered = sorted(set(inputs) - {b""}, key=lambda data: (len(data), data))
    path.write_text("".join(f"{_encode(data)}\n" for data in ordered), "ascii")


def add(path: Path, findings: Mapping[str, bytes]) -> None:
    """Add inputs, each under a remark."""
    known = set(read(path))
    with path.open("a", encoding="ascii") as file:
        for remark, data in findings.items():
            if data not in known:
                file.write(f"# {ascii(remark)[1:-1]}\n{_encode(data)}\n")


def _encode(data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text.replace("#", r"\x23", 1) if text.startswith("#") else text


def _decode(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")
