"""Whatever happens in whatever order, a line that was answered `+OK` reaches the broker or the dead letters.

The machine sends lines, lets the spool's thread work or fail (before it has done anything, or after all of it), has the
broker answer, lose its connection and come back, and lets netd die at any moment, to begin again on the files as they
are then.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from netd.bridge import lane as lane_module
from netd.bridge import spoolfile
from netd.bridge.broker import Outcome
from tests.bridge.workbench import Workbench, ranges

ENDINGS = st.sampled_from(["", "", "", "before", "after"])


class Crashes(RuleBasedStateMachine):
    """netd, its spool and a broker."""

    def __init__(self) -> None:
        super().__init__()
        self.saved = {name: getattr(lane_module, name) for name in ("WINDOW", "RECENT_SIZE", "READ_SIZE")}
        lane_module.WINDOW, lane_module.RECENT_SIZE, lane_module.READ_SIZE = 8, 600, 300
        self.saved_file = spoolfile.RESERVE, spoolfile.CHECKPOINT_SIZE
        spoolfile.RESERVE, spoolfile.CHECKPOINT_SIZE = 12 * spoolfile.SMALLEST_CHANGE, 3 * spoolfile.SMALLEST_CHANGE
        memory = Path("/dev/shm")
        self.directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.incarnation = 0
        self.lines = 0
        self.promised: set[bytes] = set()
        self.confirmed: set[bytes] = set()
        self.ids: dict[str, bytes] = {}
        self.highest = 0
        self.sent: list[bytes] = []

    @initialize(confirmed=st.booleans())
    def begin(self, confirmed: bool) -> None:
        self.waits = confirmed
        self.bench = Workbench(self.directory / "0.spool", confirmed=confirmed)

    def teardown(self) -> None:
        try:
            if hasattr(self, "bench"):
                self.settle_everything()
                self.bench.close()
        finally:
            for name, value in self.saved.items():
                setattr(lane_module, name, value)
            spoolfile.RESERVE, spoolfile.CHECKPOINT_SIZE = self.saved_file
            shutil.rmtree(self.directory)

    # --- what happens

    @rule(count=st.integers(1, 6), size=st.integers(1, 200), endings=st.lists(ENDINGS, max_size=4))
    def lines_arrive(self, count: int, size: int, endings: list[str]) -> None:
        bodies = []
        for _ in range(count):
            self.lines += 1
            bodies.append(b"%d:" % self.lines + b"x" * size)
        self.sent += bodies
        self.bench.send(*bodies)
        self.bench.turn()
        for failing in endings:
            self.the_thread_works(failing)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.turn(seconds)

    @rule(failing=ENDINGS)
    def the_thread_works(self, failing: str) -> None:
        if self.bench.thread.jobs:
            self.bench.thread.run(failing)
            self.bench.turn()

    @precondition(lambda self: self.bench.wire.unsettled)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.CONFIRMED] * 3 + [Outcome.RETURNED, Outcome.REFUSED]))
    def the_broker_answers(self, data: st.DataObject, outcome: Outcome) -> None:
        first, last = data.draw(st.sampled_from(ranges(sorted(self.bench.wire.unsettled))))
        first = data.draw(st.integers(first, last))
        last = data.draw(st.integers(first, last))
        settled = self.bench.wire.settle(first, last, outcome, "" if outcome is Outcome.CONFIRMED else "why")
        if outcome is Outcome.CONFIRMED:
            self.confirmed |= {body for _, body in settled}

    @rule()
    def somebody_asks_whether_all_is_committed(self) -> None:
        self.bench.spool.flushed()

    @precondition(lambda self: self.bench.wire.ready)
    @rule()
    def the_broker_goes_away(self) -> None:
        self.bench.wire.lose()

    @precondition(lambda self: not self.bench.wire.ready)
    @rule()
    def the_broker_comes_back(self) -> None:
        self.bench.wire.open()

    @rule()
    def netd_dies(self) -> None:
        self.note()
        self.incarnation += 1
        self.sent = []
        self.bench = self.bench.crash(self.directory / f"{self.incarnation}.spool", confirmed=self.waits)

    # --- what holds

    @invariant()
    def note(self) -> None:
        """Gather what was promised, and look at what was published."""
        if not hasattr(self, "bench"):
            return
        for upto in self.bench.client.done:
            self.promised |= set(self.sent[:upto] if not self.waits else [])
        if self.waits:
            self.promised |= self.confirmed
        for netd_id, body in self.bench.wire.published:
            assert self.ids.setdefault(netd_id, body) == body, "two messages with one id"

    @invariant()
    def what_is_published_is_on_disk(self) -> None:
        if hasattr(self, "bench") and not self.bench.spool.problem:
            lane = self.bench.lane
            assert lane.durable + lane.row.next - 1 >= max(self.bench.wire.unsettled, default=0)
            assert len(self.bench.wire.unsettled) <= 8 + 6 * 200

    def settle_everything(self) -> None:
        """In the end the broker is there and takes everything, and nothing is left."""
        self.note()
        bench = self.bench
        if not bench.wire.ready:
            bench.wire.open()
        for _ in range(500):
            bench.finish(1)
            if not bench.lane.backlog and not bench.thread.jobs and not bench.spool.waiting:
                break
            bench.turn(31)
            for first, last in ranges(sorted(bench.wire.unsettled)):
                self.confirmed |= {body for _, body in bench.wire.settle(first, last, Outcome.CONFIRMED)}
        bench.finish(1)
        bench.finish(1)
        self.note()
        dead = {letter.body for letter in bench.dead()}
        assert self.promised <= self.confirmed | dead, "a line was lost"
        assert (bench.lane.backlog, bench.spool.waiting) == (0, 0)
        assert bench.rows() == 0


Crashes.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCrashes = Crashes.TestCase
