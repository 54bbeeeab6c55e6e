"""Ids and the codec: what goes in comes out, or is refused."""

import string
import unicodedata
from datetime import UTC

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seeknal.errors import InvalidIdError
from seeknal.model.codec import decode, encode, json_copy, json_object, pretty
from seeknal.model.ids import MAX_ID_BYTES, check_id
from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus

text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(text, json_values, max_size=5)
moments = st.none() | st.datetimes(timezones=st.just(UTC))


@given(st.text() | st.text(string.ascii_letters + "./ ", max_size=200))
@example("x" * 190)
@example("x" * 191)
@example("\u00e9" * 95)
@example("\ud800")
def test_ids_are_kept_or_refused(value):
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = None
    fine = size is not None and 0 < size <= MAX_ID_BYTES and not any(unicodedata.category(c) == "Cc" for c in value)
    if fine:
        assert check_id(value, "run_id") == value
    else:
        with pytest.raises(InvalidIdError) as caught:
            check_id(value, "run_id")
        assert str(caught.value).isascii()
        assert caught.value.field == "run_id"


@given(objects)
def test_json_survives(value):
    checked = json_object(value, "metadata")
    again = decode(encode(checked), dict)
    assert again == checked == json_copy(checked) == value
    assert repr(sorted(again.items())) == repr(sorted(decode(encode(again), dict).items()))
    assert decode(pretty(checked), dict) == value
    assert encode(again) == encode(checked)


@given(
    st.builds(
        NodeState,
        run_id=text,
        node_id=text,
        status=st.sampled_from(NodeStatus),
        started_at=moments,
        finished_at=moments,
        duration_ms=st.none() | st.integers(0, 2**63 - 1),
        error_message=st.none() | text,
        metadata=objects,
        version=st.integers(0, 2**63 - 1),
    )
)
def test_records_survive(state):
    assert decode(encode(state), NodeState) == state
    run = RunState(run_id=state.run_id, started_at=state.started_at, metadata=state.metadata, version=state.version)
    assert decode(encode(run), RunState) == run
