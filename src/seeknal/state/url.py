"""State URLs: masking their secrets, and giving them the token that the environment holds."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

MASK = "***"
_QUERY_SECRET = re.compile(r"(?i)([?&;][^=&;]*(?:token|password|passwd|pwd|secret|apikey)[^=&;]*=)[^&;#]*")
_USER_INFO = re.compile(r"(?<=://)[^/?#]*@")
_LIBSQL = re.compile(r"(?i)^libsql[^:]*://")


def redact(url: str) -> str:
    """Return the URL with passwords and tokens masked; fit for messages and logs.

    All of the user part of a libSQL URL is a token. Never raises: what cannot be read is masked too.
    """
    masked = _USER_INFO.sub(lambda found: _masked_user(found.group(), bool(_LIBSQL.match(url))), url)
    return _QUERY_SECRET.sub(rf"\g<1>{MASK}", masked)


def has_secret(url: str) -> bool:
    """Return whether anything in the URL must not be shown."""
    return redact(url) != url


def with_token(url: str, token: str) -> str:
    """Return a libSQL URL with this token, unless it carries one; any other URL as it is."""
    if not _LIBSQL.match(url) or has_secret(url):
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}authToken={quote(token, safe='')}"


def _masked_user(user_info: str, is_token: bool) -> str:
    user, colon, _ = user_info.rstrip("@").partition(":")
    if is_token:
        return f"{MASK}@"
    return f"{user}:{MASK}@" if colon else user_info
