"""Random programs of three workers that share the work of two nodes, against a naive model of claims.

What one of them does may be cut open: after it has read, or right before it commits, the others do something. Then it
has to come out as if all of it had happened one after the other, in some order.
"""

from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.conftest import KINDS, available
from tests.property.claims_actions import (
    KEYS,
    NODES,
    RUNS,
    TTLS_S,
    WORKERS,
    actions,
    deferrable,
    few,
    reading_first,
    ticks,
)
from tests.property.claims_model import BEGIN, HOUR, Draft, Model, Refused, cells, in_order, slip_of
from tests.property.places import COST, OPENED, PATIENCE_S, in_a_directory, on_a_server

from seeknal.clock import FakeClock
from seeknal.errors import SeeknalError
from seeknal.model.intervals import Interval
from seeknal.state.lease import Lease

PATIENT_MS = 24 * 60 * 60 * 1000
"""Nobody gives up because time was made to pass."""


class Raised(NamedTuple):
    name: str


class Step(NamedTuple):
    """Something that was done, and what came out; ``given`` is in the words of the model."""

    verb: str
    given: dict[str, Any]
    outcome: object


def answers(do, *given, **named):
    """Do something in the model, and return what may come out."""
    try:
        return [do(*given, **named)]
    except Refused as refused:
        return [Raised(name) for name in refused.names]


def answer(model, step):
    return answers(getattr(model, step.verb), **step.given)


def hours(span):
    return BEGIN + span[0] * HOUR, BEGIN + span[1] * HOUR


class Store:
    """The verbs of the model, done by the instances of the workers."""

    def __init__(self, open_instance, age_leases, clock):
        self.open_instance = open_instance
        self.age_leases = age_leases
        self.clock = clock
        self.instances = {}
        for worker in range(WORKERS):
            self.reopen(worker)

    def reopen(self, worker):
        if worker in self.instances:
            self.instances[worker].close()
        self.instances[worker] = self.open_instance()
        self.instances[worker].initialize()

    def create_run(self, worker, run):
        self.instances[worker].create_run(run)

    def end_run(self, worker, run):
        self.instances[worker].update_run(run, status="failed")

    def delete_run(self, worker, run):
        return self.instances[worker].delete_run(run)

    def acquire(self, worker, key, ttl_s, owner):
        if not self.instances[worker].acquire_lock(*key, timeout_ms=0, ttl_ms=ttl_s * 1000):
            return None
        return next(lease for lease in self.locks(worker) if lease.key == key)

    def locks(self, worker):
        return {
            Lease(each.run_id, each.node_id, each.token, each.owner) for each in self.instances[worker].list_locks()
        }

    def release(self, worker, key):
        return self.instances[worker].release_lock(*key)

    def break_lock(self, worker, key):
        return self.instances[worker].break_lock(*key, reason="test") is not None

    def pass_time(self, worker, seconds):
        self.clock.advance(seconds=seconds)
        self.age_leases(seconds)

    def take(self, worker, node, run, wanted, lease, limit, most, at):
        instance, limits = self.instances[worker], {"lease": lease, "limit": limit, "max_attempts": most}
        if any(isinstance(each, str) for each in wanted):
            return instance.claim_partitions(run, node, wanted, **limits)
        return instance.claim_intervals(run, node, (Interval(*hours(each)) for each in wanted), **limits)

    def complete(self, worker, slip, rows, at):
        self.instances[worker].complete_claim(slip, row_count=rows if slip.partition is not None else None)

    def fail(self, worker, slip, error, at):
        return slip_of(self.instances[worker].fail_claim(slip, error))

    def give_back(self, worker, slip, at):
        self.instances[worker].release_claim(slip)

    def retry(self, worker, node, at):
        return sorted(map(slip_of, self.instances[worker].retry_parked(node)), key=repr)

    def add(self, worker, node, run, span, rows):
        if isinstance(span, str):
            self.instances[worker].add_completed_partition(run, node, span, row_count=rows)
        else:
            self.instances[worker].add_completed_interval(run, node, *hours(span))

    def restate(self, worker, node, span):
        if isinstance(span, str):
            return self.instances[worker].restate_partition(node, span)
        return self.instances[worker].restate_intervals(node, *hours(span))

    def claims(self, worker, node):
        claims = list(map(slip_of, self.instances[worker].list_claims(node)))
        assert [in_order(each) for each in claims] == sorted(map(in_order, claims))
        return sorted(claims, key=repr)

    def everything(self, worker):
        """Return what `Model.everything` does, as this worker sees it."""
        instance = self.instances[worker]
        done = {node: instance.get_completed_intervals(node) for node in NODES}
        parts = {node: instance.list_partitions(node) for node in NODES}
        return {
            "runs": set(instance.list_runs()),
            "locks": self.locks(worker),
            "claims": {node: self.claims(worker, node) for node in NODES},
            "hours": {
                node: {
                    hour for each in found for hour in range((each.start - BEGIN) // HOUR, (each.end - BEGIN) // HOUR)
                }
                for node, found in done.items()
            },
            "partitions": {
                node: {(each.partition, each.run_id, each.row_count) for each in found} for node, found in parts.items()
            },
        }


class UndoneError(Exception):
    """Thrown into a transaction that is to be rolled back."""


class Program(RuleBasedStateMachine):
    place = None  # set by the test: gives a store for one example: how to open an instance, and how its leases age

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.places = ExitStack()
        self.store = Store(*self.places.enter_context(type(self).place(self.clock)), self.clock)
        self.model = Model()
        self.leases = []
        self.claims = []
        self.watcher = 0

    def teardown(self):
        with self.places:
            for instance in self.store.instances.values():
                instance.close()

    @initialize(is_late=st.booleans())
    def begin_with_a_lock_for_each_worker(self, is_late):
        for run in RUNS:
            self.do(("create_run", {"worker": 0, "run": run}))
        for worker, key in enumerate(KEYS):
            self.do(("acquire", {"worker": worker, "key": key, "ttl_s": TTLS_S[1]}))
        if is_late:  # a range that failed is somebody else's now
            wanted = {"node": NODES[0], "run": RUNS[0], "wanted": ticks, "limit": 1, "most": 2}
            self.do(("take", {"worker": 0, "lease": 2, **wanted}))
            self.do(("fail", {"worker": 0, "slip": 0, "error": "boom"}))
            self.do(("take", {"worker": 1, "lease": 1, **wanted}))

    # ---- steps ----

    def chosen(self, verb, drawn):
        """Return what is given to a verb of the store: a lease or a claim for a number, mostly one that lives."""
        given = dict(drawn)
        if "lease" in given:
            living = [lease for lease in self.leases if self.model.lives(lease)]
            given["lease"] = nth_last(given["lease"], living if given["lease"] < 8 else [], self.leases)
        if "slip" in given:
            given["slip"] = nth_last(given["slip"], *self.pools(given["slip"]), self.claims)
        if None in (given.get("lease", ()), given.get("slip", ())):
            return None
        if verb in ("take", "complete", "fail", "give_back", "retry"):
            given["at"] = self.clock.now()
        if verb == "acquire":
            given["owner"] = "nobody"
        return given

    def pools(self, number):
        """Return the claims to choose from: those that live, or those that are over though their lease is held.

        Of the latter first those whose range somebody else has taken since.
        """
        pairs = [(claim, slip_of(claim)) for claim in self.claims]
        against = [(claim, slip, self.model.against_the_end_of(slip)) for claim, slip in pairs]
        if number < 6:
            return [[claim for claim, _, names in against if not names]]
        over = [(claim, slip) for claim, slip, names in against if names == {"ClaimEndedError"}]
        taken = [claim for claim, slip in over if self.model.is_claimed(slip.node, slip.range)]
        return [taken, [claim for claim, _ in over]] if number < 9 else []

    def perform(self, verb, given):
        """Do it in the store, and return it as a step for the model."""
        try:
            outcome = getattr(self.store, verb)(**given)
        except SeeknalError as error:
            outcome = Raised(type(error).__name__)
        told = dict(given)
        if verb == "take" and isinstance(outcome, list):
            self.claims += outcome
            outcome = list(map(slip_of, outcome))
        if verb == "acquire" and isinstance(outcome, Lease):
            self.leases.append(outcome)
            told["owner"] = outcome.owner
        if "slip" in told:
            told["slip"] = slip_of(told["slip"])
        if verb == "retry" and outcome:
            told["at"] = outcome[0].since  # whenever it was that it looked at the clock
            assert given["at"] <= told["at"] <= self.clock.now()
        note(f"{verb} {told}: {outcome}")
        return Step(verb, told, outcome)

    @rule(action=actions)
    def do(self, action):
        verb, drawn = action
        if (given := self.chosen(verb, drawn)) is not None:
            step = self.perform(verb, given)
            assert step.outcome in answer(self.model, step)

    def others(self, worker, drawn):
        """Let the other workers do something, and return the steps."""
        steps = []
        for verb, one in drawn:
            given = self.chosen(verb, {**one, "worker": (worker + 1 + one["worker"] % (WORKERS - 1)) % WORKERS})
            if given is not None:
                steps.append(self.perform(verb, given))
                assert steps[-1].outcome in answer(self.model, steps[-1])
        return steps

    @rule(
        action=reading_first,
        at=st.sampled_from(["read_claims", "read_locks", "read_intervals", "commit"]),
        drawn=few(actions, min_size=1),
    )
    def do_what_is_cut_open_by_others(self, action, at, drawn):
        verb, given = action[0], self.chosen(*action)
        if given is None:
            return
        before, steps = deepcopy(self.model), []
        instance = self.store.instances[given["worker"]]
        with cut(instance, at, lambda: steps.extend(self.others(given["worker"], drawn))):
            step = self.perform(verb, given)
        found = self.store.everything(given["worker"])
        for order in permutations([step, *steps]):
            self.model = deepcopy(before)
            if all(one.outcome in answer(self.model, one) for one in order) and found == self.model.everything(NODES):
                return
        pytest.fail(f"there is no order of {[step, *steps]} that leads to {found}")

    @rule(
        worker=st.integers(0, WORKERS - 1),
        first=few(deferrable),
        second=few(deferrable),
        drawn=few(actions),
        is_kept=st.booleans(),
        is_committed=st.sampled_from([True, True, True, False]),
    )
    def do_in_a_transaction(self, worker, first, second, drawn, is_kept, is_committed):
        instance, drafts = self.store.instances[worker], [Draft()]
        try:
            with instance.transaction():
                self.draft(worker, first, drafts[0])
                drafts.append(drafts[0].copy())
                try:
                    with instance.transaction():
                        self.draft(worker, second, drafts[1])
                        if not is_kept:
                            raise UndoneError
                except UndoneError:
                    drafts.pop()
                self.others(worker, drawn)
                if not is_committed:
                    raise UndoneError
            outcome = None
        except UndoneError:
            return
        except SeeknalError as error:
            outcome = Raised(type(error).__name__)
        assert outcome in answers(drafts[-1].commit, self.model)

    def draft(self, worker, drawn, draft):
        for verb, one in drawn:
            given = self.chosen(verb, {**one, "worker": worker})
            if given is None:
                continue
            step = self.perform(verb, given)
            assert step.outcome in answers(draft.note, self.model, step.verb, step.given)

    # ---- what always holds ----

    @invariant()
    def a_worker_sees_what_the_model_says(self):
        self.watcher = (self.watcher + 1) % WORKERS
        found = self.store.everything(self.watcher)
        assert found == self.model.everything(NODES)
        for slips in found["claims"].values():
            claimed = [cell for slip in slips if slip.status == "claimed" for cell in cells(slip.range)]
            assert len(claimed) == len(set(claimed))


def nth_last(number, *pools):
    """Return one of the first pool that is not empty, the last one for 0; ``None`` if all are empty."""
    return next((pool[-1 - number % len(pool)] for pool in pools if pool), None)


@contextmanager
def cut(instance, method, do):
    """Do something when a method of an instance is called next, before what the method does."""
    whole = getattr(instance, method)

    def begun(*args, **options):
        setattr(instance, method, whole)
        do()
        return whole(*args, **options)

    setattr(instance, method, begun)
    try:
        yield
    finally:
        setattr(instance, method, whole)


def run_programs(place, examples):
    machine = type("Program", (Program,), {"place": staticmethod(partial(place, busy_timeout_ms=PATIENT_MS))})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=30))


EXAMPLES = settings.default.max_examples // 6
"""Each of these programs takes some times as long as those of a single worker."""


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("opened", OPENED)
def test_workers_share_a_node_as_the_model_says(opened):
    run_programs(partial(in_a_directory, opened), EXAMPLES)


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("kind", KINDS)
def test_workers_share_a_node_on_a_server_as_the_model_says(kind, request, emptied_stores):
    stores = available(request, lambda: emptied_stores(kind))
    run_programs(partial(on_a_server, stores), max(1, EXAMPLES // COST[kind]))
