"""What a store counts, by the names of memcached's `stats`; both dialects report them."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Since the start, or the last `reset`. A get of three keys counts as three."""

    cmd_get: int = 0
    cmd_set: int = 0
    cmd_flush: int = 0
    cmd_touch: int = 0
    get_hits: int = 0
    get_misses: int = 0
    delete_misses: int = 0
    delete_hits: int = 0
    incr_misses: int = 0
    incr_hits: int = 0
    decr_misses: int = 0
    decr_hits: int = 0
    cas_misses: int = 0
    cas_hits: int = 0
    cas_badval: int = 0
    touch_hits: int = 0
    touch_misses: int = 0
    store_too_large: int = 0
    store_no_memory: int = 0

    def read(self) -> dict[str, int]:
        """All of them, by name."""
        return asdict(self)

    def reset(self) -> None:
        """Begin at nought again: `stats reset`, CONFIG RESETSTAT."""
        for name in self.read():
            setattr(self, name, 0)
