"""What the comparison with peers relies on: fair turns, durable limits, and no peer that is missing unnoticed."""

import math
import os
import signal
import sys
from contextlib import ExitStack
from itertools import pairwise, permutations
from platform import python_version

import pytest
from benchmarks.peers import process
from benchmarks.peers.process import OURS, Peer, syncs
from benchmarks.rounds import fitted, in_turn, take_turns
from benchmarks.workloads import peers
from benchmarks.workloads.peers import RAW, Contender, compared, on_file


def costing(seconds):
    return lambda times: times * seconds


def test_turns_of_all_take_as_long():
    works = {"ours": costing(0.001), "slow": costing(0.1), "fast": costing(0.0005)}
    assert fitted(works, like="ours", times=2000) == {"ours": 2000, "slow": 20, "fast": 4000}


def test_the_slowest_still_does_it_a_few_times():
    assert fitted({"ours": costing(0.001), "slow": costing(9)}, like="ours", times=10, least=3)["slow"] == 3


def test_what_fails_has_a_turn_all_the_same():
    assert fitted({"ours": costing(0.001), "failed": lambda _: math.nan}, like="ours", times=10)["failed"] == 5


def test_each_takes_its_own_number_of_times():
    done = {"ours": [], "slow": []}
    works = {name: lambda times, done=each: done.append(times) or times for name, each in done.items()}
    took = take_turns(works, rounds=2, times={"ours": 8, "slow": 4})
    assert done == {"ours": [2, 8, 8], "slow": [1, 4, 4]}
    assert took == {"ours": [1e6, 1e6], "slow": [1e6, 1e6]}


@pytest.mark.parametrize("names", ["ab", "abcd", "abcdefghijkl"])
def test_everyone_follows_everyone_else_once_and_has_each_place_once(names):
    rounds = [in_turn(names, number) for number in range(len(names))]
    assert all(sorted(each) == list(names) for each in rounds)
    assert all(sorted(places) == list(names) for places in zip(*rounds, strict=True))
    assert sorted(pair for each in rounds for pair in pairwise(each)) == sorted(permutations(names, 2))


@pytest.mark.parametrize("names", ["abc", "abcde"])
def test_of_an_odd_number_everyone_does_so_twice_in_twice_as_many_rounds(names):
    rounds = [in_turn(names, number) for number in range(2 * len(names))]
    assert all(sorted(places) == sorted(names * 2) for places in zip(*rounds, strict=True))
    assert sorted(pair for each in rounds for pair in pairwise(each)) == sorted([*permutations(names, 2)] * 2)


@pytest.mark.parametrize(("store", "rest"), [("file", ["raw.log", "400"]), ("sqlite", ["raw.db"])])
def test_the_disk_is_made_to_write_each_raw_transition(tmp_path, store, rest):
    with Peer(OURS, "raw_transitions.py", [store, str(tmp_path / rest[0]), *rest[1:]]) as peer:
        count = syncs(peer.pid, peer.work, 20)
    if count is None:
        pytest.skip("there is no strace, or it may not look")
    assert count >= 1


def test_a_peer_that_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "ENVIRONMENTS", tmp_path / "nothing")
    finding = compared("file", on_file(tmp_path / "file"), rounds=2, times=4)
    assert [figure.name for figure in finding.figures] == ["ours / raw", "raw", "ours"]
    assert finding.notes[-1] == "published seeknal: not measured: seeknal is not installed: make bench-peers"


@pytest.fixture
def raw_as_a_peer(tmp_path, monkeypatch):
    interpreter = tmp_path / "environments" / "raw" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(process, "ENVIRONMENTS", tmp_path / "environments")
    return Contender("peer {}", "raw", ("file", str(tmp_path / "peer.log"), "400"))


def test_a_peer_that_ends_is_told(tmp_path, monkeypatch, raw_as_a_peer):
    def take_turns_until_killed(works, **named):
        os.kill(raw_as_a_peer.peer.pid, signal.SIGKILL)
        return take_turns(works, **named)

    monkeypatch.setattr(peers, "take_turns", take_turns_until_killed)
    ours = [each for each in on_file(tmp_path / "file") if not each.is_peer]
    finding = compared("file", [*ours, raw_as_a_peer], rounds=2, times=4)
    assert [figure.name for figure in finding.figures] == ["ours / raw", "raw", "ours"]
    assert "not measured: raw ended" in finding.notes[-1]


def test_a_limit_that_ends_is_an_error(tmp_path):
    limit = Contender(RAW, OURS, ("file", str(tmp_path / "raw.log"), "400"))
    with ExitStack() as stack:
        limit.begin(stack)
        os.kill(limit.peer.pid, signal.SIGKILL)
        with pytest.raises(process.PeerError, match="ours ended"):
            limit.work(1)


def test_what_is_not_durable_is_marked(tmp_path, raw_as_a_peer, monkeypatch):
    monkeypatch.setattr(peers, "syncs", lambda pid, *_: 0.1 if pid == raw_as_a_peer.peer.pid else 1)
    ours = [each for each in on_file(tmp_path / "file") if not each.is_peer]
    finding = compared("file", [*ours, raw_as_a_peer], rounds=2, times=4)
    marked = [figure.name for figure in finding.figures if "not durable" in figure.name]
    assert marked == [f"peer {python_version()}, not durable / ours", f"peer {python_version()}, not durable"]
    assert ["not durable" in note for note in finding.notes] == [False, False, True]
