"""A dbt invocation is taken in by every kind of server as by a file."""

from __future__ import annotations

from pathlib import Path

from seeknal.integrations.dbt import import_dbt
from seeknal.state.backend import create_state_backend

REAL = Path(__file__).parent / "dbt_1_11"


def test_a_server_holds_what_a_store_in_memory_holds(server_store):
    with create_state_backend("database", **server_store.options) as server, create_state_backend("memory") as memory:
        stores = (server, memory)
        for store in stores:
            store.initialize()
        first, second = (import_dbt(store, REAL) for store in stores)
        assert first == second
        theirs, ours = (store.get_all_node_states(first.run_id) for store in stores)
        assert [(state.node_id, state.status, state.fingerprint, state.metadata) for state in theirs.values()] == [
            (state.node_id, state.status, state.fingerprint, state.metadata) for state in ours.values()
        ]
        assert server.get_completed_intervals("model.shop.daily") == memory.get_completed_intervals("model.shop.daily")
        assert import_dbt(server, REAL).is_new is False
