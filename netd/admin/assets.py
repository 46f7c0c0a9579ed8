"""The page: files of the package, read once when the daemon starts."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable

from netd.admin.http import AdminRequest
from netd.admin.site import Answer

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}


def assets() -> Mapping[bytes, Answer]:
    """An answer for each file, by its path; the page itself is at /."""
    return {path: partial(_answer, content, content_type) for path, content, content_type in _files()}


def _files() -> Iterator[tuple[bytes, bytes, bytes]]:
    root = files("netd.admin") / "page"
    for path, file in _walk(root, ""):
        content_type = _TYPES[path[path.rindex(".") :]]
        yield (b"/" if path == "index.html" else b"/" + path.encode()), file.read_bytes(), content_type


def _walk(directory: Traversable, above: str) -> Iterator[tuple[str, Traversable]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{above}{entry.name}/")
        else:
            yield above + entry.name, entry


def _answer(content: bytes, content_type: bytes, request: AdminRequest) -> None:
    """The file, or nothing where the browser has it already. It asks each time: a new netd may bring a new page."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    known = request.getHeader(b"if-none-match") == tag.encode()
    request.respond(304 if known else 200, b"" if known else content, content_type, Cache_Control="no-cache", ETag=tag)
