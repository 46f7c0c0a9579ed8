"""Three RabbitMQ nodes on one machine, whose quorum queues have a member on each."""

from typing import Self

from tests.bridge.broker_contract import eventually
from tests.servers import GuardedProcess, RabbitServer

NODES = 3


class ClusterNode(RabbitServer):
    """One node; it uses the first one's epmd and cookie."""

    def __init__(self, number: int, first: "ClusterNode | None" = None) -> None:
        super().__init__()
        self.NODE = f"netd{number}@localhost"
        self._first = first
        if first is not None:
            self._epmd_port = first._epmd_port
            self._password = first._password
            cookie = (first.directory / "home/.erlang.cookie").read_text()
            (self.directory / "home/.erlang.cookie").unlink()
            self._write("home/.erlang.cookie", cookie, 0o400)
        config = self.directory / "rabbitmq.conf"
        members = "".join(
            f"cluster_formation.classic_config.nodes.{each} = netd{each}@localhost\n" for each in range(1, NODES + 1)
        )
        config.write_text(
            config.read_text().replace(self._own_password(), self._password)
            + "cluster_formation.peer_discovery_backend = classic_config\n"
            + members
            + "cluster_formation.randomized_startup_delay_range.min = 0\n"
            + "cluster_formation.randomized_startup_delay_range.max = 1\n"
        )

    def _own_password(self) -> str:
        line = next(
            each for each in (self.directory / "rabbitmq.conf").read_text().splitlines() if "default_pass" in each
        )
        return line.partition(" = ")[2]

    def launch(self) -> GuardedProcess:
        """Start it beside the first node's epmd."""
        if self._first is not None:
            self._epmd = self._first._epmd
        return super().launch()

    def close(self) -> None:
        """The epmd ends with the first node."""
        if self._first is not None:
            self._epmd = None
        super().close()


class RabbitCluster:
    """A context: three nodes that know each other."""

    def __init__(self) -> None:
        first = ClusterNode(1)
        self.nodes = [first, *(ClusterNode(number, first) for number in range(2, NODES + 1))]

    def __enter__(self) -> Self:
        try:
            self.nodes[0].start()  # the others then join it, and nobody waits for nobody
            for node in self.nodes[1:]:
                node.start()
            for (
                node
            ) in self.nodes:  # a virtual host that is made before a node has done with starting never comes up there
                node.ctl("await_startup")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.close()

    async def together(self) -> None:
        """All nodes are there, and in one cluster."""
        await eventually(lambda: sum(each["running"] for each in self.nodes[0].api("GET", "/api/nodes")) == NODES)
