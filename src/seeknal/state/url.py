"""State URLs: what of them may be shown."""

from __future__ import annotations

import re

MASK = "***"
PUBLIC_PARAMETERS = frozenset({"sslmode", "mode", "cache", "charset", "connect_timeout", "application_name", "tls"})
"""Query parameters whose values may be shown; any other may be a secret."""

_PARAMETER = re.compile(r"([?&;])([^=&;#]+)=([^&;#]*)")
_VARIABLE = re.compile(r"\$\{\w+\}")
_USER_INFO = re.compile(r"^([^:/?#]*:?/{0,3})(.*)@", re.DOTALL)
_LIBSQL = re.compile(r"(?i)\s*(libsql|turso|https?|wss?)\b")


def redact(url: str) -> str:
    """Return the URL with passwords and tokens masked; fit for messages and logs.

    Everything up to the last ``@`` may belong to the user part: a password may hold any character. All of the user
    part of a libSQL or HTTP URL is a token. Never raises: what cannot be read is masked too.
    """
    # ``name:secret@host``, without a scheme: what looks like the scheme is the user's name.
    is_token = is_libsql(url) or (":" in url.partition("@")[0] and "//" not in url.partition("@")[0])
    masked = _USER_INFO.sub(lambda found: found[1] + _masked_user(found[2], is_token), url)
    return _PARAMETER.sub(
        lambda found: found[0] if found[2].lower() in PUBLIC_PARAMETERS else f"{found[1]}{found[2]}={MASK}", masked
    )


def has_secret(url: str) -> bool:
    """Return whether anything in the URL must not be shown; ``${NAME}`` only says where a secret is."""
    named = _VARIABLE.sub(MASK, url)
    return redact(named) != named


def is_libsql(url: str) -> bool:
    """Return whether the URL names a libSQL server, whose secret is a token."""
    return _LIBSQL.match(url) is not None


def _masked_user(user_info: str, is_token: bool) -> str:
    user, colon, _ = user_info.partition(":")
    if is_token:
        return f"{MASK}@"
    return f"{user}:{MASK}@" if colon else f"{user}@"
