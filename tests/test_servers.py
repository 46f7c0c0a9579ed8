"""The private servers answer, can be hurt as tests need it, and leave nothing behind."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.servers import (
    HOST,
    MemcachedServer,
    RabbitServer,
    RedisServer,
    Server,
    ServerFailed,
    VirtualHost,
    exchange,
    find_program,
)
from tests.waiting import eventually

SERVERS = (RedisServer, MemcachedServer, RabbitServer)
AMQP_HEADER = b"AMQP\0\0\x09\1"
CONNECTION_START = b"\1\0\0"
FRAME_END = b"\xce"


def processes_of(directory: Path, pid: int) -> list[str]:
    """The server's process, and those whose environment or arguments name its directory: children, epmd, guards."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if told and (os.fsencode(directory) in told or process.name == str(pid)):  # a zombie tells nothing
            found.append(process.name)
    return found


def test_redis_answers_on_its_port_and_on_its_unix_socket(redis_server: RedisServer) -> None:
    assert exchange(redis_server.port, b"PING\r\n") == b"+PONG\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(redis_server.socket_path))
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"


def test_redis_takes_a_password_and_further_arguments() -> None:
    with RedisServer("--maxmemory", "3mb", password="let me in") as server:
        assert server.url == f"redis://:let%20me%20in@{HOST}:{server.port}/0"
        assert exchange(server.port, b"PING\r\n").startswith(b"-NOAUTH")
        answer = exchange(server.port, b'AUTH "let me in"\r\nCONFIG GET maxmemory\r\n', until=b"3145728\r\n")
        assert answer.startswith(b"+OK\r\n")
        assert answer.endswith(b"3145728\r\n")


def test_redis_stays_up_while_a_second_one_runs_beside_it(redis_server: RedisServer) -> None:
    with RedisServer() as other:
        assert other.port != redis_server.port
        assert exchange(other.port, b"PING\r\n") == exchange(redis_server.port, b"PING\r\n") == b"+PONG\r\n"
    assert exchange(redis_server.port, b"PING\r\n") == b"+PONG\r\n"


def test_memcached_tells_its_version(memcached_server: MemcachedServer) -> None:
    assert exchange(memcached_server.port, b"version\r\n").startswith(b"VERSION 1.")


def test_a_paused_server_accepts_and_answers_only_when_it_goes_on(redis_server: RedisServer) -> None:
    redis_server.pause()
    with socket.create_connection((HOST, redis_server.port), 0.2) as connection:
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(100)
        redis_server.resume()
        connection.settimeout(60)
        assert connection.recv(100) == b"+PONG\r\n"


@pytest.mark.parametrize("end", [RedisServer.stop, RedisServer.kill])
def test_a_stopped_server_refuses_until_it_is_started_on_the_same_port(
    redis_server: RedisServer, end: Callable[[RedisServer], None]
) -> None:
    port = redis_server.port
    end(redis_server)
    with pytest.raises(ConnectionRefusedError):
        exchange(port, b"PING\r\n")
    redis_server.start()
    assert redis_server.port == port
    assert exchange(port, b"PING\r\n") == b"+PONG\r\n"


def test_nobody_else_gets_the_port_of_a_stopped_server(redis_server: RedisServer) -> None:
    redis_server.stop()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, redis_server.port))


def test_a_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(ServerFailed, match=r"(?s)redis-server did not start.*no-such-option"),
        RedisServer("--no-such-option"),
    ):
        pass


def test_a_server_that_is_not_installed_names_the_command_that_installs_it() -> None:
    with pytest.raises(ServerFailed, match="no-such-server is not installed: run `make test`"):
        find_program("no-such-server")


def test_rabbitmq_welcomes_a_client(rabbit_vhost: VirtualHost) -> None:
    assert exchange(rabbit_vhost.port, AMQP_HEADER, FRAME_END).startswith(CONNECTION_START)


def test_each_test_gets_a_virtual_host_of_its_own_whose_user_may_do_everything_in_it(
    rabbit_server: RabbitServer,
) -> None:
    with rabbit_server.vhost() as one, rabbit_server.vhost() as other:
        assert one.name != other.name
        assert one.url == f"amqp://{one.user}:{one.password}@{HOST}:{rabbit_server.port}/{one.name}"
        rights = rabbit_server.api("GET", f"/api/users/{one.user}/permissions")
        assert rights == [{"user": one.user, "vhost": one.name, "configure": ".*", "write": ".*", "read": ".*"}]
    assert one.name not in {vhost["name"] for vhost in rabbit_server.api("GET", "/api/vhosts")}


def test_rabbitmqctl_reaches_the_private_node(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> None:
    assert rabbit_vhost.name in rabbit_server.ctl("list_vhosts").split()


def test_a_killed_broker_comes_back_on_the_same_port_with_what_it_had(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    pid = rabbit_server.pid
    rabbit_server.kill()
    assert eventually(lambda: len(processes_of(rabbit_server.directory, pid)) == 2), "only epmd and its guard are left"
    with pytest.raises((OSError, HTTPException)):
        rabbit_server.api("GET", "/api/overview")
    rabbit_server.start()
    assert exchange(rabbit_vhost.port, AMQP_HEADER, FRAME_END).startswith(CONNECTION_START)
    assert rabbit_server.api("GET", f"/api/vhosts/{rabbit_vhost.name}")["name"] == rabbit_vhost.name


@pytest.mark.parametrize("kind", SERVERS)
def test_nothing_is_left_behind_when_a_test_fails(kind: type[Server]) -> None:
    server = kind()
    pid = server.launch().pid
    assert eventually(lambda: str(pid) in processes_of(server.directory, pid))

    with pytest.raises(ArithmeticError), closing(server):
        raise ArithmeticError

    assert eventually(lambda: not processes_of(server.directory, pid))
    assert not server.directory.exists()


@pytest.mark.parametrize("kind", SERVERS)
def test_nothing_is_left_behind_when_the_test_run_is_killed(kind: type[Server]) -> None:
    run = f"""
import sys
from tests.servers import {kind.__name__}
server = {kind.__name__}()
server.launch()
print(server.pid, server.directory, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        pid, directory = other.stdout.readline().split()
        assert eventually(lambda: pid in processes_of(Path(directory), int(pid)))
        other.kill()
    assert eventually(lambda: not processes_of(Path(directory), int(pid)))
    assert eventually(lambda: not Path(directory).exists())
