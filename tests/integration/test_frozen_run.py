"""A run that is taken for dead while a node is computed: it replaces no output when it goes on."""

from __future__ import annotations

import pytest
from tests.integration.test_runner import Workshop, python_node

from seeknal.errors import LeaseLostError
from seeknal.pipeline.load import load_project
from seeknal.runner.execute import run_project


@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_run_that_lost_its_lease_replaces_no_output(tmp_path, kind):
    works = Workshop(kind, tmp_path)
    works.write({"seeknal_project.yml": "name: frozen\n", "seeknal/step.py": python_node("return [{'x': 1}]")})
    works.run()
    works.edit("seeknal/step.py", "'x': 1", "'x': 2")
    with works.open() as backend:

        def freeze(event) -> None:
            if event.status == "running":  # longer than the run may do without a look; meanwhile its lock is broken
                (lock,) = [each for each in backend.list_locks() if each.run_id.startswith("run_")]
                works.clock.advance(seconds=2)
                backend.break_lock(lock.run_id, lock.node_id, reason="it does not answer")

        works.clock.advance(seconds=1)
        with pytest.raises(LeaseLostError):
            run_project(load_project(tmp_path), backend, on_event=freeze)
    assert works.rows("transform.step") == [(1,)]
