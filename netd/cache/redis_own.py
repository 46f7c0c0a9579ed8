"""What a Redis client asks of netd itself: who is there, in which protocol, by which name. See `redis_session`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from netd.cache.redis_commands import fits
from netd.cache.redis_words import NOT_AN_INTEGER, SYNTAX, Refused, integer, upper, wrong_arity
from netd.cache.requests import OK, Answer, Problem, Reply, Status
from netd.cache.resp import Switched

if TYPE_CHECKING:
    from netd.cache.redis_session import RedisSession

VERSION: Final = b"7.0.15"
"""The Redis whose dialect netd speaks, and was compared with; clients decide by it what they may ask."""
MOST_LISTED = 10_000
"""Clients that CLIENT LIST shows at most."""

WRONGPASS = Problem(b"invalid username-password pair or user is disabled.", b"WRONGPASS")
NO_PASSWORDS = Problem(
    b"AUTH <password> called without any password configured for the default user. "
    b"Are you sure your configuration is correct?"
)
HELLO_FIRST = Problem(
    b"HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    b"option can be used to authenticate the client and select the RESP protocol version at the same time",
    b"NOAUTH",
)


@dataclass(slots=True)
class Check:
    """A password has to be checked before there is an answer."""

    user: str
    password: bytes
    then: "Callable[[], Answer | Switched]"
    """The answer once it was right."""


def ping(session: "RedisSession", words: list[bytes]) -> Reply:
    """PING [message]."""
    if len(words) > 2:  # noqa: PLR2004 - an argument
        raise wrong_arity("ping")
    return words[1] if len(words) > 1 else Status(b"PONG")


def echo(session: "RedisSession", words: list[bytes]) -> Reply:
    """ECHO message."""
    return words[1]


def select(session: "RedisSession", words: list[bytes]) -> Reply:
    """SELECT index: there is one database, 0."""
    if integer(words[1], NOT_AN_INTEGER) != 0:
        raise Refused("DB index is out of range")
    return OK


def auth(session: "RedisSession", words: list[bytes]) -> "Reply | Check":
    """AUTH [user] password."""
    if len(words) > 3:  # noqa: PLR2004 - user and password
        raise Refused(SYNTAX)
    *user, password = words[1:]
    if not session.port.login.required:
        return OK if user == [b"default"] else WRONGPASS if user else NO_PASSWORDS
    return Check(_name_of(user), password, lambda: OK)


def hello(session: "RedisSession", words: list[bytes]) -> "Switched | Check":
    """HELLO [version [AUTH user password] [SETNAME name]]."""
    version = session.version
    user: list[bytes] | None = None
    name: bytes | None = None
    if len(words) > 1:
        version = integer(words[1], "Protocol version is not an integer or out of range")
        if version not in {2, 3}:
            return Switched(session.version, Problem(b"unsupported protocol version", b"NOPROTO"))
    rest = words[2:]
    while rest:
        match upper(rest[0]), len(rest):
            case "AUTH", left if left > 2:  # noqa: PLR2004 - user and password
                user, rest = rest[1:3], rest[3:]
            case "SETNAME", left if left > 1:
                name, rest = _valid_name(rest[1]), rest[2:]
            case _:
                raise Refused(f"Syntax error in HELLO option '{rest[0].decode('latin-1')}'")
    if user is not None and session.port.login.required:
        return Check(_name_of(user[:1]), user[1], partial(welcome, session, version, name))
    if user is not None and user[0] != b"default":
        return Switched(session.version, WRONGPASS)
    if not session.logged_in:
        return Switched(session.version, HELLO_FIRST)
    return welcome(session, version, name)


def welcome(session: "RedisSession", version: int, name: bytes | None) -> Switched:
    """The answer to HELLO once nothing stands against it."""
    session.version = version
    if name is not None:
        session.name = name
    facts: dict[bytes, Reply] = {
        b"server": b"redis",
        b"version": VERSION,
        b"proto": version,
        b"id": session.connection.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }
    return Switched(version, facts)


def reset(session: "RedisSession", words: list[bytes]) -> Switched:
    """RESET: as if the connection were new."""
    session.version = 2
    session.name = b""
    session.log_out()
    session.leave()
    return Switched(2, Status(b"RESET"))


# --- CLIENT


def client(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT subcommand …."""
    name = upper(words[1])
    entry = _CLIENT.get(name)
    if entry is None:
        raise Refused(f"unknown subcommand '{words[1][:128].decode('latin-1')}'. Try CLIENT HELP.")
    answer, arity = entry
    if not fits(arity, words):
        raise wrong_arity(f"client|{name}")
    return answer(session, words)


def client_id(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT ID: the connection's number, unique in the daemon."""
    return session.connection.id


def client_getname(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT GETNAME."""
    return session.name or None


def client_setname(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT SETNAME name."""
    session.name = _valid_name(words[2])
    return OK


def client_setinfo(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT SETINFO LIB-NAME name | LIB-VER version."""
    option = words[2].upper()
    if option not in _LIBRARY:
        raise Refused(f"Unrecognized option '{words[2].decode('latin-1')}'")
    if not _PRINTABLE.issuperset(words[3]):
        raise Refused(f"{option.lower().decode()} cannot contain spaces, newlines or special characters.")
    session.library[option] = words[3]
    return OK


def client_info(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT INFO."""
    return describe(session) + b"\n"


def client_list(session: "RedisSession", words: list[bytes]) -> Reply:
    """CLIENT LIST [ID id …]."""
    sessions = session.port.sessions
    if len(words) > 2:  # noqa: PLR2004 - a filter
        if upper(words[2]) != "ID" or len(words) == 3:  # noqa: PLR2004 - ids
            raise Refused(SYNTAX)
        wanted = [integer(word, "Invalid client ID") for word in words[3:]]
        found = [sessions[number] for number in wanted if number in sessions]
    else:
        found = list(sessions.values())
    return b"".join(describe(session) + b"\n" for session in found[:MOST_LISTED])


def describe(session: "RedisSession") -> bytes:
    """A line of CLIENT LIST; of Redis's fields those that mean something here (networking.c, catClientInfoString)."""
    connection = session.connection
    now = session.port.seconds()
    fields = {
        "id": connection.id,
        "addr": connection.peer,
        "name": session.name.decode("latin-1"),
        "age": int(now - connection.since),
        "idle": int(now - connection.quiet_since),
        "flags": "N",
        "db": 0,
        "cmd": session.last_command.decode("latin-1").lower(),
        "user": session.user,
        "resp": session.version,
        "lib-name": session.library.get(b"LIB-NAME", b"").decode("latin-1"),
        "lib-ver": session.library.get(b"LIB-VER", b"").decode("latin-1"),
    }
    return " ".join(f"{key}={value}" for key, value in fields.items()).encode("latin-1", "replace")


def _name_of(user: list[bytes]) -> str:
    return user[0].decode("utf-8", "replace") if user else "default"


_LIBRARY: Final = frozenset({b"LIB-NAME", b"LIB-VER"})
_PRINTABLE: Final = frozenset(range(ord("!"), ord("~") + 1))


def _valid_name(name: bytes) -> bytes:
    if not _PRINTABLE.issuperset(name):
        raise Refused("Client names cannot contain spaces, newlines or special characters.")
    return name


Own = Callable[["RedisSession", list[bytes]], "Reply | Switched | Check"]

OWN: Final[Mapping[str, tuple[Own, int]]] = {
    "PING": (ping, -1),
    "ECHO": (echo, 2),
    "SELECT": (select, 2),
    "AUTH": (auth, -2),
    "HELLO": (hello, -1),
    "RESET": (reset, 1),
    "CLIENT": (client, -2),
}
OWN_COMMANDS: Final = {name: arity for name, (_, arity) in OWN.items()}
"""What no store ever sees, with their number of words."""
_CLIENT: Final[Mapping[str, tuple[Callable[["RedisSession", list[bytes]], Reply], int]]] = {
    "ID": (client_id, 2),
    "GETNAME": (client_getname, 2),
    "SETNAME": (client_setname, 3),
    "SETINFO": (client_setinfo, 4),
    "INFO": (client_info, 2),
    "LIST": (client_list, -2),
}
