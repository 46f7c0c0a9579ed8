"""The Lua scripts that do on Redis, in one step, what its commands cannot: `scripts/*.lua`."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Literal

Name = Literal["fetch", "put", "delete", "arithmetic", "string"]
NAMES: tuple[Name, ...] = ("fetch", "put", "delete", "arithmetic", "string")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name that Redis gives it once it is loaded."""

    text: bytes
    digest: bytes


@cache
def script(name: Name) -> Script:
    """One of them, read once."""
    directory = files("netd.cache").joinpath("scripts")
    text = b"\n".join(directory.joinpath(f"{part}.lua").read_bytes() for part in ("common", name))
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())
