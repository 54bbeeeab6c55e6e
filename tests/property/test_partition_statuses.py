"""How partitions stand, in any pages and by any status, against a table of keys."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from seeknal.state.memory import MemoryStateBackend

KEYS = ["A", "B", "a", "b", "é", "中", "\U0001f600"]
WHAT = st.sampled_from(["completed", "running", "failed", "parked", "released", "by hand"])


@given(
    tried=st.dictionaries(st.sampled_from(KEYS), WHAT),
    expected=st.sets(st.sampled_from(KEYS)),
    limit=st.integers(1, 8),
)
def test_every_status_in_pages_is_what_a_table_says(tried, expected, limit):
    with ExitStack() as stack:
        store = stack.enter_context(MemoryStateBackend())
        store.create_run("r")
        store.expect_partitions("n", expected)
        lease = stack.enter_context(store.lock("r", "worker"))
        wanted = dict.fromkeys(expected, "missing")
        for key, what in tried.items():
            (claim,) = store.claim_partitions("r", "n", [key], lease=lease, max_attempts=1 if what == "parked" else 3)
            if what == "completed":
                store.complete_claim(claim)
            elif what in ("failed", "parked"):
                store.fail_claim(claim, "no")
            elif what == "released":
                store.release_claim(claim)
            elif what == "by hand":
                store.add_completed_partition("r", "n", key)
            wanted[key] = {"parked": "failed", "by hand": "completed"}.get(what, what)
            if what == "released":  # as if nobody had tried
                del wanted[key]
                if key in expected:
                    wanted[key] = "missing"
        table = [(key, wanted[key]) for key in sorted(wanted, key=str.encode)]
        for status in (None, "completed", "running", "failed", "missing"):
            found, after = [], None
            while page := store.list_partition_statuses("n", status=status, after=after, limit=limit):
                assert len(page) <= limit
                found += [(each.partition, str(each.status)) for each in page]
                after = page[-1].partition
            assert found == [(key, is_so) for key, is_so in table if status in (None, is_so)]
            whole = store.list_partition_statuses("n", status=status)
            assert [(each.partition, str(each.status)) for each in whole] == found
        assert store.get_missing_partitions("n") == [
            key for key, what in table if key in expected and what != "completed"
        ]
