"""State URLs: masking their secrets, and giving them the token that the environment holds."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

MASK = "***"
PUBLIC_PARAMETERS = frozenset({"sslmode", "mode", "cache", "charset", "connect_timeout", "application_name", "tls"})
"""Query parameters whose values may be shown; any other may be a secret."""

_PARAMETER = re.compile(r"([?&;])([^=&;#]+)=([^&;#]*)")
_USER_INFO = re.compile(r"^([^:/?#]*:?/{0,3})(.*)@", re.DOTALL)
_LIBSQL = re.compile(r"(?i)^libsql[^:]*:/*")


def redact(url: str) -> str:
    """Return the URL with passwords and tokens masked; fit for messages and logs.

    Everything up to the last ``@`` may belong to the user part: a password may hold any character. All of the user
    part of a libSQL or HTTP URL is a token. Never raises: what cannot be read is masked too.
    """
    is_token = re.match(r"(?i)(libsql|https?)\b", url) is not None
    masked = _USER_INFO.sub(lambda found: found[1] + _masked_user(found[2], is_token), url)
    return _PARAMETER.sub(
        lambda found: found[0] if found[2].lower() in PUBLIC_PARAMETERS else f"{found[1]}{found[2]}={MASK}", masked
    )


def has_secret(url: str) -> bool:
    """Return whether anything in the URL must not be shown."""
    return redact(url) != url


def with_token(url: str, token: str) -> str:
    """Return a libSQL URL with this token, unless it carries one; any other URL as it is."""
    if not _LIBSQL.match(url) or has_secret(url):
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}authToken={quote(token, safe='')}"


def _masked_user(user_info: str, is_token: bool) -> str:
    user, colon, _ = user_info.partition(":")
    if is_token:
        return f"{MASK}@"
    return f"{user}:{MASK}@" if colon else f"{user}@"
