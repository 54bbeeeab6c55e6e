"""Records to JSON and back; what counts as JSON."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec

from seeknal.errors import InvalidFieldError

T = TypeVar("T")

MAX_DEPTH = 100
"""How deep dictionaries and lists may nest: far below the recursion limits of Python and of the stores."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(value: Any) -> bytes:
    """Return canonical JSON: UTF-8, no white space, dictionary keys sorted, instants in ISO 8601 UTC."""
    return _encoder.encode(value)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Return the value of this type that ``data`` holds.

    Raises:
        msgspec.DecodeError: It is not JSON, or not of that shape. Callers know which file it came
            from and raise `CorruptStateError`.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    result: T = decoder.decode(data)
    return result


def pretty(value: Any) -> bytes:
    """Return JSON for people: indented by two spaces, keys in the order of their definition, a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def json_object(value: object, field: str) -> dict[str, Any]:
    """Return a deep copy of a JSON object; tuples become lists.

    Raises:
        InvalidFieldError: It is not a dictionary with string keys, or something inside is not JSON:
            another type, NaN, an infinity, text that is not Unicode; or it holds itself, or nests too
            deep. The message names the path.
    """
    if not isinstance(value, dict):
        raise InvalidFieldError(
            f"{field} must be a dictionary, not {type(value).__name__}",
            hint=f"Pass {field} as a dictionary with string keys and JSON values.",
            field=field,
        )
    return {_key(key, field): _json(item, f"{field}.{key}", 1) for key, item in value.items()}


def json_copy(value: dict[str, Any]) -> dict[str, Any]:
    """Return a deep copy of a dictionary that is known to be JSON."""
    copied = value.copy()  # all that most records hold are texts and numbers, which nobody can change
    for key, item in value.items():
        if isinstance(item, dict | list):
            copied[key] = _copy(item)
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return json_copy(value)
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _json(value: object, path: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _not_json(f"{value} at {path}", path, "JSON has no NaN and no infinity; store None or a string.")
        return float(value)
    if depth >= MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        raise _not_json(
            f"nesting deeper than {MAX_DEPTH} levels at {path[:60]}...",
            path,
            "Flatten it; a value that holds itself cannot be stored.",
        )
    if isinstance(value, dict):
        return {_key(key, path): _json(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise _not_json(
        f"a {type(value).__name__} at {path}",
        path,
        "Convert it to text, numbers, lists or dictionaries first.",
    )


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise _not_json(f"the key {key!r} at {path}", path, "The keys of a JSON object are strings.")
    return _text(key, path)


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _not_json(f"text with a lone surrogate at {path}", path, "Pass valid Unicode text.") from None
    return str(value)


def _not_json(what: str, path: str, hint: str) -> InvalidFieldError:
    return InvalidFieldError(f"{what} is not JSON", hint=hint, field=path.split(".")[0].split("[")[0])
