"""Times as text, and which times a text can mean, the same on every platform.

``strftime`` leaves both to the C library and the locale: on Linux the year 999 is ``999``, on others ``0999``, and
``%b`` is whatever language a program has chosen. A key must not change with where it is made, so the directives are
spelled out here, with the numbers of ISO C and the names of English.
Source: https://github.com/python/cpython/issues/57514
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from seeknal.errors import InvalidFieldError, InvalidIdError
from seeknal.model.ids import MAX_ID_BYTES, check_id

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

ALIASES = {"%D": "%m/%d/%y", "%F": "%Y-%m-%d", "%R": "%H:%M", "%T": "%H:%M:%S", "%h": "%b"}

NUMBERS: dict[str, tuple[int, Callable[[datetime], int]]] = {
    "Y": (4, attrgetter("year")),
    "m": (2, attrgetter("month")),
    "d": (2, attrgetter("day")),
    "H": (2, attrgetter("hour")),
    "M": (2, attrgetter("minute")),
    "S": (2, attrgetter("second")),
    "f": (6, attrgetter("microsecond")),
    "j": (3, lambda moment: moment.timetuple().tm_yday),
    "y": (2, lambda moment: moment.year % 100),
    "I": (2, lambda moment: (moment.hour - 1) % 12 + 1),
    "G": (4, lambda moment: moment.isocalendar().year),
    "V": (2, lambda moment: moment.isocalendar().week),
    "u": (1, lambda moment: moment.isoweekday()),
    "w": (1, lambda moment: moment.isoweekday() % 7),
    "U": (2, lambda moment: (moment.timetuple().tm_yday + 6 - moment.isoweekday() % 7) // 7),
    "W": (2, lambda moment: (moment.timetuple().tm_yday + 6 - moment.weekday()) // 7),
}
"""The digits of each, and what they count."""

NAMES: dict[str, tuple[tuple[str, ...], Callable[[datetime], int]]] = {
    "B": (MONTHS, lambda moment: moment.month - 1),
    "b": (tuple(name[:3] for name in MONTHS), lambda moment: moment.month - 1),
    "A": (WEEKDAYS, lambda moment: moment.weekday()),
    "a": (tuple(name[:3] for name in WEEKDAYS), lambda moment: moment.weekday()),
    "p": (("AM", "PM"), lambda moment: moment.hour // 12),
}

_PIECE = re.compile(r"%:z|%-?.|%\Z|[^%]+", re.S)
_DIGITS = "0123456789"
_SAMPLE = datetime(2024, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


class Piece(NamedTuple):
    """A directive of a format, or the text between two of them.

    Attributes:
        letter: Of the directive; empty for text.
        template: What stands for it, as in ``template % value``.
        value: What is to be told; ``None`` for text.
        pattern: What can stand for it, as a regular expression.
        longest: The most bytes of it.
        first: A character that it can begin with.
        open: What may not follow, since it could be taken for a part of it.
    """

    letter: str
    template: str
    value: Callable[[datetime], int | str] | None
    pattern: str
    longest: int
    first: str
    open: str = ""


class TimeFormat:
    """A format that was read; `time_format` returns one. Read only, so safe from threads.

    Attributes:
        reach: Two wall-clock times of one text are less than this apart; ``None`` if nothing tells the year.
        has_offset: Whether a text tells the offset from UTC.
    """

    def __init__(self, form: str) -> None:
        pieces = list(_pieces(form))
        self._template = "".join(piece.template for piece in pieces)
        self._values = [piece.value for piece in pieces if piece.value is not None]
        self._pattern = re.compile("".join(_groups(pieces)))
        self.has_offset = any(piece.letter == "z" for piece in pieces)
        width = _meant(self._fields(self.text(_SAMPLE)) or {})
        self.reach = None if width is None else width[1] - width[0]

    def text(self, moment: datetime) -> str:
        """Return an aware time as text of its own clocks."""
        return self._template % tuple([value(moment) for value in self._values])

    def is_form_of(self, text: str) -> bool:
        """Return whether a text looks like one of this format, be there such a time or not."""
        return self._pattern.fullmatch(text) is not None

    def walls(self, text: str) -> tuple[datetime, datetime] | None:
        """Return the two wall-clock times, naive, between which lies all that a text can mean.

        They are wide rather than narrow, by which it costs little to find them: what lies between has to be looked
        at. ``None`` is for a text of another form, or a date that no calendar has.
        """
        fields = self._fields(text)
        if fields is None:
            return None
        try:
            return _meant(fields) or (datetime.min, datetime.max)
        except (ValueError, OverflowError):  # the 30th of February, or the year 0
            return None

    def _fields(self, text: str) -> dict[str, str] | None:
        found = self._pattern.fullmatch(text)
        return None if found is None else found.groupdict()


@lru_cache(maxsize=256)
def time_format(form: object) -> TimeFormat:
    """Read a format; the last ones that were asked for are kept.

    Args:
        form: Text with the directives of ``strftime`` in it. ``%-m`` leaves out leading zeros, as it does for every
            number of two or three digits. Not taken are those of which the C library, the locale or the release of
            the time zone database decide: ``%c``, ``%x``, ``%X``, ``%Z``, ``%s``.

    Raises:
        InvalidFieldError: It is no text; it has another directive, or none; what it makes can be no key; or it cannot
            be read back, since a digit follows what is of no fixed length.
    """
    if not isinstance(form, str):
        raise InvalidFieldError(
            f"format must be text, not {type(form).__name__}", hint="Write it like %Y-%m-%d.", field="format"
        )
    return TimeFormat(form)


def _pieces(form: str) -> Iterator[Piece]:
    expanded = re.sub("%[%DFRTh]", lambda found: ALIASES.get(found[0], found[0]), form)
    pieces = [_piece(text, form) for text in _PIECE.findall(expanded)]
    if not any(piece.letter for piece in pieces):
        raise _refused(form, "tells nothing of the time", "Write it like %Y-%m-%d.")
    for piece, after in pairwise(pieces):
        if after.first in piece.open:
            raise _refused(
                form,
                f"cannot be read back: what follows its %{piece.letter} could be a part of it",
                "Put a character such as - or T between them.",
            )
    plain = "".join(piece.template for piece in pieces if not piece.letter) % ()
    try:
        check_id(plain or "x", "its text")
    except InvalidIdError as error:
        raise _refused(form, f"makes no keys: {error}", error.hint) from None
    longest = sum(piece.longest for piece in pieces)
    if longest > MAX_ID_BYTES:
        raise _refused(form, f"makes keys of up to {longest} bytes; at most {MAX_ID_BYTES} are allowed", "Shorten it.")
    return iter(pieces)


def _piece(text: str, form: str) -> Piece:
    letter = text[-1]
    if text[0] != "%" or text == "%%":
        plain = "%" if text == "%%" else text
        size = len(plain.encode(errors="surrogatepass"))
        return Piece("", plain.replace("%", "%%"), None, re.escape(plain), size, plain[0])
    if text == "%z":
        return Piece("z", "%s", lambda moment: _offset(moment, ""), "[+-][0-9]{4}(?:[0-9]{2})?", 7, "+", _DIGITS)
    if text == "%:z":
        pattern = "[+-][0-9]{2}:[0-9]{2}(?::[0-9]{2})?"
        return Piece("z", "%s", lambda moment: _offset(moment, ":"), pattern, 9, "+", ":")
    if letter in NUMBERS:
        width, count = NUMBERS[letter]
        if text[1] != "-":
            return Piece(letter, f"%0{width}d", count, f"[0-9]{{{width}}}", width, "0")
        if width in (2, 3):
            return Piece(letter, "%d", count, f"[0-9]{{1,{width}}}", width, "0", _DIGITS)
    elif letter in NAMES and text[1] != "-":
        names, index = NAMES[letter]
        pattern = f"(?:{'|'.join(names)})"
        return Piece(letter, "%s", lambda moment: names[index(moment)], pattern, max(map(len, names)), names[0][0])
    if text == "%":
        raise _refused(form, "ends with a single %", "Write %% for a percent sign.")
    known = f"%{', %'.join([*NUMBERS, *NAMES, 'z', ':z'])}"
    raise _refused(form, f"has {text!a}, which is none of those that mean the same everywhere", f"Use {known}.")


def _groups(pieces: list[Piece]) -> Iterator[str]:
    """Yield the patterns of pieces, each letter once as a group of that name."""
    named = set()
    for piece in pieces:
        yield f"(?P<{piece.letter}>{piece.pattern})" if piece.letter and piece.letter not in named else piece.pattern
        named.add(piece.letter)


def _meant(fields: dict[str, str]) -> tuple[datetime, datetime] | None:
    """Return the wall-clock times that what a text tells can mean; ``None`` if it does not tell the year.

    Raises:
        ValueError: There is no such date.
        OverflowError: It lies behind the end of time.
    """
    number = {letter: int(text) for letter, text in fields.items() if letter in NUMBERS}
    for letter in "Bb":
        if letter in fields:
            number.setdefault("m", NAMES[letter][0].index(fields[letter]) + 1)
    days = 1
    if number.keys() >= {"Y", "m", "d"}:
        first = date(number["Y"], number["m"], number["d"])
    elif number.keys() >= {"Y", "j"}:
        first = date(number["Y"], 1, 1) + (number["j"] - 1) * _DAY
    elif number.keys() >= {"G", "V"}:
        first, days = date.fromisocalendar(number["G"], number["V"], 1), 7
    elif number.keys() >= {"Y", "m"}:
        first, days = date(number["Y"], number["m"], 1), 31
    elif "Y" in number:
        first, days = date(number["Y"], 1, 1), 366
    elif "G" in number:
        first, days = date.fromisocalendar(number["G"], 1, 1), 53 * 7
    else:
        return None
    start, length = datetime(first.year, first.month, first.day), days * _DAY
    if days == 1 and "H" in number:
        start, length = start + timedelta(hours=number["H"]), timedelta(hours=1)
        if "M" in number:
            start, length = start + timedelta(minutes=number["M"]), timedelta(minutes=1)
    return start, start + length


def _offset(moment: datetime, colon: str) -> str:
    offset = moment.utcoffset()
    assert offset is not None
    seconds = offset // timedelta(seconds=1)
    minutes, second = divmod(abs(seconds), 60)
    parts = [minutes // 60, minutes % 60, second] if second else [minutes // 60, minutes % 60]
    return ("-" if seconds < 0 else "+") + colon.join(f"{part:02}" for part in parts)


def _refused(form: str, problem: str, hint: str) -> InvalidFieldError:
    return InvalidFieldError(f"format {form!a} {problem}", hint=hint, field="format")
