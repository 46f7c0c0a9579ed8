"""What strace saw of a daemon: whether a `+OK` left before the sync that covers its line had returned.

The lines are `<client.number>`, so that they are known wherever they are read or written.
"""

import re
from collections.abc import Iterator

TRACE = ["-s", "1000000", "-e", "trace=recvfrom,sendto,pwrite64,fdatasync"]
"""strace's options for it, beside -f and -y. It must be attached before the first client connects."""


def calls(trace: str) -> Iterator[tuple[str, str]]:
    """Thread and call of each line, reads that another thread's call stands within put together again."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith("recvfrom") and call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>")
        elif match := re.match(r"<\.\.\. recvfrom resumed>(.*)", call):
            call = begun.pop(thread, "") + match[1]
        yield thread, call


def early_replies(trace: str) -> tuple[int, list[str]]:
    """How many `+OK` a trace has, and those that left before a sync returned that began after their line was written.

    A line is `<client.number>`; it counts as written once it was seen in a write to the log of changes, with nothing
    but a page's end within it, and as synced when a sync of that file that began later has returned.
    """
    log = r"\(\d+<[^>]*-wal>"
    written: set[str] = set()
    synced: set[str] = set()
    syncing: dict[str, set[str]] = {}
    received: dict[str, list[str]] = {}
    replies, early = 0, []
    for thread, call in calls(trace):
        if match := re.match(r'recvfrom\((\d+)<[^>]*>,\s+"(.*)", \d+, 0, NULL, NULL\) = [1-9]', call):
            received.setdefault(match[1], []).extend(re.findall(r"<\d+\.\d+>", match[2]))
        elif match := re.match(rf'pwrite64{log}, "(.*)", \d+, \d+', call):
            written |= set(re.findall(r"<\d+\.\d+>", match[1]))
        elif re.match(rf"fdatasync{log}\)\s+= 0", call):
            synced |= written
        elif re.match(rf"fdatasync{log} <unfinished", call):
            syncing[thread] = set(written)
        elif re.match(r"<\.\.\. fdatasync resumed>\)\s+= 0", call):
            synced |= syncing.pop(thread, set())
        elif match := re.match(r'sendto\((\d+)<[^>]*>, "\+OK (\d+)\\n"', call):
            replies += 1
            line_answered = received[match[1]][int(match[2]) - 1]
            if line_answered not in synced:
                early.append(call)
    return replies, early
