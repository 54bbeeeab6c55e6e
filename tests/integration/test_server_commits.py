"""What happens to a commit on a server when others are in its way."""

from __future__ import annotations

import pytest

from seeknal.errors import LeaseLostError
from seeknal.state.backend import create_state_backend


def test_commits_that_were_refused_often_do_not_spoil_those_that_follow(server_store) -> None:
    with create_state_backend("database", **server_store.options) as backend:
        backend.initialize()
        backend.create_run("run")
        for _ in range(20):
            with backend.lock("run") as lease:
                pass
            with pytest.raises(LeaseLostError), backend.transaction(lease=lease):
                backend.set_node_state("run", "node", row_count=1)
                backend.set_node_state("run", "other", row_count=1)
        for number in range(20):
            with backend.lock("run") as lease, backend.transaction(lease=lease):
                backend.set_node_state("run", "node", row_count=number)
        assert backend.get_node_state("run", "node").version == 20
