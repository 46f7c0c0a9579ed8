"""The embedded store's Redis commands beside a real Redis: the same words, the same replies, byte for byte."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netd.cache.counters import Counters
from netd.cache.items import Items
from netd.cache.redis_commands import RedisCommands
from netd.cache.redis_keyspace import Keyspace
from netd.cache.redis_words import glob
from netd.cache.resp import encode
from tests.cache.redis_client import RedisClient, pack, split
from tests.pace import slowness
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def real() -> Iterator[RedisClient]:
    with RedisServer() as server:
        client = RedisClient(server.port)
        yield client
        client.close()


def embedded(**options: Any) -> RedisCommands:
    space = Keyspace(
        Items(options.pop("max_memory", 64 << 20), time.time),
        Counters(),
        allow_flush=options.pop("allow_flush", True),
        max_item_size=options.pop("max_item_size", 600 << 20),
        clock=time.time,
    )
    return RedisCommands(space)


def replies_of(commands: RedisCommands, asked: list[list[bytes]]) -> list[bytes]:
    return [encode(commands.run(words), 2) for words in asked]


def compare(real: RedisClient, asked: list[list[bytes]]) -> None:
    """Both answer alike. A second that passes between two commands shows in answers, so they may be asked once more."""
    if differing(real, asked):
        assert differing(real, asked) == []


def differing(real: RedisClient, asked: list[list[bytes]]) -> list[tuple[list[bytes], bytes, bytes]]:
    """The commands that Redis answers differently, with our answer and its."""
    real.send(pack("FLUSHALL") + b"".join(pack(*words) for words in asked))
    theirs = real.read_raw(len(asked) + 1)[1:]
    ours = replies_of(embedded(), asked)
    return [each for each in zip(asked, ours, theirs, strict=True) if each[1] != each[2]]


STREAMS = """\
SET a 1; GET a; SET a 2 NX; SET a 2 XX; GET a; SET b 2 XX; GET b; SET b 2 NX; GET b
SET a 1 GET; SET a 2 GET; GET a; SET a 3 NX GET; GET a; SET z 3 XX GET; EXISTS z; SET z 3 NX GET; GET z
SET a 1 EX 100; TTL a; SET a 2 KEEPTTL; TTL a; SET a 3; TTL a; SET a 1 PX 100000; TTL a
SET a 1 EX 0; SET a 1 EX -1; SET a 1 EX x; SET a 1 EX; SET a 1 EX 5 PX 5; SET a 1 NX XX; SET a 1 KEEPTTL EX 5
SET a 1 EX 9223372036854775807; SET a 1 PX 9223372036854775807; SET a 1 EX 99999999999999999999; SET a 1 BOGUS
SET a 1 EXAT 1; GET a; EXISTS a; SET a 1 PXAT 1; GET a; SET a 1 EXAT 4000000000; EXPIRETIME a; PEXPIRETIME a
SET a 1 EX 5 EX 9; TTL a; SET a 1 EX NX EX NX
SET a 1 NX NX; SET a 2 XX XX GET GET; set a 3 ex 100; SET a; SET; GET; GET a b; FOO; FOO a b; foo x
GETEX a; SET a 1; GETEX a EX 100; TTL a; GETEX a PERSIST; TTL a; GETEX a EX 0; GETEX a EX 1 PERSIST; GETEX b EX 0
GETEX a PXAT 1; GET a; GETDEL a; SET a 5; GETDEL a; GET a; GETSET a 1; GETSET a 2; GET a
MSET a 1 b 2; MGET a b c; MSET a 1 b; MSETNX a 1 c 2; MSETNX c 1 d 2; MGET a b c d; MSET a; MSETNX c 1 d; MSET
SETNX a 1; SETNX a 2; GET a; SETEX a 100 x; TTL a; SETEX a 0 x; SETEX a x x; PSETEX a 100000 y; TTL a; PSETEX a -1 y
APPEND a b; APPEND a cd; GET a; STRLEN a; STRLEN b; SET a 1 EX 50; APPEND a 2; TTL a; GET a
SET a hello; GETRANGE a 0 -1; GETRANGE a 1 2; GETRANGE a -3 -2; GETRANGE a 5 9; GETRANGE a -1 -3; GETRANGE b 0 -1
GETRANGE a -100 2; GETRANGE a 0 -100; GETRANGE a x 1; SUBSTR a 0 1; GETRANGE a 3 1; GETRANGE a -100 -90
SETRANGE a 3 x; GET a; SETRANGE a 0 yy; GET a; SETRANGE a -1 x; SETRANGE b 5 ; GET b; SETRANGE a 1 ; SETRANGE a x y
SETRANGE a 536870912 x; SETRANGE a 536870911 xy; SETRANGE a 99999999999999999999 x
INCR a; INCRBY a 5; DECR a; DECRBY a 10; GET a; INCRBY a x; SET a x; INCR a; SET a 9223372036854775807; INCR a
SET a -9223372036854775808; DECR a; DECRBY a -9223372036854775808; SET a 01; INCR a; SET a +1; INCR a; SET a  1; INCR a
INCRBY a 9223372036854775808; SET a 1 EX 70; INCR a; TTL a; SET a 1.0; INCR a; SET a ; INCR a
INCRBYFLOAT a 1.5; INCRBYFLOAT a 0.1; INCRBYFLOAT a -5; INCRBYFLOAT a 3e2; INCRBYFLOAT a x; INCRBYFLOAT a inf
INCRBYFLOAT a nan; SET a x; INCRBYFLOAT a 1; SET a 3.0; INCRBYFLOAT a 1; SET a 1e308; INCRBYFLOAT a 1; INCRBYFLOAT b .5
SET a 0.1; INCRBYFLOAT a 0.2; INCRBYFLOAT a 1e-17; INCRBYFLOAT a 123456789012345678; INCRBYFLOAT a 0.000000000000000001
INCRBYFLOAT a -0.0; INCRBYFLOAT c 1e5000; INCRBYFLOAT c 1.; INCRBYFLOAT c +1; INCRBYFLOAT c  1; INCRBYFLOAT c 1e
DEL a; SET a 1; SET b 1; DEL a b c; UNLINK a; EXISTS a a; SET a 1; EXISTS a a b; TOUCH a b a; TYPE a; TYPE b
SET a 1 EX 90; RENAME a b; TTL b; GET a; RENAME a b; RENAME b b; RENAMENX b c; SET b 2; RENAMENX b c; GET c
SET a 1; EXPIRE a 100; TTL a; EXPIRE a 50 GT; TTL a; EXPIRE a 50 LT; TTL a; EXPIRE a 70 NX; EXPIRE a 70 XX; TTL a
PERSIST a; PERSIST a; TTL a; PERSIST b; EXPIRE a 9 XX; EXPIRE a 9 GT; EXPIRE a 9 LT; TTL a; EXPIRE b 9; TTL b; PTTL b
EXPIRE a 9 NX XX; EXPIRE a 9 GT LT; EXPIRE a 9 FOO; EXPIRE a x; EXPIRE a 9223372036854775807
PEXPIRE a 9223372036854775807; EXPIRE a x FOO; SET a 1; EXPIRE a -1; EXISTS a; SET a 1; EXPIREAT a 1; EXISTS a; SET a 1
SET a 1; PEXPIREAT a 4000000000000; PEXPIRETIME a; EXPIREAT a 4000000000 NX; EXPIRETIME a; EXPIRETIME b
PEXPIRETIME b; SET a 1 PXAT 4000000000000; PERSIST a; EXPIRETIME a; PEXPIRE a 100000; TTL a
DBSIZE; SET a 1; SET b 1; DBSIZE; KEYS b*; FLUSHDB; DBSIZE; FLUSHALL ASYNC; FLUSHALL SYNC; FLUSHALL x; FLUSHDB SYNC x
SCAN x; SCAN 0 COUNT 0; SCAN 0 COUNT x; SCAN 0 FOO 1; SCAN 0 MATCH; SCAN 0; SET a 1; SCAN 0
SET a 1; SCAN 0 TYPE list; SCAN 0 TYPE STRING; SCAN 0 MATCH b*; RANDOMKEY
SCAN -1; SCAN 0 COUNT 5 MATCH a; DBSIZE x; RANDOMKEY x; KEYS; KEYS a b""".splitlines()


@pytest.mark.parametrize("stream", STREAMS)
def test_commands_answer_as_redis_does(real: RedisClient, stream: str) -> None:
    compare(real, [split(command) for command in stream.split("; ")])


keys = st.sampled_from([b"a", b"b", b"c"])
numbers = st.sampled_from([b"0", b"1", b"-1", b"5", b"x", b"", b"9223372036854775807", b"-9223372036854775808", b"1.5"])
values = st.sampled_from(
    [b"", b"10", b"-3", b"hello", b"1.25", b"\0ND\1abcde12345", b"9223372036854775807"]
) | st.binary(max_size=4)
times = st.sampled_from([b"100", b"0", b"-5", b"x", b"1000000", b"9223372036854775807"])
set_options = st.lists(
    st.sampled_from([b"NX", b"XX", b"GET", b"KEEPTTL", b"PERSIST", b"EX", b"px", b"EXAT", b"4000000000", b"100"]),
    max_size=4,
)
expire_options = st.lists(st.sampled_from([b"NX", b"xx", b"GT", b"LT", b"Z"]), max_size=2)


def command(*parts: Any) -> st.SearchStrategy[list[bytes]]:
    """A strategy of words: bytes are themselves, strategies draw a word or a list of them."""
    drawn = [st.just(part) if isinstance(part, bytes) else part for part in parts]
    return st.tuples(*drawn).map(
        lambda parts: [word for part in parts for word in (part if isinstance(part, list) else [part])]
    )


pairs = st.lists(st.tuples(keys, values), max_size=3).map(lambda pairs: [word for pair in pairs for word in pair])
asked = st.one_of(
    command(b"SET", keys, values, set_options),
    command(b"GETEX", keys, set_options),
    command(
        st.sampled_from([b"GET", b"GETDEL", b"STRLEN", b"INCR", b"DECR", b"TTL", b"EXPIRETIME", b"PERSIST", b"TYPE"]),
        keys,
    ),
    command(st.sampled_from([b"SETNX", b"GETSET", b"APPEND"]), keys, values),
    command(st.sampled_from([b"INCRBY", b"DECRBY", b"INCRBYFLOAT"]), keys, numbers),
    command(st.sampled_from([b"SETEX", b"PSETEX"]), keys, times, values),
    command(st.sampled_from([b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"]), keys, times, expire_options),
    command(st.sampled_from([b"GETRANGE"]), keys, numbers, numbers),
    command(b"SETRANGE", keys, st.sampled_from([b"0", b"2", b"-1", b"x"]), values),
    command(st.sampled_from([b"DEL", b"EXISTS", b"UNLINK", b"TOUCH", b"MGET"]), st.lists(keys, max_size=3)),
    command(st.sampled_from([b"MSET", b"MSETNX"]), pairs, st.lists(keys, max_size=1)),
    command(st.sampled_from([b"RENAME", b"RENAMENX"]), keys, keys),
    command(st.sampled_from([b"DBSIZE", b"FLUSHDB"])),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(asked, min_size=1, max_size=40))
def test_any_commands_answer_as_redis_does(real: RedisClient, asked: list[list[bytes]]) -> None:
    compare(real, asked)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([*map(bytes, zip(b"*?[]^-\\abc\n."))]), max_size=8).map(b"".join),
    st.lists(st.sampled_from([*map(bytes, zip(b"abc-]^\\\n[."))]), min_size=1, max_size=5).map(b"".join),
)
def test_patterns_match_what_they_match_in_redis(real: RedisClient, pattern: bytes, key: bytes) -> None:
    real.send(pack("FLUSHALL") + pack("SET", key, "1") + pack("SCAN", "0", "MATCH", pattern))
    *_, found = (real.read() for _ in range(3))
    assert isinstance(found, list)
    assert bool(glob(pattern).fullmatch(key)) == bool(found[1])


def test_a_pattern_of_many_stars_takes_no_longer_than_a_plain_one() -> None:
    began = time.process_time()
    assert not glob(b"*a" * 200 + b"b").fullmatch(b"a" * 5000)
    assert time.process_time() - began < 1 * slowness()


@pytest.mark.parametrize("command", [b"KEYS %b", b"SCAN 0 MATCH %b"])
def test_a_pattern_of_a_megabyte_is_refused_at_once(command: bytes) -> None:
    before = time.process_time()
    [reply] = replies_of(embedded(), [(command % (b"[z-a]" * 200_000)).split()])
    assert reply == b"-ERR pattern is longer than 4096 bytes\r\n"
    assert time.process_time() - before < 1 * slowness()
    [reply] = replies_of(embedded(), [(command % (b"[z-a]" * 800)).split()])
    assert not reply.startswith(b"-")


def test_scan_from_start_to_end_sees_every_key_although_others_come_and_go() -> None:
    commands = embedded()
    for number in range(500):
        commands.run([b"SET", b"stays:%d" % number, b"1"])
    cursor, seen = b"0", []
    while True:
        reply = commands.run([b"SCAN", cursor, b"COUNT", b"7", b"MATCH", b"stays:*"])
        assert isinstance(reply, list)
        cursor = reply[0]
        seen += reply[1]
        commands.run([b"SET", b"comes:%d" % len(seen), b"1"])
        commands.run([b"DEL", b"comes:%d" % (len(seen) // 2)])
        if cursor == b"0":
            break
    assert sorted(seen) == sorted(b"stays:%d" % number for number in range(500))


def test_when_nothing_may_be_evicted_a_full_store_refuses_as_redis_does() -> None:
    items = Items(4096, time.time, evict=False)
    commands = RedisCommands(Keyspace(items, Counters(), allow_flush=True, max_item_size=1 << 20, clock=time.time))
    said = [encode(commands.run([b"SET", b"%d" % number, b"x" * 500]), 2) for number in range(20)]
    assert said[0] == b"+OK\r\n"
    assert said[-1] == b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    assert encode(commands.run([b"GET", b"0"]), 2).startswith(b"$500\r\n")


def test_a_value_over_the_limit_is_refused_in_redis_words() -> None:
    said = replies_of(embedded(max_item_size=1000), [[b"SET", b"a", b"x" * 1000], [b"GET", b"a"]])
    assert said == [b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n", b"$-1\r\n"]


def test_flushes_and_keys_are_refused_unless_they_are_allowed() -> None:
    said = replies_of(
        embedded(allow_flush=False),
        [[b"SET", b"a", b"1"], [b"FLUSHALL"], [b"FLUSHDB"], [b"KEYS", b"*"], [b"GET", b"a"]],
    )
    assert [reply[:7] for reply in said[1:4]] == [b"-NOPERM"] * 3
    assert said[4] == b"$1\r\n1\r\n"
