"""What claims are, said a second time and naively: sets of hours, and dictionaries.

A range is a pair of hours or the key of a partition, and its cells are these hours, or the key. There are no versions,
no order of reads and no search here: a step looks at everything, and happens at once. Each verb checks before it
writes.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from seeknal.model.claims import GONE
from seeknal.state.lease import Lease

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

Range = tuple[int, int] | str


class Slip(NamedTuple):
    """What is kept of a range that was taken."""

    node: str
    range: Range
    status: str
    attempt: int
    most: int
    error: str | None
    since: datetime
    run: str
    lease: Lease
    taking: int


def slip_of(claim):
    """Return what a store says of a claim, in the words of the model."""
    span = claim.partition if claim.start is None else ((claim.start - BEGIN) // HOUR, (claim.end - BEGIN) // HOUR)
    lease = Lease(claim.lease_run_id, claim.lease_node_id, claim.lease_token, claim.lease_owner)
    attempts = (claim.attempt, claim.max_attempts, claim.error_message)
    return Slip(claim.node_id, span, claim.status.value, *attempts, claim.since, claim.run_id, lease, claim.sequence)


def cells(span):
    return {span} if isinstance(span, str) else set(range(*span))


def in_order(slip):
    """Sort intervals by their start, then partitions by their bytes."""
    return (True, 0, slip.range.encode()) if isinstance(slip.range, str) else (False, slip.range[0], b"")


def failed(slip, error, since):
    status = "parked" if slip.attempt >= slip.most else "open"
    return slip._replace(status=status, error=error, since=since)


class Refused(Exception):
    """The names of the errors that a store may give."""

    def __init__(self, *names):
        self.names = names


@dataclass(frozen=True)
class Grant:
    """A lease, the worker whose instance keeps it, and the second in which it ends."""

    worker: int
    lease: Lease
    ends: int


class Model:
    """The whole store, and the seconds that have passed."""

    def __init__(self):
        self.seconds = 0
        self.runs = set()
        self.tokens = Counter()
        self.held = {}
        self.done = defaultdict(dict)
        self.slips = defaultdict(dict)
        self.takings = Counter()

    # ---- what can be asked ----

    def lives(self, lease):
        grant = self.held.get(lease.key)
        return grant is not None and grant.lease == lease and self.seconds < grant.ends

    def is_done(self, node, span):
        return cells(span) <= self.done[node].keys()

    def is_claimed(self, node, span):
        return span in self.slips[node] and self.standing(node)[span].status == "claimed"

    def standing(self, node):
        """Return all slips of a node, those whose worker is gone as they stand."""
        return {
            span: slip if slip.status != "claimed" or self.lives(slip.lease) else failed(slip, GONE, slip.since)
            for span, slip in self.slips[node].items()
        }

    def listed(self, node):
        found = self.standing(node).values()
        return sorted((one for one in found if one.status == "claimed" or not self.is_done(node, one.range)), key=repr)

    def everything(self, nodes):
        hours = {node: {cell for cell in self.done[node] if isinstance(cell, int)} for node in nodes}
        parts = {
            node: {(cell, *self.done[node][cell]) for cell in self.done[node].keys() - hours[node]} for node in nodes
        }
        return {
            "runs": self.runs,
            "locks": {grant.lease for grant in self.held.values() if self.lives(grant.lease)},
            "claims": {node: self.listed(node) for node in nodes},
            "hours": hours,
            "partitions": parts,
        }

    # ---- runs, locks, time ----

    def create_run(self, worker, run):
        if run in self.runs:
            raise Refused("ConcurrencyError")
        self.runs.add(run)

    def end_run(self, worker, run):
        self.need(run)
        self.free(run)

    def delete_run(self, worker, run):
        if run not in self.runs:
            return False
        self.runs.remove(run)
        self.free(run)
        return True

    def need(self, run):
        if run not in self.runs:
            raise Refused("RunNotFoundError")

    def free(self, run):
        self.held = {key: grant for key, grant in self.held.items() if key[0] != run}

    def acquire(self, worker, key, ttl_s, owner):
        if key in self.held and self.lives(self.held[key].lease):
            return None
        self.tokens[key] += 1
        lease = Lease(*key, self.tokens[key], owner)
        self.held[key] = Grant(worker, lease, self.seconds + ttl_s)
        return lease

    def release(self, worker, key):
        grant = self.held.get(key)
        if grant is None or not self.lives(grant.lease) or grant.worker != worker:
            return False
        del self.held[key]
        return True

    def break_lock(self, worker, key):
        grant = self.held.get(key)
        if grant is None or not self.lives(grant.lease):
            return False
        del self.held[key]
        return True

    def reopen(self, worker):
        self.held = {key: grant for key, grant in self.held.items() if grant.worker != worker}

    def pass_time(self, worker, seconds):
        self.seconds += seconds

    # ---- claims ----

    def take(self, worker, node, run, wanted, lease, limit, most, at):
        if not self.lives(lease):
            raise Refused("LeaseLostError")
        standing = self.standing(node)
        busy = {cell for slip in self.listed(node) if slip.status != "open" for cell in cells(slip.range)}
        found = []
        for span in wanted:
            if len(found) < limit and not self.is_done(node, span) and not cells(span) & busy:
                busy |= cells(span)
                found.append(span)
        if found:
            self.need(run)
            self.takings[node] += 1
        taken = []
        for span in found:
            attempt, error = (standing[span].attempt, standing[span].error) if span in standing else (0, None)
            taken.append(Slip(node, span, "claimed", attempt + 1, most, error, at, run, lease, self.takings[node]))
            self.slips[node][span] = taken[-1]
        return taken

    def against_the_end_of(self, slip):
        """Return the errors that forbid to end a claim, which is no other one of its range and its lease."""
        stands = self.slips[slip.node].get(slip.range)
        names = set() if self.lives(slip.lease) else {"LeaseLostError"}
        if stands is None or (stands.status, stands.taking) != ("claimed", slip.taking):
            names.add("ClaimEndedError")
        return names

    def end(self, slip, new, needed=()):
        names = self.against_the_end_of(slip)
        names |= {"RunNotFoundError" for run in needed if run not in self.runs}
        if names:
            raise Refused(*names)
        del self.slips[slip.node][slip.range]
        if new is not None:
            self.slips[slip.node][slip.range] = new

    def complete(self, worker, slip, rows, at):
        self.end(slip, None, [slip.run])
        self.add(worker, slip.node, slip.run, slip.range, rows if isinstance(slip.range, str) else None)

    def fail(self, worker, slip, error, at):
        new = failed(slip, error, at)
        self.end(slip, new)
        return new

    def give_back(self, worker, slip, at):
        is_known = slip.attempt > 1 or slip.error is not None
        new = slip._replace(status="open", attempt=slip.attempt - 1, since=at)
        self.end(slip, new if is_known else None)

    def retry(self, worker, node, at):
        parked = [slip for slip in self.listed(node) if slip.status == "parked"]
        opened = [slip._replace(status="open", attempt=0, since=at) for slip in parked]
        self.takings[node] += bool(opened)
        self.slips[node].update((slip.range, slip) for slip in opened)
        return sorted(opened, key=repr)

    # ---- by hand ----

    def add(self, worker, node, run, span, rows):
        self.need(run)
        self.done[node].update((cell, (run, rows)) for cell in cells(span))

    def restate(self, worker, node, span):
        found = [self.done[node].pop(cell, None) for cell in cells(span)]
        return found != [None] if isinstance(span, str) else None


class Draft:
    """What a transaction has noted. Nothing of it happens before the end, and then all of it does, or nothing."""

    def __init__(self, noted=(), needed=()):
        self.noted = list(noted)
        self.needed = list(needed)

    def copy(self):
        return Draft(self.noted, self.needed)

    def ended(self):
        return [given["slip"] for _, given in self.noted if "slip" in given]

    def note(self, model, verb, given):
        """Return what the verb returns within the transaction."""
        needed = [given["slip"].run if verb == "complete" else given["run"]] if verb in ("complete", "add") else []
        for run in needed:
            model.need(run)
        if given.get("slip") in self.ended():
            raise Refused("ClaimEndedError")
        self.needed += needed
        self.noted.append((verb, given))
        return failed(given["slip"], given["error"], given["at"]) if verb == "fail" else None

    def commit(self, model):
        names = {name for slip in self.ended() for name in model.against_the_end_of(slip)}
        names |= {"RunNotFoundError" for run in self.needed if run not in model.runs}
        if names:
            raise Refused(*names)
        for verb, given in self.noted:
            getattr(model, verb)(**given)
