"""Configuration files."""

from pathlib import Path

from netd.config import ConfigError, parse
from netd.ports import check_endpoints

NOWHERE = Path("/nonexistent/netd.toml")
LONGEST = 1024
WORDS = (
    *(
        b"[echo.plain]\n",
        b"[cache.main]\n",
        b"[bridge.main]\n",
        b"[ssh.console]\n",
        b"[admin]\n",
        b"[daemon]\n",
        b"[log]\n",
    ),
    *(
        b'listen = "127.0.0.1:8001"\n',
        b'"[::1]:1"',
        b'":1"',
        b'"unix:x"',
        b'"tcp:1"',
        b'"haproxy:tcp:1"',
        b"open = true\n",
    ),
    *(
        b'allow = ["10.0.0.0/8"]\n',
        b"idle_timeout = ",
        b'"10s"',
        b"max_connections = ",
        b"1e400",
        b"nan",
        b"inf",
        b"0x7f",
    ),
    *(
        b"listen_redis = ",
        b"listen_memcached = ",
        b'store = "redis://h:1/0"\n',
        b'max_memory = "64MiB"\n',
        b"[[",
        b"]]",
    ),
    *(
        b'broker = "amqp://u:p@h:1/v"\n',
        b"[bridge.main.publish.a]\n",
        b"[bridge.main.subscribe.a]\n",
        b'framing = "json"\n',
    ),
    *(
        b'key_patterns = ["*"]\n',
        b'queue = "q"\n',
        b"[ssh.console.users.ops]\n",
        b'role = "admin"\n',
        b'password_hash = "$',
    ),
    *(
        b'[ssh.console.commands]\ndf = ["df"]\n',
        b"argv = ",
        b"args = { n = ",
        b'"[1-5]"',
        b"1979-05-27T07:32:00Z",
        b"07:32:00",
    ),
    *(
        b"[tls]\n",
        b'certificate = "c"\n',
        b'private_key_file = "k"\n',
        b"declare = ",
        b"{ ",
        b" }",
        b"'''",
        b'"""',
        b"\\u0000",
    ),
)


def check(data: bytes) -> None:
    """A configuration, or its mistakes in printable lines that begin with the file."""
    try:
        config = parse(data, NOWHERE, {}, others_may_read=True)
    except ConfigError as error:
        lines = error.mistakes
        assert lines
    else:
        assert config.services
        lines = [*check_endpoints(config), *config.warnings]
    for line in lines:
        assert line.startswith(f"{NOWHERE}: ")
        assert line.isprintable(), ascii(line)
