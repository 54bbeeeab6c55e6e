"""Cases about several processes on one store."""

from __future__ import annotations

import pytest

from seeknal.clock import SystemClock
from seeknal.errors import ConcurrencyError, LeaseLostError, LockHeldError
from seeknal.state.capabilities import Capability
from seeknal.state.testing.cases_leases import lease_of
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import NODE, everything
from seeknal.state.testing.peer import OpenInProcess, Peer
from seeknal.state.testing.scene import Scene


class ProcessCases:
    """Cases about several processes on one store."""

    @clause("FACT-1", "TX-3", "TX-7")
    @needs(Capability.PROCESSES)
    def test_a_process_sees_commits_only(self, scene: Scene, open_in_process: OpenInProcess) -> None:
        """And all of them at once; a conflict between processes is refused."""
        backend = scene.open(SystemClock())
        with Peer(open_in_process) as peer:
            peer.call("create_run", "r")
            assert backend.exists("r")
            before = everything(backend)
            peer.call("begin")
            for number in range(5):
                peer.call("set_node_state", "r", f"n{number}", status="success")
            assert everything(backend) == before
            peer.call("commit")
            assert len(backend.list_nodes("r")) == 5
            peer.call("begin")
            peer.call("get_node_state", "r", "n0")
            backend.set_node_state("r", "n0", row_count=1)
            peer.call("set_node_state", "r", "n0", row_count=2)
            with pytest.raises(ConcurrencyError):
                peer.call("commit")
            assert peer.call("get_node_state", "r", "n0") == backend.get_node_state("r", "n0")

    @clause("LOCK-1", "LOCK-4", "LOCK-7", "LOCK-8")
    @needs(Capability.PROCESSES)
    def test_locks_between_processes(self, scene: Scene, open_in_process: OpenInProcess) -> None:
        """Exclusive; renewed while the owner lives; free after it was killed; a late commit is refused."""
        backend = scene.open(SystemClock())
        backend.create_run("r")
        with Peer(open_in_process) as peer:
            assert peer.call("acquire_lock", "r", ttl_ms=600)
            lost = lease_of(backend)
            with pytest.raises(LockHeldError) as caught, backend.lock("r", timeout_ms=1200):
                raise AssertionError("two hold it")
            assert caught.value.holder.pid == peer.pid
            assert not backend.release_lock("r")
            peer.kill()
            assert backend.acquire_lock("r", timeout_ms=20_000)
            assert lease_of(backend).token == lost.token + 1
            with pytest.raises(LeaseLostError), backend.transaction(lease=lost):
                backend.set_node_state("r", NODE)
            assert not backend.node_exists("r", NODE)

    @clause("LOCK-4")
    @needs(Capability.PROCESSES)
    def test_a_process_that_ends_gives_its_locks_back(self, scene: Scene, open_in_process: OpenInProcess) -> None:
        """Without having closed its backend."""
        backend = scene.open(SystemClock())
        with Peer(open_in_process) as peer:
            assert peer.call("acquire_lock", "r", ttl_ms=600_000)
            assert len(backend.list_locks()) == 1
            peer.end()
        assert backend.list_locks() == []

    @clause("NODE-5", "TX-14", "NODE-4")
    @needs(Capability.PROCESSES)
    def test_no_update_is_lost(self, scene: Scene, open_in_process: OpenInProcess) -> None:
        """Three processes count on one node, by transaction and by patch."""
        backend = scene.open(SystemClock())
        backend.create_run("r")
        backend.set_node_state("r", NODE, row_count=0)
        times = 8
        with Peer(open_in_process) as one, Peer(open_in_process) as two, Peer(open_in_process) as three:
            peers = {"one": one, "two": two, "three": three}
            for name, peer in peers.items():
                peer.send("count", "r", NODE, name, times)
            for peer in peers.values():
                peer.answer()
        state = backend.get_node_state("r", NODE)
        assert state is not None
        assert state.row_count == times * len(peers)
        assert state.version == 1 + 2 * times * len(peers)
        wanted = {f"{prefix}{name}{number}" for prefix in ("", "patch ") for name in peers for number in range(times)}
        assert state.metadata.keys() == wanted
