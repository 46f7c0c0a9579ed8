"""The network between clients and every door: nothing is false or lost, and nobody else notices."""

import pytest

from tests.faults.conftest import Tell
from tests.faults.network import CASES, Fault
from tests.faults.world import DOORS, World

OTHERS_WAIT = 10.0
"""Seconds that anybody else's exchange may take meanwhile, on a machine that is busy with the load itself."""
WHERE = {"up": "what clients send", "down": "what clients are sent", "both": "connections"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("fault", "direction"), CASES)
def test_at_a_door(world: World, tell: Tell, door: str, fault: Fault, direction: str) -> None:
    with world.unharmed() as others, world.load(door) as load:
        fault.befall(world.proxies[door], direction)
        took = load.recovered()
        others.recovered()
        load.settle()
    load.check(broken=fault.breaks)
    assert load.broken or not fault.breaks or not load.callers, "nothing broke: this was no fault"
    assert others.slowest < OTHERS_WAIT
    tell(f"{door}: {WHERE[direction]} {fault.name}", load.said(), took, f"others {others.slowest:.2f} s at most")
