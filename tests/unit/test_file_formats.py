"""The journal's frames and the names of files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.errors import CorruptStateError
from seeknal.model.ids import MAX_ID_BYTES
from seeknal.state.file import journal
from seeknal.state.file.journal import encode_frame, frames, read_frames
from seeknal.state.file.layout import file_name

payloads = st.lists(st.binary(min_size=1, max_size=60).map(lambda data: data.replace(b"\n", b" ")), max_size=6)
ids = st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() and len(text.encode()) <= MAX_ID_BYTES)


@given(payloads)
def test_frames_come_back_as_they_were_written(contents: list[bytes]) -> None:
    data = b"".join(map(encode_frame, contents))
    found = list(frames(data, 0, "journal"))
    assert [frame.payload for frame in found] == contents
    assert not found or found[-1].end == len(data)


@given(payloads.filter(len), st.data())
def test_a_cut_anywhere_leaves_the_whole_frames_before_it(contents: list[bytes], data: st.DataObject) -> None:
    written = b"".join(map(encode_frame, contents))
    size = data.draw(st.integers(0, len(written)))
    found = [frame.payload for frame in frames(written[:size], 0, "journal")]
    assert found == contents[: len(found)]
    assert sum(len(encode_frame(payload)) for payload in contents[: len(found) + 1]) > size or found == contents


@given(payloads.filter(len), st.data())
def test_a_flipped_bit_anywhere_is_found_with_the_offset_of_its_frame(
    contents: list[bytes], data: st.DataObject
) -> None:
    written = b"".join(map(encode_frame, contents))
    bit = data.draw(st.integers(0, len(written) * 8 - 1))
    flipped = bytearray(written)
    flipped[bit // 8] ^= 1 << bit % 8
    starts = [0]
    for payload in contents:
        starts.append(starts[-1] + len(encode_frame(payload)))
    with pytest.raises(CorruptStateError) as raised:
        list(frames(bytes(flipped), 1000, "journal"))
    assert raised.value.offset == 1000 + max(start for start in starts if start <= bit // 8)


@given(payloads.filter(len), st.integers(1, 40), st.data())
def test_a_journal_that_is_read_in_pieces_holds_the_same_frames(
    contents: list[bytes], piece: int, data: st.DataObject
) -> None:
    written = b"".join(map(encode_frame, contents))
    kept = written[: data.draw(st.integers(0, len(written)))] + b"\0" * data.draw(st.integers(0, 3))
    with patch.object(journal, "PIECE_BYTES", piece), tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), b"before" + kept, 0)
        found = list(read_frames(file.fileno(), 6, 6 + len(kept), Path("journal")))
    assert found == list(frames(kept, 6, "journal"))


@given(ids, ids)
def test_two_ids_never_share_a_file_even_where_case_is_folded(one: str, other: str) -> None:
    if one != other:
        assert file_name(one).casefold() != file_name(other).casefold()


@given(ids)
def test_the_name_of_a_file_stays_in_its_directory(an_id: str) -> None:
    name = file_name(an_id)
    assert "/" not in name
    assert not name.startswith(".")
    assert 1 <= len(name) <= 120
    assert name.isascii()


def test_long_ids_that_begin_alike_have_files_of_their_own() -> None:
    assert file_name("x" * 189 + "a") != file_name("x" * 189 + "b")
    assert len(file_name("é" * 95)) <= 120
