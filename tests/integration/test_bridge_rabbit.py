"""The bridge between nc and programs that use pika, over a real RabbitMQ."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.certificates import issue, pem
from tests.netd_process import NETDCTL, Netd, running
from tests.servers import RabbitServer, VirtualHost, reserve_port

PORTS = ["publish.hello", "publish.keys", "publish.sure", "subscribe.hello"]
PATIENCE = 20.0

SEND = """
import sys, pika
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.queue_declare(queue="hello")
channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
connection.close()
"""
"""As in RabbitMQ's own first tutorial."""

RECEIVE = """
import sys, pika
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.queue_declare(queue="hello")

def callback(ch, method, properties, body):
    print(f" [x] Received {body}", flush=True)

channel.basic_consume(queue="hello", on_message_callback=callback, auto_ack=True)
print(" [*] Waiting for messages.", flush=True)
channel.start_consuming()
"""


def config(vhost: VirtualHost) -> str:
    return f"""
[bridge.main]
broker = "{vhost.url}"
[bridge.main.publish.hello]
listen = "127.0.0.1:0"
routing_key = "hello"
[bridge.main.publish.keys]
listen = "127.0.0.1:0"
exchange = "amq.topic"
framing = "key-tab"
[bridge.main.publish.sure]
listen = "127.0.0.1:0"
exchange = "amq.direct"
routing_key = "sure"
reply = "confirmed"
[bridge.main.subscribe.hello]
listen = "127.0.0.1:0"
queue = "hello"
"""


@pytest.fixture
def netd(rabbit_vhost: VirtualHost, tmp_path: Path) -> Iterator[Netd]:
    with running(tmp_path, config(rabbit_vhost)) as netd:
        netd.wait_for("connected to ")
        yield netd


def port(netd: Netd, name: str) -> int:
    """Of bridge.main.NAME.listen."""
    return netd.port("bridge.main", PORTS.index(name))


def pipe(target: int, lines: bytes) -> list[bytes]:
    """What `nc -N` prints for these lines."""
    done = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(target)], input=lines, capture_output=True, timeout=PATIENCE, check=True
    )
    return done.stdout.splitlines()


def test_a_message_of_a_pika_script_is_read_with_nc(netd: Netd, rabbit_vhost: VirtualHost) -> None:
    with subprocess.Popen(["nc", "127.0.0.1", str(port(netd, "subscribe.hello"))], stdout=subprocess.PIPE) as nc:
        assert nc.stdout is not None
        subprocess.run([sys.executable, "-c", SEND, rabbit_vhost.url], check=True, timeout=PATIENCE)
        assert nc.stdout.readline() == b"Hello World!\n"
        nc.terminate()


def test_a_line_sent_with_nc_is_received_by_a_pika_script(netd: Netd, rabbit_vhost: VirtualHost) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RECEIVE, rabbit_vhost.url], stdout=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        assert "Waiting" in script.stdout.readline()
        assert pipe(port(netd, "publish.hello"), b"Hello World!\n") == [b"+OK 1"]
        assert script.stdout.readline() == " [x] Received b'Hello World!'\n"
        script.terminate()


def test_a_pika_consumer_finds_the_id_and_the_properties(netd: Netd, rabbit_vhost: VirtualHost) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(rabbit_vhost.url))
    channel = connection.channel()
    channel.queue_declare("logs", durable=True)
    channel.queue_bind("logs", "amq.topic", "app.#")
    replies = pipe(port(netd, "publish.keys"), b"app.web\tone\nother\tnobody wants it\napp.db\ttwo\n")
    assert replies[-1] == b"+OK 3"
    found = []
    for method, properties, body in channel.consume("logs", inactivity_timeout=PATIENCE):
        assert method is not None, "nothing came"
        found.append((method.routing_key, body))
        assert properties.delivery_mode == 2
        assert properties.headers["x-netd-id"] == properties.message_id
        assert properties.app_id == "netd"
        assert abs(properties.timestamp - time.time()) < 60
        channel.basic_ack(method.delivery_tag)
        if len(found) == 2:
            break
    assert found == [("app.web", b"one"), ("app.db", b"two")]
    connection.close()


def test_a_confirmed_port_tells_what_the_broker_did_with_each_line(netd: Netd, rabbit_vhost: VirtualHost) -> None:
    assert pipe(port(netd, "publish.sure"), b"a\n") == [b"-ERR 1 DEAD 312 NO_ROUTE", b"+OK 1"]
    connection = pika.BlockingConnection(pika.URLParameters(rabbit_vhost.url))
    channel = connection.channel()
    channel.queue_declare("kept", durable=True)
    channel.queue_bind("kept", "amq.direct", "sure")
    assert pipe(port(netd, "publish.sure"), b"b\nc\n") == [b"+OK 2"]
    assert channel.queue_declare("kept", passive=True).method.message_count == 2
    connection.close()


def test_clients_stay_through_a_deleted_queue(
    netd: Netd, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    path = f"/api/queues/{rabbit_vhost.name}/hello"
    rabbit_server.api("PUT", path, {"durable": True})
    with socket.create_connection(("127.0.0.1", port(netd, "subscribe.hello")), PATIENCE) as client:
        lines = client.makefile("rb")
        pipe(port(netd, "publish.hello"), b"before\n")
        assert lines.readline() == b"before\n"
        rabbit_server.api("DELETE", path)
        rabbit_server.api("PUT", path, {"durable": True})
        assert pipe(port(netd, "publish.hello"), b"after\n") == [b"+OK 1"]
        assert lines.readline() == b"after\n"


def test_lines_go_both_ways_over_tls_with_a_client_certificate(rabbit_vhost: VirtualHost, tmp_path: Path) -> None:
    authority = issue("authority", None)
    for name in ("localhost", "netd"):
        tmp_path.joinpath(f"{name}.pem").write_bytes(b"".join(pem(issue(name, authority))))
    tmp_path.joinpath("ca.pem").write_bytes(pem(authority)[0])
    with reserve_port() as reserved:
        listens = reserved.getsockname()[1]
        tls = f"OPENSSL-LISTEN:{listens},bind=127.0.0.1,reuseaddr,fork,cert=localhost.pem,cafile=ca.pem,verify=1"
        with subprocess.Popen(["socat", tls, f"TCP:127.0.0.1:{rabbit_vhost.port}"], cwd=tmp_path) as socat:
            try:
                url = replace(rabbit_vhost, port=listens).url.replace("amqp://", "amqps://")
                url = url.replace("127.0.0.1", "localhost")
                text = config(rabbit_vhost).replace(rabbit_vhost.url, url)
                text += '[bridge.main.broker_tls]\nca = "ca.pem"\ncertificate = "netd.pem"\nprivate_key = "netd.pem"\n'
                with running(tmp_path, text) as netd:
                    netd.wait_for("connected to amqps://")
                    _declare(rabbit_vhost, "hello")
                    lines = [b"%d %s" % (number, b"x" * 1000) for number in range(2000)]
                    with socket.create_connection(("127.0.0.1", port(netd, "subscribe.hello")), PATIENCE) as client:
                        assert pipe(port(netd, "publish.hello"), b"\n".join(lines) + b"\n")[-1] == b"+OK 2000"
                        received = client.makefile("rb")
                        assert [received.readline().rstrip() for _ in lines] == lines
            finally:
                socat.terminate()


def _declare(vhost: VirtualHost, queue: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    connection.channel().queue_declare(queue, durable=True)
    connection.close()


def test_a_wrong_password_is_in_the_log(rabbit_vhost: VirtualHost, tmp_path: Path) -> None:
    text = config(rabbit_vhost).replace(rabbit_vhost.password, "sesame-8471")
    with running(tmp_path, text) as netd:
        netd.wait_for("403 ACCESS_REFUSED - Login was refused")
        assert pipe(port(netd, "publish.hello"), b"accepted all the same\n") == [b"+OK 1"]
        assert "sesame-8471" not in json.dumps(netd.events)


def status(netd: Netd) -> dict[str, Any]:
    """What `netdctl bridge status --json` says of the bridge."""
    socket_path = netd.config.parent / "state" / "netd.sock"
    done = subprocess.run(
        [NETDCTL, "--socket", socket_path, "bridge", "status", "--json"],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)["bridges"][0]
    return found


def until(netd: Netd, state: str) -> dict[str, Any]:
    """The status once the broker is said to be in this state."""
    deadline = time.monotonic() + PATIENCE
    while (found := status(netd))["broker"]["state"] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_the_status_says_what_the_broker_does(
    netd: Netd, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    assert pipe(port(netd, "publish.keys"), b"nobody.listens\tx\n") == [b"+OK 1"]
    deadline = time.monotonic() + PATIENCE
    while (found := status(netd))["dead_letters"] != 1:
        assert time.monotonic() < deadline, found
    assert [lane["returned"] for lane in found["publish"] if lane["port"] == "keys"] == [1]
    assert (found["broker"]["state"], found["broker"]["reason"]) == ("up", "")
    assert rabbit_vhost.password not in json.dumps(found)

    rabbit_server.ctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        assert pipe(port(netd, "publish.keys"), b"a\tx\n") == [b"+OK 1"]  # RabbitMQ says it blocks to who publishes
        found = until(netd, "blocked")
        assert "memory" in found["broker"]["reason"]
    finally:
        rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")
    until(netd, "up")

    rabbit_server.kill()
    try:
        found = until(netd, "away")
        assert found["broker"]["reason"]
        assert pipe(port(netd, "publish.hello"), b"later\n") == [b"+OK 1"]
        assert [lane["backlog"] for lane in status(netd)["publish"] if lane["port"] == "hello"] == [1]
    finally:
        rabbit_server.start()
    until(netd, "up")
