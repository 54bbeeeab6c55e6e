"""Every backend against the memory oracle: the same random program, the same answers after each step."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.conftest import KINDS, available
from tests.property.places import COST, IS_LONG, OPENED, PATIENCE_S, in_a_directory, on_a_server

from seeknal.clock import FakeClock
from seeknal.errors import SeeknalError
from seeknal.state.memory import MemoryStateBackend, MemoryStore
from seeknal.state.testing.factories import everything

RUNS = ["r", "R", "a/b", "caf\u00e9"]
NODES = ["n", "N", "../n"]
NAMES = ("one", "two")

sides = st.sampled_from(NAMES)
runs = st.sampled_from(RUNS)
nodes = st.sampled_from(NODES)
hours = st.integers(0, 12)
metadata = st.dictionaries(
    st.sampled_from(["a", "b", "\u00e9"]),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.lists(st.integers(0, 3), max_size=2),
    max_size=2,
)  # fmt: skip
node_fields = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["pending", "running", "success", "failed", "skipped", "cached", "done"]),
        "row_count": st.none() | st.integers(-1, 2**63),
        "fingerprint": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "attempt": st.integers(0, 3),
        "metadata": metadata,
    },
)
run_statuses = st.sampled_from(["pending", "running", "success", "failed", "cancelled"])
versions = st.none() | st.integers(0, 4)


def at(hour):
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


class Pair:
    """Two instances on one store, each with the transactions it has begun."""

    def __init__(self, open_backend):
        self.open_backend = open_backend
        self.instances = {}
        self.begun = {name: [] for name in NAMES}
        for name in NAMES:
            self.reopen(name)

    def reopen(self, name):
        if name in self.instances:
            while self.begun[name]:
                self.instances[name].rollback_transaction(self.begun[name].pop())
            self.instances[name].close()
        self.instances[name] = self.open_backend()
        self.instances[name].initialize()

    def end(self, name, verb):
        getattr(self.instances[name], verb)(self.begun[name].pop())


class Program(RuleBasedStateMachine):
    place = None  # set by the test: gives a clock's store for one example: how to open it, and how its leases age

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.pairs = []
        self.watchers = NAMES
        self.places = ExitStack()
        self.open_tested, self.age_leases = self.places.enter_context(type(self).place(self.clock))

    @initialize()
    def begin_with_an_empty_store(self):
        store = MemoryStore()
        self.pairs = [
            Pair(lambda: MemoryStateBackend(store, clock=self.clock)),
            Pair(self.open_tested),
        ]

    def teardown(self):
        with self.places:
            for pair in self.pairs:
                for name in NAMES:
                    pair.reopen(name)
                    pair.instances[name].close()

    def both(self, do):
        """Do the same on both pairs; they return the same, or raise the same kind of error."""
        outcomes = []
        for pair in self.pairs:
            try:
                outcomes.append(("returned", plain(do(pair))))
            except SeeknalError as error:
                outcomes.append(("raised", type(error).__name__, getattr(error, "field", None)))
        assert outcomes[0] == outcomes[1]

    def call(self, name, verb, *args, **options):
        self.both(lambda pair: getattr(pair.instances[name], verb)(*args, **options))

    # ---- runs and nodes ----

    @rule(name=sides, run=runs, status=run_statuses, metadata=metadata)
    def create_run(self, name, run, status, metadata):
        self.call(name, "create_run", run, status, metadata=metadata, config=metadata)

    @rule(name=sides, run=runs, status=st.none() | run_statuses, metadata=metadata, version=versions)
    def update_run(self, name, run, status, metadata, version):
        fields = {} if status is None else {"status": status}
        self.call(name, "update_run", run, expected_version=version, metadata=metadata, **fields)

    @rule(name=sides, run=runs)
    def delete_run(self, name, run):
        self.call(name, "delete_run", run)

    @rule(name=sides, run=runs, node=nodes, fields=node_fields, overwrite=st.sampled_from([True, True, False]))
    def set_node(self, name, run, node, fields, overwrite):
        self.call(name, "set_node_state", run, node, overwrite=overwrite, **fields)

    @rule(name=sides, run=runs, node=nodes, fields=node_fields, version=versions)
    def set_node_at_a_version(self, name, run, node, fields, version):
        self.call(name, "set_node_state", run, node, expected_version=version, **fields)

    @rule(name=sides, run=runs, node=nodes)
    def delete_node(self, name, run, node):
        self.call(name, "delete_node_state", run, node)

    @rule(name=sides, run=runs, other=runs, node=nodes)
    def copy_a_whole_state(self, name, run, other, node):
        def copy(pair):
            instance = pair.instances[name]
            found = instance.get_node_state(run, node)
            if found is None:
                return None
            return instance.set_node_state(other, node, type(found)(status=found.status, metadata=found.metadata))

        self.both(copy)

    # ---- completed work ----

    @rule(name=sides, run=runs, node=nodes, start=hours, end=hours)
    def complete(self, name, run, node, start, end):
        self.call(name, "add_completed_interval", run, node, at(start), at(end))

    @rule(name=sides, node=nodes, start=hours, end=hours)
    def restate(self, name, node, start, end):
        self.call(name, "restate_intervals", node, at(start), at(end))

    @rule(name=sides, node=nodes, start=hours, end=hours, schedule=st.sampled_from([None, "@hourly", "*/40 * * * *"]))
    def missing(self, name, node, start, end, schedule):
        self.call(name, "get_missing_intervals", node, at(start), at(end), schedule)

    @rule(name=sides, run=runs, node=nodes, key=nodes, metadata=metadata)
    def complete_partition(self, name, run, node, key, metadata):
        self.call(name, "add_completed_partition", run, node, key, metadata=metadata)

    @rule(name=sides, node=nodes, key=nodes)
    def restate_partition(self, name, node, key):
        self.call(name, "restate_partition", node, key)

    # ---- transactions ----

    @rule(name=sides)
    def begin(self, name):
        if len(self.pairs[0].begun[name]) < 3:
            for pair in self.pairs:
                pair.begun[name].append(pair.instances[name].begin_transaction())

    @precondition(lambda self: self.pairs and any(self.pairs[0].begun.values()))
    @rule(name=sides, verb=st.sampled_from(["commit_transaction", "commit_transaction", "rollback_transaction"]))
    def end(self, name, verb):
        if self.pairs[0].begun[name]:
            self.both(lambda pair: pair.end(name, verb))

    @rule(name=sides, run=runs, node=nodes, fields=node_fields, fails=st.booleans())
    def in_a_block(self, name, run, node, fields, fails):
        def block(pair):
            instance = pair.instances[name]
            try:
                with instance.transaction():
                    instance.set_node_state(run, node, **fields)
                    instance.add_completed_interval(run, node, at(1), at(2))
                    if fails:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                return "rolled back"

        self.both(block)

    # ---- locks, time, life ----

    @rule(name=sides, run=runs, node=st.none() | nodes)
    def acquire(self, name, run, node):
        self.call(name, "acquire_lock", run, node, timeout_ms=0)

    @rule(name=sides, run=runs, node=st.none() | nodes)
    def release(self, name, run, node):
        self.call(name, "release_lock", run, node)

    @rule(name=sides, run=runs, node=st.none() | nodes)
    def break_lock(self, name, run, node):
        self.both(lambda pair: bool(pair.instances[name].break_lock(run, node, reason="test")))

    @rule(seconds=st.sampled_from([31, 3600, 86_400 * 31]))
    def pass_time(self, seconds):
        self.clock.advance(seconds=seconds)
        self.age_leases(seconds)

    @rule(
        name=sides,
        dry_run=st.booleans(),
        days=st.sampled_from([0, 30]),
        keep_last=st.sampled_from([0, 0, 1, 3]),
        status=st.sampled_from([None, None, "success", "failed"]),
    )
    def cleanup(self, name, dry_run, days, keep_last, status):
        limits = {"older_than": timedelta(days=days), "keep_last": keep_last, "status": status}
        self.call(name, "cleanup", **limits, dry_run=dry_run)

    @rule(name=sides, run=runs, is_pinned=st.booleans())
    def pin(self, name, run, is_pinned):
        self.call(name, "set_metadata", run, {"pinned": {"reason": "test"} if is_pinned else None})

    @rule(name=sides, action=st.sampled_from(["restate", "not a word"]), run=st.none() | runs, node=st.none() | nodes)
    def log_change(self, name, action, run, node):
        self.both(lambda pair: bool(pair.instances[name].log_change(action, run_id=run, node_id=node, reason="test")))

    @rule(name=sides, run=st.none() | runs, limit=st.none() | st.integers(0, 3), newest_first=st.booleans())
    def list_changes(self, name, run, limit, newest_first):
        asked = {"run_id": run, "limit": limit, "newest_first": newest_first}
        self.both(lambda pair: logged(pair.instances[name], **asked))

    @rule(name=sides)
    def reopen(self, name):
        for pair in self.pairs:
            pair.reopen(name)

    @invariant()
    def both_say_the_same(self):
        """Asked by one instance after a step and by the other after the next, in the long form by both."""
        if self.pairs:
            oracle, tested = self.pairs
            self.watchers = self.watchers[1:] + self.watchers[:1]
            for name in NAMES if IS_LONG else self.watchers[:1]:
                assert everything(tested.instances[name], NODES) == everything(oracle.instances[name], NODES)
                assert logged(tested.instances[name]) == logged(oracle.instances[name])


def logged(instance, **asked):
    """Return the change log without what differs from entry to entry and from clock to clock."""
    return [(each.action, each.run_id, each.node_id, each.reason) for each in instance.list_changes(**asked)]


def plain(value):
    """Return a record without what a store is free to choose."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    fields = getattr(value, "__struct_fields__", None)
    return {name: getattr(value, name) for name in fields if name != "sequence"} if fields else value


def run_programs(place, examples):
    machine = type("Program", (Program,), {"place": staticmethod(place)})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=30))


EXAMPLES = settings.default.max_examples if IS_LONG else settings.default.max_examples // 2


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("opened", OPENED)
def test_the_backend_does_what_the_oracle_does(opened):
    run_programs(partial(in_a_directory, opened), EXAMPLES)


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_does_on_a_server_what_the_oracle_does(kind, request, emptied_stores):
    stores = available(request, lambda: emptied_stores(kind))
    run_programs(partial(on_a_server, stores), max(2, EXAMPLES // COST[kind]))
