"""What a Python node is given: ``ctx``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.pipeline.nodes import Node, quoted
from seeknal.runner.outputs import Unit


class NodeContext:
    """What a Python node is given.

    Attributes:
        run_id: The run.
        project_path: The project.
    """

    def __init__(
        self,
        node: Node,
        project_path: Path,
        run_id: str,
        unit: Unit | None,
        connect: Callable[[], DuckDBPyConnection],
    ) -> None:
        self.run_id = run_id
        self.project_path = project_path
        self._node = node
        self._unit = unit
        self._connect = connect

    @property
    def interval(self) -> Interval:
        """The span ``[start, end)`` to compute, of a node with a schedule.

        Raises:
            NodeFailedError: The node has no schedule.
        """
        if not isinstance(self._unit, Interval):
            raise NodeFailedError(
                f"{self._node.node_id} has no schedule, so there is no ctx.interval",
                hint='Give its decorator `schedule="@daily", start="2024-01-01"`, or leave ctx.interval out.',
            )
        return self._unit

    @property
    def partition(self) -> str:
        """The partition to compute, of a node with partitions.

        Raises:
            NodeFailedError: The node has no partitions.
        """
        if not isinstance(self._unit, str):
            raise NodeFailedError(
                f"{self._node.node_id} has no partitions, so there is no ctx.partition",
                hint='Give its decorator `partitions=["ID", "SG"]`, or leave ctx.partition out.',
            )
        return self._unit

    @cached_property
    def duckdb(self) -> DuckDBPyConnection:
        """A DuckDB connection of this node's own; its inputs are views named by their ids."""
        return self._connect()

    def ref(self, node_id: str) -> DuckDBPyRelation:
        """Return the output of an input as a relation: all of its rows, also where it is computed range by range.

        Raises:
            NodeFailedError: It is not an input of this node.
        """
        if node_id not in self._node.inputs:
            raise NodeFailedError(
                f"{node_id} is not an input of this node",
                hint=f"Add it to `inputs`. They are: {', '.join(self._node.inputs) or 'none'}.",
            )
        return self.duckdb.table(quoted(node_id))
