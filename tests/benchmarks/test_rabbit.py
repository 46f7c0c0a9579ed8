"""The clients that netd's bridge is measured beside: each sends and takes what it says."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.rabbit import QUEUE, Peers
from benchmarks.runner import HERE, Peer
from tests.servers import HOST, RabbitServer, VirtualHost

PEERS = Peers()
COUNT = 300


def run(peer: Peer, mode: str, vhost: VirtualHost, *, build: Path | None = None) -> dict[str, float]:
    names = {"mode": mode, "url": vhost.url, "host": HOST, "port": str(vhost.port), "user": vhost.user}
    names |= {"password": vhost.password, "vhost": vhost.name, "queue": QUEUE, "size": "100", "count": str(COUNT)}
    argv = [part.format_map(names | {"window": "100"}) for part in peer.argv]
    if build is not None:
        argv[0] = str(build / Path(argv[0]).name)
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60, cwd=HERE.parent)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


@pytest.fixture
def queue(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> str:
    rabbit_server.make_quorum_queue(rabbit_vhost, QUEUE)
    return f"/api/queues/{rabbit_vhost.name}/{QUEUE}"


@pytest.mark.parametrize("peer", [PEERS.twisted, PEERS.blocking], ids=lambda peer: peer.name)
def test_clients_in_python_publish_and_consume_what_they_count(
    peer: Peer, rabbit_vhost: VirtualHost, rabbit_server: RabbitServer, queue: str
) -> None:
    assert run(peer, "publish", rabbit_vhost)["messages"] == COUNT
    ask = {"count": COUNT + 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    assert len(rabbit_server.api("POST", queue + "/get", ask)) == COUNT
    taken = run(peer, "consume", rabbit_vhost)
    assert taken["messages"] == COUNT
    assert taken["cpu_seconds"] > 0
    assert rabbit_server.api("POST", queue + "/get", ask) == []


def test_the_client_in_c_publishes_and_consumes_what_it_counts(
    rabbit_vhost: VirtualHost, rabbit_server: RabbitServer, queue: str, tmp_path: Path
) -> None:
    subprocess.run(["make", "--silent", "-C", HERE, f"BUILD={tmp_path}", f"{tmp_path}/rabbitload"], check=True)
    assert run(PEERS.c, "publish", rabbit_vhost, build=tmp_path)["messages"] == COUNT
    ask = {"count": COUNT + 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    assert len(rabbit_server.api("POST", queue + "/get", ask)) == COUNT
    assert run(PEERS.c, "consume", rabbit_vhost, build=tmp_path)["messages"] == COUNT
    assert rabbit_server.api("POST", queue + "/get", ask) == []
