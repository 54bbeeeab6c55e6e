"""The conformance kit, for everybody who writes a backend; needs pytest (``seeknal-state[testing]``)."""

import pytest

pytest.register_assert_rewrite(
    *(
        f"seeknal.state.testing.cases_{group}"
        for group in ("store", "runs", "nodes", "transactions", "leases", "intervals", "retention", "processes")
    )
)

from seeknal.state.testing.clauses import clause, contract_clauses, kit_clauses, needs  # noqa: E402
from seeknal.state.testing.kit import StateBackendConformance  # noqa: E402

__all__ = ["StateBackendConformance", "clause", "contract_clauses", "kit_clauses", "needs"]
