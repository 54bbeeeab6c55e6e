"""Where a libSQL database is and what opens it, read from one URL."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from seeknal.errors import ConfigurationError, InvalidStateUrlError

SCHEMES = {
    "libsql": "https",
    "turso": "https",
    "https": "https",
    "wss": "https",
    "http": "http",
    "ws": "http",
}
"""What each scheme stands for: the protocol of WebSockets is not spoken, but its URLs name the same server."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_SHOWABLE_NAME = re.compile(r"[A-Za-z_-]{1,20}")
_ENCODE = "Percent-encode the token, or pass it in TURSO_AUTH_TOKEN and leave it out of the URL."
_FORM = "Write it like libsql://host?authToken=TOKEN."


@dataclass(frozen=True)
class Endpoint:
    """A libSQL server. No text that is made of it shows the token.

    Attributes:
        url: ``http`` or ``https``, the host, the port if it was given, and the path as a prefix, without its last
            slash; no user part, query or fragment.
        token: What is sent as the bearer token, or ``None``.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, where no proxy may stand between and no line can be tapped."""
        return _is_loopback(urlsplit(self.url).hostname or "")


def endpoint(url: str, token: str | None = None) -> Endpoint:
    """Return what a URL names.

    Args:
        url: ``libsql``, ``turso``, ``https`` or ``wss`` for TLS, ``http`` or ``ws`` without; ``?tls=0`` takes it
            from the first two. The token may be the user part or ``?authToken=``.
        token: Used if the URL carries none.

    Raises:
        InvalidStateUrlError: The URL cannot be read. No message shows more of it than the name of a parameter.
        ConfigurationError: There are two different tokens, one that no HTTP header can hold, or one that would
            cross a network unencrypted.
    """
    parts, scheme = _split(url.strip())
    names = _parameters(parts.query)
    tls = names.pop("tls", set())
    tokens = names.pop("authtoken", set()) | _user_token(parts)
    if names:
        name = next(iter(names))
        shown = repr(name) if _SHOWABLE_NAME.fullmatch(name) and names[name] != {""} else "(its name is not shown)"
        raise InvalidStateUrlError(
            f"the libSQL URL has a parameter that is not known: {shown}", hint="The parameters are authToken and tls."
        )
    if tls - {"0", "1"} or len(tls) > 1 or (tls and scheme not in ("libsql", "turso")):
        raise InvalidStateUrlError(
            "the parameter tls of the libSQL URL is 0 or 1, and goes with libsql:// only",
            hint="Write libsql://host?tls=0 or http://host for a server without TLS.",
        )
    protocol = "http" if "0" in tls else SCHEMES[scheme]
    host, port = _address(parts)
    found = _one_token(tokens, token)
    if found and protocol == "http" and not _is_loopback(host):
        raise ConfigurationError(
            "a token for libSQL would cross the network unencrypted",
            hint="Use libsql:// or https://; http:// with a token is for servers on this machine.",
        )
    bracketed = f"[{host}]" if ":" in host else host
    return Endpoint(f"{protocol}://{bracketed}{port}{parts.path.rstrip('/')}", found)


def _split(url: str) -> tuple[SplitResult, str]:
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in SCHEMES:
        raise InvalidStateUrlError(
            f"this is not the URL of a libSQL server: it begins with none of {', '.join(SCHEMES)}", hint=_FORM
        )
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise InvalidStateUrlError("the libSQL URL has a blank, a backslash or a control character", hint=_ENCODE)
    try:
        parts = urlsplit(url)
    except ValueError:  # whose text holds the URL
        raise InvalidStateUrlError("the libSQL URL cannot be read: its host is not one", hint=_FORM) from None
    if "@" in parts.path + parts.query or "#" in url:  # a token with a slash, a question mark or a hash in it
        raise InvalidStateUrlError("the libSQL URL has an @ or a # behind its host", hint=_ENCODE)
    return parts, match[1].lower()


def _parameters(query: str) -> dict[str, set[str]]:
    """Return the values of each parameter; a plus is a plus, since tokens may hold it."""
    found: dict[str, set[str]] = {}
    for piece in filter(None, query.split("&")):
        name, _, value = piece.partition("=")
        key = "authtoken" if name.lower() == "authtoken" else name
        found.setdefault(key, set()).add(unquote(value))
    return found


def _user_token(parts: SplitResult) -> set[str]:
    user_info = parts.netloc.rpartition("@")[0]
    user, _, password = (unquote(piece) for piece in user_info.partition(":"))
    if user and password and user.lower() != "token":
        raise InvalidStateUrlError(
            "the libSQL URL has a user and a password, but libSQL knows only tokens", hint="Write libsql://TOKEN@host."
        )
    return {password or user}


def _address(parts: SplitResult) -> tuple[str, str]:
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidStateUrlError("the port of the libSQL URL is not one", hint=_FORM) from None
    if not host:
        raise InvalidStateUrlError("the libSQL URL names no host", hint=_FORM)
    if not _HOST_NAME.fullmatch(host) and not _is_ip_address(host):
        raise InvalidStateUrlError(
            "the host of the libSQL URL is not the name of one",
            hint="Write an international name in its ASCII form, which begins with xn--.",
        )
    return host, "" if port is None else f":{port}"


def _one_token(in_url: set[str], argument: str | None) -> str | None:
    tokens = {token.strip() for token in (*in_url, argument or "")} - {""}
    if len(tokens) > 1:
        raise ConfigurationError(
            "there are two different tokens for libSQL", hint="Give one: in the URL, or in TURSO_AUTH_TOKEN."
        )
    token = next(iter(tokens), None)
    if token is not None and not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "the token for libSQL has a character that no token has", hint="Copy it again, without quotes or blanks."
        )
    return token


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_ip_address(host) and ipaddress.ip_address(host).is_loopback
