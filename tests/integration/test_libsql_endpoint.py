"""URLs of libSQL servers: what is read from them, what is refused, and that nothing shows a token."""

from __future__ import annotations

import pickle
import traceback

import pytest

from seeknal.errors import ConfigurationError, InvalidStateUrlError
from seeknal.state.sql.libsql.endpoint import Endpoint, endpoint

SECRET = "eyJhbGciOiJFZERTQSJ9.eyJhIjoicncifQ.c2lnbmF0dXJl-_"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("libsql://db.example.com", "https://db.example.com"),
        ("turso://db.example.com", "https://db.example.com"),
        ("https://db.example.com", "https://db.example.com"),
        ("wss://db.example.com", "https://db.example.com"),
        ("http://db.example.com", "http://db.example.com"),
        ("ws://db.example.com", "http://db.example.com"),
        ("LibSQL://DB.Example.com", "https://db.example.com"),
        ("HTTP://localhost:8080", "http://localhost:8080"),
        ("libsql://localhost:8080?tls=0", "http://localhost:8080"),
        ("turso://localhost:8080/?tls=0", "http://localhost:8080"),
        ("libsql://db.example.com?tls=1", "https://db.example.com"),
        ("  libsql://db.example.com\n", "https://db.example.com"),
        ("https://db.example.com/", "https://db.example.com"),
        ("https://gateway.example.com/team/db/", "https://gateway.example.com/team/db"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://db.example.com:443/a%20b", "https://db.example.com:443/a%20b"),
    ],
)
def test_a_url_names_a_server(url: str, expected: str) -> None:
    assert endpoint(url) == Endpoint(expected, None)


@pytest.mark.parametrize(
    "url",
    [
        f"libsql://{SECRET}@db.example.com",
        f"libsql://token:{SECRET}@db.example.com",
        f"libsql://:{SECRET}@db.example.com",
        f"libsql://{SECRET}:@db.example.com",
        f"libsql://db.example.com?authToken={SECRET}",
        f"libsql://db.example.com?authtoken={SECRET}",
        f"libsql://db.example.com/?authToken={SECRET}&tls=1",
        f"libsql://{SECRET}@db.example.com?authToken={SECRET}",
        f"libsql://db.example.com?authToken=&authToken={SECRET}",
        f"libsql://db.example.com?authToken={SECRET.replace('-', '%2D')}",
        f"libsql://db.example.com?authToken=%20{SECRET}%0A",
    ],
)
def test_the_token_is_found_in_a_url_and_not_shown(url: str) -> None:
    found = endpoint(url)
    assert found == Endpoint("https://db.example.com", SECRET)
    assert SECRET not in f"{found!r} {found}"
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_token_keeps_its_plus_signs() -> None:
    assert endpoint("libsql://db.example.com?authToken=a+b/c==").token == "a+b/c=="


def test_the_argument_gives_the_token_that_the_url_lacks() -> None:
    assert endpoint("libsql://db.example.com", f" {SECRET}\n").token == SECRET
    assert endpoint("libsql://@db.example.com?authToken=", SECRET).token == SECRET
    assert endpoint(f"libsql://{SECRET}@db.example.com", SECRET).token == SECRET
    assert endpoint("libsql://db.example.com", "  ").token is None


@pytest.mark.parametrize(
    ("url", "token"),
    [
        (f"libsql://{SECRET}@db.example.com", "other"),
        (f"libsql://{SECRET}@db.example.com?authToken=other", None),
        (f"libsql://db.example.com?authToken=other&authToken={SECRET}", None),
    ],
)
def test_two_different_tokens_are_refused(url: str, token: str | None) -> None:
    with pytest.raises(ConfigurationError, match="two different tokens") as caught:
        endpoint(url, token)
    assert_says_nothing(caught.value, SECRET, "other")


@pytest.mark.parametrize("token", ["with blank", "line\nbreak", "quo'te", "é", "semi;colon", "nul\0"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="a character that no token has") as caught:
        endpoint("libsql://db.example.com", token)
    assert_says_nothing(caught.value, token)


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.1", "[2001:db8::1]", "localhost.example.com"])
def test_a_token_does_not_cross_a_network_unencrypted(host: str) -> None:
    for url in (f"http://{host}", f"ws://{host}", f"libsql://{host}?tls=0"):
        with pytest.raises(ConfigurationError, match="unencrypted") as caught:
            endpoint(url, SECRET)
        assert_says_nothing(caught.value, SECRET)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_token_may_stay_on_this_machine(host: str) -> None:
    found = endpoint(f"http://{host}:8080", SECRET)
    assert found.token == SECRET
    assert found.is_loopback


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "begins with none of"),
        ("db.example.com:8080", "begins with none of"),
        (f"{SECRET}@db.example.com", "begins with none of"),
        ("sqlite:///state.db", "begins with none of"),
        ("postgresql://db.example.com", "begins with none of"),
        ("libsql:/db.example.com", "begins with none of"),
        ("libsql+aio://db.example.com", "begins with none of"),
        ("libsql://", "names no host"),
        (f"libsql://{SECRET}@", "names no host"),
        ("libsql:///path", "names no host"),
        (f"libsql://user:{SECRET}@db.example.com", "a user and a password"),
        (f"libsql://{SECRET}:x@db.example.com", "a user and a password"),
        (f"libsql://db.example.com:{SECRET}", "the port"),
        ("libsql://db.example.com:99999", "the port"),
        (f"libsql://[{SECRET}]", "its host"),
        (f"libsql://db,{SECRET}", "the host"),
        ("libsql://bücher.example.com", "the host"),
        ("libsql://db..example.com", "the host"),
        (f"libsql://{SECRET}{'x' * 64}", "the host"),
        (f"libsql://a/{SECRET}@db.example.com", "an @ or a #"),
        (f"libsql://a?{SECRET}@db.example.com", "an @ or a #"),
        (f"libsql://a#{SECRET}@db.example.com", "an @ or a #"),
        (f"libsql://a {SECRET}@db.example.com", "a blank"),
        (f"libsql://a\t{SECRET}@db.example.com", "a blank"),
        (f"libsql://db.example.com\\@{SECRET}", "a blank, a backslash"),
        ("libsql://db.example.com?tls=2", "tls"),
        ("libsql://db.example.com?tls=", "tls"),
        ("libsql://db.example.com?tls=0&tls=1", "tls"),
        ("https://db.example.com?tls=0", "tls"),
        ("libsql://db.example.com?sslmode=require", "not known: 'sslmode'"),
        (f"libsql://db.example.com?auth_token={SECRET}", "not known: 'auth_token'"),
        (f"libsql://db.example.com?{SECRET}", "its name is not shown"),
        (f"libsql://db.example.com?{SECRET}=", "its name is not shown"),
        (f"libsql://db.example.com?{SECRET}=1", "its name is not shown"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_secrets(url: str, what: str) -> None:
    with pytest.raises(InvalidStateUrlError, match=what) as caught:
        endpoint(url)
    assert_says_nothing(caught.value, SECRET, "example.com")


def assert_says_nothing(error: ConfigurationError, *secrets: str) -> None:
    assert error.hint
    shown = "".join(traceback.format_exception(error)[-1:]) + repr(error) + str(error) + error.hint
    for secret in secrets:
        assert secret not in shown
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
