"""Backends that are wrong in one way each. None of them is to be repaired."""

import msgspec

from seeknal.errors import LeaseLostError, StaleVersionError
from seeknal.state.batch import Batch
from seeknal.state.change_log import new_change
from seeknal.state.grants import granted
from seeknal.state.image import sequences_of
from seeknal.state.lease import Lease
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.transaction_block import TransactionBlock


class DropsRollback(MemoryStateBackend):
    """Commits what was written before an exception."""

    def transaction(self, lease=None):
        class Block(TransactionBlock):
            def __exit__(self, kind, error, trace):
                super().__exit__(None, None, None)

        return Block(self, lease)


class SavepointsDoNothing(MemoryStateBackend):
    """An inner rollback keeps what the inner transaction wrote."""

    def transaction(self, lease=None):
        class Block(TransactionBlock):
            def __exit__(self, kind, error, trace):
                if len(self._store._local.blocks) > 1:
                    kind = error = trace = None
                super().__exit__(kind, error, trace)

        return Block(self, lease)


class IgnoresTheLeaseToken(MemoryStateBackend):
    """Commits under any lease."""

    def commit(self, batch):
        return super().commit(msgspec.structs.replace(batch, leases=[]))


class ComparesTheKeyOnly(MemoryStateBackend):
    """Takes any holder of the lock for the one that asks."""

    def commit(self, batch):
        for lease in batch.leases:
            if lease.key not in [(lock.run_id, lock.node_id) for lock in self.read_locks()]:
                raise LeaseLostError("lost")
        return super().commit(msgspec.structs.replace(batch, leases=[]))


class FoldsCase(MemoryStateBackend):
    """As a store does whose collation folds case."""

    def create_run(self, run_id, *args, **options):
        return super().create_run(run_id.lower() if type(run_id) is str else run_id, *args, **options)

    def get_run(self, run_id):
        return super().get_run(run_id.lower() if type(run_id) is str else run_id)


class SanitisesIds(MemoryStateBackend):
    """Makes file names of ids, so that two of them meet."""

    def set_node_state(self, run_id, node_id, *args, **options):
        return super().set_node_state(run_id, str(node_id).replace("/", "_"), *args, **options)


class LimitZeroIsAll(MemoryStateBackend):
    """Takes nothing for everything."""

    def read_run_ids(self, status, newest_first, limit):
        return super().read_run_ids(status, newest_first, limit or None)


class TearsABatch(MemoryStateBackend):
    """Writes the runs and the completed work, then finds out that a node is stale."""

    def commit(self, batch):
        half = Batch(runs=batch.runs, work=batch.work, run_versions=batch.run_versions)
        rest = msgspec.structs.replace(batch, runs=[], work=[], run_versions={})
        super().commit(half)
        return super().commit(rest)


class ForgetsIntervalsOnDelete(MemoryStateBackend):
    """Takes a run's completed work along with it."""

    def commit(self, batch):
        given = super().commit(batch)
        for run_id in batch.deleted_runs:
            for work in self.store.image.work.values():
                work.intervals = [each for each in work.intervals if each.run_id != run_id]
        return given


class LetsAStaleVersionThrough(MemoryStateBackend):
    """The last writer wins."""

    def commit(self, batch):
        return super().commit(msgspec.structs.replace(batch, run_versions={}, node_versions={}))


class IgnoresExpectedVersion(MemoryStateBackend):
    """Writes whatever the writer saw."""

    def update_run(self, run_id, *, expected_version=None, **fields):
        return super().update_run(run_id, **fields)


class ReleaseFreesAnybodys(MemoryStateBackend):
    """Frees the lock of whoever holds it."""

    def release_lock(self, run_id, node_id=None):
        super().release_lock(run_id, node_id)
        return self.seize_lock((run_id, node_id), "released") is not None


class TokenStandsStill(MemoryStateBackend):
    """Grants the same token again."""

    def grant_lock(self, key, owner, ttl_ms):
        locks = self.store.image.locks
        entry = locks.get(key)
        if entry is not None and not entry.is_held(self.clock.ticks_us()):
            del locks[key]
        return super().grant_lock(key, owner, ttl_ms)


class ReEntrant(MemoryStateBackend):
    """Grants a lock to the instance that holds it."""

    def acquire_lock(self, run_id, node_id=None, *args, **options):
        if isinstance(run_id, str) and self._keeper.get((run_id, node_id)):
            return True
        return super().acquire_lock(run_id, node_id, *args, **options)


class LeaseByWallClock(MemoryStateBackend):
    """Measures leases by each client's own wall clock."""

    def grant_lock(self, key, owner, ttl_ms):
        entry = self.store.image.locks.get(key)
        if entry is not None and entry.holder.expires_at <= self.clock.now():
            entry = msgspec.structs.replace(entry, is_free=True)
        entry = granted(entry, key, owner, ttl_ms, self.clock)
        self.store.image.locks[key] = entry
        return entry.holder


class ReturnsItsOwn(MemoryStateBackend):
    """Hands out the dictionaries that it keeps."""

    def get_node_state(self, run_id, node_id):
        return (self._local.unit.node if self._local.unit else self.read_node)(run_id, node_id)


class LatestByClock(MemoryStateBackend):
    """Orders states by when they say they finished."""

    def read_latest(self, node_id, status, hidden):
        states = [self.read_node(run_id, node_id) for run_id in self.store.image.runs if run_id not in hidden]
        found = [state for state in states if state and status in (None, state.status) and state.finished_at]
        return max(found, key=lambda state: state.finished_at, default=super().read_latest(node_id, status, hidden))


class DirtyReads(MemoryStateBackend):
    """Shows uncommitted runs to everybody."""

    def create_run(self, run_id, *args, **options):
        run = super().create_run(run_id, *args, **options)
        if self.in_transaction:
            self.store.image.put_run(run)
        return run


class CleansTheNewestSuccess(MemoryStateBackend):
    """Forgets what the next run would build on."""

    def get_latest_node_state(self, node_id, status=None):
        return None


class CleansThePinned(MemoryStateBackend):
    """Cannot see a pin when it cleans up."""

    def _runs_of(self, known):
        return (msgspec.structs.replace(run, metadata={}) for run in super()._runs_of(known))


class CleansTheLast(MemoryStateBackend):
    """Keeps one run too few."""

    def cleanup(self, *, keep_last=0, **rules):
        return super().cleanup(keep_last=max(0, keep_last - 1) if isinstance(keep_last, int) else keep_last, **rules)


class CleansTheLocked(MemoryStateBackend):
    """Deletes a run that somebody works on, and takes the lock with it."""

    def _retire(self, runs, **options):
        locks, self.list_locks = self.list_locks, list
        try:
            return super()._retire(runs, **options)
        finally:
            self.list_locks = locks

    def _let_go(self, run_id):
        self.delete_run(run_id)


class MergesNothing(MemoryStateBackend):
    """Keeps touching intervals apart."""

    def get_completed_intervals(self, node_id):
        found = super().get_completed_intervals(node_id)
        return [msgspec.structs.replace(each, end=each.start + (each.end - each.start) / 2) for each in found] + [
            msgspec.structs.replace(each, start=each.start + (each.end - each.start) / 2) for each in found
        ]


class KeepsLocksAtTheEnd(MemoryStateBackend):
    """Forgets that a finished run needs no lock."""

    def commit(self, batch):
        return super().commit(msgspec.structs.replace(batch, freed_runs=[]))


class NodesOutliveTheirRun(MemoryStateBackend):
    """Deletes the run alone."""

    def commit(self, batch):
        image = self.store.image
        gone = {run_id: dict(image.nodes_of(run_id)) for run_id in batch.deleted_runs}
        given = super().commit(batch)
        for run_id, nodes in gone.items():
            image._nodes.setdefault(run_id, {}).update(nodes)
        return given


class RaisesADriversError(MemoryStateBackend):
    """Lets an exception through that is not of the tree."""

    def commit(self, batch):
        try:
            return super().commit(batch)
        except StaleVersionError as error:
            raise OSError("UNIQUE constraint failed") from error


class ForgetsOnClose(MemoryStateBackend):
    """Keeps its locks when it is closed."""

    def free_lock(self, lease: Lease):
        return True


class RenumbersOnUpdate(MemoryStateBackend):
    """Moves a run to the end of the list with every write."""

    def commit(self, batch):
        image = self.store.image
        with self.store.mutex:
            image.check(batch, self.clock.ticks_us())
            fresh = [msgspec.structs.replace(run, sequence=0) for run in batch.runs]
            numbered = image.numbered(msgspec.structs.replace(batch, runs=fresh))
            image.apply(numbered)
            image.runs = dict(sorted(image.runs.items(), key=lambda item: item[1].sequence))
        return sequences_of(numbered)


class LogsBeforeTheCommit(MemoryStateBackend):
    """Writes an entry of the change log at once, inside a transaction too."""

    def log_change(self, action, **fields):
        change = new_change(self.clock, action, **{"detail": {}, **fields})
        self.commit(Batch(log=[change]))
        return change


class BreaksALockSilently(MemoryStateBackend):
    """Leaves no entry about a lock that was broken."""

    def seize_lock(self, key, reason):
        logged = dict(self.store.image.log())
        holder = super().seize_lock(key, reason)
        self.store.image._log = logged
        return holder


class StampsPartitionsWithNow(MemoryStateBackend):
    """Does not believe who says when a partition was completed."""

    def add_completed_partition(self, *names, completed_at=None, **fields):
        return super().add_completed_partition(*names, **fields)


class ForgetsWhoHasPartitions(MemoryStateBackend):
    """Names the nodes with intervals alone."""

    def list_worked_nodes(self):
        return [node_id for node_id in super().list_worked_nodes() if self.get_completed_intervals(node_id)]


class GivesARangeToAnybody(MemoryStateBackend):
    """Does not look at what others have claimed."""

    def read_claims(self, node_id):
        return super().read_claims(node_id)[0], []


class EndsAClaimThatIsOver(MemoryStateBackend):
    """Completes whatever became of the claim."""

    def commit(self, batch):
        return super().commit(msgspec.structs.replace(batch, ended_claims=[]))


class BuriesNoClaims(MemoryStateBackend):
    """Takes a worker for alive that is gone."""

    def _living(self):
        return {claim.lease_owner for claims in self.store.image.claims.values() for claim in claims.values()}
