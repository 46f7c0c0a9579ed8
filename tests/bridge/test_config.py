"""What may stand in a [bridge.NAME] table, and what is said of what may not."""

from pathlib import Path

import pytest

from netd.bridge.config import BridgeSettings, BrokerAddress, parse_brokers
from netd.config import ConfigError
from tests.fakes import configure

PUBLISH = 'publish.a = { listen = "127.0.0.1:1", routing_key = "a" }\n'
SUBSCRIBE = 'subscribe.a = { listen = "127.0.0.1:2", queue = "a"'


def settings(text: str) -> BridgeSettings:
    (service,) = configure("[bridge.main]\n" + text).services
    assert isinstance(service.settings, BridgeSettings)
    return service.settings


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as wrong:
        configure("[bridge.main]\n" + text)
    (only,) = wrong.value.mistakes
    return only.removeprefix("/etc/netd/netd.toml: bridge.main")


def test_the_embedded_broker_is_the_default_and_has_the_queues_that_ports_name() -> None:
    found = settings(PUBLISH + SUBSCRIBE + ", declare = { arguments = { x-max-length = 5 } } }\n")
    assert found.embedded
    assert found.queues() == {"a": {"x-max-length": 5}}


def test_brokers_are_a_url_or_several_with_the_usual_defaults() -> None:
    assert parse_brokers("amqp://rabbit") == (BrokerAddress("rabbit", 5672),)
    assert parse_brokers("amqps://u%40x:p%2Fw@[::1]:1/v%2Fh") == (
        BrokerAddress("::1", 1, tls=True, user="u@x", password="p/w", vhost="v/h"),
    )
    found = settings('broker = ["amqp://one", "amqp://two"]\n' + PUBLISH)
    assert [address.host for address in found.brokers()] == ["one", "two"]
    assert "secret" not in repr(parse_brokers("amqp://u:secret@h"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://h:5999", "amqp://guest@h:5999/%2F"),
        ("amqp://h:5999/%2F", "amqp://guest@h:5999/%2F"),
        ("amqps://u%40x:p%2Fw@[::1]/v%2Fh%20%C3%A9", "amqps://u%40x@[::1]:5671/v%2Fh%20%C3%A9"),
    ],
)
def test_a_broker_is_shown_as_the_configuration_takes_it(url: str, shown: str) -> None:
    (broker,) = parse_brokers(url)
    assert str(broker) == shown
    (again,) = parse_brokers(shown)
    assert (again.user, again.host, again.port, again.vhost) == (broker.user, broker.host, broker.port, broker.vhost)


@pytest.mark.parametrize("password", ["s3cr3t/x", "s3cr3t#x", "s3cr3t?x", "[s3cr3t", "s3cr3t:x/y", "s3cr3t/@"])
def test_a_mistake_in_a_url_never_shows_the_password(password: str) -> None:
    said = mistake(f'broker = "amqp://user:{password}@rabbit:port"\n' + PUBLISH)
    assert "s3cr3t" not in said
    assert said.startswith(".broker: expected")


def test_a_url_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "urls"
    path.write_text("amqp://one\namqp://two\n")
    assert [each.host for each in settings(f'broker_file = "{path}"\n{PUBLISH}').brokers()] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": no port: add a table such as publish.hello or subscribe.hello"),
        ('broker = "http://h"\n' + PUBLISH, '.broker: expected "embedded:", "amqp://user'),
        ('broker = "amqp://h/a?b=c"\n' + PUBLISH, ".broker: a broker's URL ends with its vhost"),
        ('broker = ["amqp://h", "embedded:"]\n' + PUBLISH, ".broker: embedded: stands alone"),
        ('publish.a = { listen = "127.0.0.1:1" }', ".publish.a: routing_key is required"),
        ('publish.a = { listen = "127.0.0.1:1", exchange = "e" }', ": publish.a.exchange: the embedded broker"),
        ('publish.a = { listen = ":1", routing_key = "a" }', ".publish.a.listen: :1 can be reached"),
        ('publish.a = { listen = "127.0.0.1:1", routing_key = "a", max_line = "9MiB" }', ".publish.a: max_line"),
        ('publish.a = { listen = "127.0.0.1:1", routing_key = "a", priority = 256 }', ".publish.a.priority: "),
        ('publish.a = { listen = "127.0.0.1:1", routing_key = "a", expiration = 0 }', ".publish.a.expiration: "),
        ('publish."a b" = { listen = "127.0.0.1:1", routing_key = "a" }', ': "a b": names are letters'),
        (SUBSCRIBE + ", prefetch = 0 }", ".subscribe.a.prefetch: expected at least 1; got 0"),
        (SUBSCRIBE + ", declare = { typ = 1 } }", ".subscribe.a.declare.typ: unknown key; did you mean type?"),
        (
            SUBSCRIBE + ", declare = { arguments = { x-max-length = 1.5 } } }",
            ".subscribe.a.declare.arguments.x-max-length: expected true, false, a whole number or a string; got 1.5",
        ),
        (SUBSCRIBE + ", declare = true }", ".subscribe.a.declare: expected a table; got true"),
        (
            SUBSCRIBE + ", declare = {} }\n" + 'subscribe.b = { listen = "127.0.0.1:3", queue = "a", '
            "declare = { arguments = { x-max-length = 1 } } }",
            ": subscribe.b.declare: subscribe.a declares the same queue otherwise",
        ),
        (SUBSCRIBE + ', declare = { type = "quorum" } }', ": subscribe.a.declare: the embedded broker's queues"),
        (SUBSCRIBE + ", declare = { arguments = { x-foo = 1 } } }", ": subscribe.a.declare.arguments.x-foo: "),
        (
            'broker = "amqp://h"\n' + SUBSCRIBE + ", declare = { arguments = { x-foo = 9223372036854775808 } } }",
            ": subscribe.a.declare.arguments.x-foo: expected at most 9223372036854775807",
        ),
        ('tls = { certificate = "c", private_key = "k" }\n' + SUBSCRIBE + " }", ': subscribe.a.ack: "tcp" is counted'),
        (
            'subscribe.a = { listen = "haproxy:tcp:1:interface=127.0.0.1", queue = "a" }\nopen = true',
            ": subscribe.a.ack",
        ),
        ('broker_tls = { certificate = "c" }\n' + PUBLISH, ".broker_tls: certificate and private_key go together"),
    ],
)
def test_mistakes_are_told_with_their_key(text: str, said: str) -> None:
    assert said in mistake(text)
