"""The runner on real stores with real data: what runs, what is kept, and what remains of a run that was cut short."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from seeknal.clock import FakeClock
from seeknal.errors import ConfigurationError, LockHeldError
from seeknal.pipeline.load import load_project
from seeknal.runner.current import MOST_TOGETHER
from seeknal.runner.execute import RunReport, run_project
from seeknal.runner.observe import observe
from seeknal.runner.outputs import output_path, parts_folder
from seeknal.runner.plan import Asked, plan_nodes
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.tracking import RunRecorder, track_run

SHOP = {
    "seeknal_project.yml": "name: shop\n",
    "data/sales.csv": "shop,amount\nnorth,1\nnorth,2\nsouth,4\n",
    "data/shops.csv": "shop,city\nnorth,Oslo\nsouth,Rome\n",
    "seeknal/sales.yml": "kind: source\nname: sales\nsource: csv\ntable: data/sales.csv\n",
    "seeknal/shops.yml": "kind: source\nname: shops\nsource: csv\ntable: data/shops.csv\n",
    "seeknal/totals.yml": """
        kind: transform
        name: totals
        transform: SELECT shop, sum(amount) AS amount FROM ref('source.sales') GROUP BY shop
        """,
    "seeknal/named.yml": """
        kind: transform
        name: named
        transform: |
          SELECT city, amount
          FROM ref('transform.totals') JOIN ref('source.shops') USING (shop)
          ORDER BY city; -- as people read it
        """,
    "seeknal/publish.yml": """
        kind: command
        name: publish
        inputs: [{ref: transform.named}]
        command: echo "$SEEKNAL_NODE_ID $SEEKNAL_RUN_ID" >> published.txt
        """,
}
ALL = ["source.sales", "source.shops", "transform.totals", "transform.named", "command.publish"]
TOTALS_ON = {"transform.totals", "transform.named", "command.publish"}

DAILY = """
    kind: transform
    name: daily
    schedule: "@daily"
    start: 2024-01-07
    transform: |
      SELECT
        unnest(generate_series(TIMESTAMP '{{ start }}', TIMESTAMP '{{end}}' - INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day,
        uuid() AS mark -- another one whenever it is computed
    """
AFTER_DAILY = """
    kind: transform
    name: days
    transform: SELECT count(*) AS days FROM ref('transform.daily')
    """
DIE_ONCE = """
    import os
    import signal

    from seeknal.pipeline import transform

    @transform
    def fragile(ctx):
        if not (ctx.project_path / "spare").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return ctx.ref("source.sales")
    """
NOTHING_MANY_TIMES = f"""
    from seeknal.pipeline import command

    def step(number):
        return command(name=f"step_{{number}}")(lambda ctx: None)

    for number in range({MOST_TOGETHER + 50}):
        globals()[f"step_{{number}}"] = step(number)
    """
RUN_IN_A_PROCESS = """
import sys
from pathlib import Path
from tests.integration.test_runner import Workshop
Workshop(sys.argv[1], Path(sys.argv[2])).run()
"""


class Workshop:
    """A project in a directory, its store, and a clock that moves by a second with each run."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.clock = FakeClock()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text(encoding="utf-8")
        assert old in text
        (self.path / name).write_text(text.replace(old, new), encoding="utf-8")

    def open(self) -> StateBackend:
        target = self.path / "target"
        place = {"base_path": target} if self.kind == "file" else {"db_path": target / "state.db"}
        target.mkdir(exist_ok=True)
        backend = create_state_backend(self.kind, clock=self.clock, **place)
        backend.initialize()
        return backend

    def run(self, *, on_event: Callable = lambda event: None, **options) -> RunReport:
        """Run the project; ``on_event`` is called with all that is told but for what has begun."""
        self.clock.advance(seconds=1)
        told = options.pop("on_any_event", lambda event: event.status == "running" or on_event(event))
        with self.open() as backend:
            return run_project(load_project(self.path), backend, on_event=told, **options)

    def rows(self, node_id: str) -> list[tuple]:
        parts = parts_folder(self.path, node_id)
        path = output_path(self.path, node_id) if not parts.exists() else parts / "*.parquet"
        with duckdb.connect() as connection:  # the one of the module may be busy with what another test left
            return connection.execute("FROM read_parquet(?) ORDER BY ALL", [str(path)]).fetchall()

    def days(self, node_id: str = "transform.daily") -> list[tuple[int, int]]:
        with self.open() as backend:
            return [(each.start.day, each.end.day) for each in backend.get_completed_intervals(node_id)]


@pytest.fixture(params=["file", "database"])
def shop(request, tmp_path):
    workshop = Workshop(request.param, tmp_path)
    workshop.write(SHOP)
    return workshop


@pytest.fixture(params=["file", "database"])
def almanac(request, tmp_path):
    """Return a project whose one node is scheduled; it is noon of 10 January 2024."""
    workshop = Workshop(request.param, tmp_path)
    workshop.write({"seeknal_project.yml": "name: almanac\n", "seeknal/daily.yml": DAILY})
    return workshop


def ran(report: RunReport) -> set[str]:
    return {node_id for node_id, status in report.nodes.items() if status != "cached"}


def python_node(body: str) -> str:
    head = "import datetime\n\nfrom seeknal.errors import *\nfrom seeknal.pipeline import transform\n\n"
    return head + "@transform\ndef step(ctx):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


# ---- what runs ----


def test_everything_runs_once_and_is_kept(shop):
    events = []
    first = shop.run(on_event=events.append)
    assert (first.status, first.nodes) == ("success", dict.fromkeys(ALL, "success"))
    assert [str(event) for event in events] == [f"success  {node_id}: new" for node_id in ALL]
    assert shop.rows("transform.named") == [("Oslo", 3), ("Rome", 4)]
    second = shop.run()
    assert (second.status, second.nodes) == ("success", dict.fromkeys(ALL, "cached"))
    with shop.open() as backend:
        assert backend.get_run(first.run_id).config == {"project": "shop", "full": False}
        state = backend.get_node_state(first.run_id, "transform.named")
        assert (state.row_count, state.attempt, state.metadata["reason"]) == (2, 1, "new")
        assert state.metadata["made_of"].keys() == {"config", "sql", "input:transform.totals", "input:source.shops"}
        assert backend.get_node_state(first.run_id, "command.publish").row_count is None
        cached = backend.get_node_state(second.run_id, "transform.named")
        assert (cached.row_count, cached.fingerprint) == (2, state.fingerprint)
        assert backend.list_locks() == []


def test_full_runs_everything(shop):
    shop.run()
    report = shop.run(full=True)
    assert ran(report) == set(ALL)
    assert shop.rows("transform.named") == [("Oslo", 3), ("Rome", 4)]


CHANGES = {
    "its query": ("seeknal/totals.yml", "sum", "max", TOTALS_ON),
    "its data file": ("data/sales.csv", "south,4", "south,5", {"source.sales", *TOTALS_ON}),
    "another data file": ("data/shops.csv", "Rome", "Bari", {"source.shops", "transform.named", "command.publish"}),
    "the last command": ("seeknal/publish.yml", "echo", "echo again", {"command.publish"}),
    "a comment": ("seeknal/named.yml", "-- as people read it", "", set()),
}


@pytest.mark.parametrize(("file", "old", "new", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_changed_node_runs_again_with_all_after_it_and_nothing_else(shop, file, old, new, expected):
    shop.run()
    shop.edit(file, old, new)
    assert ran(shop.run()) == expected
    assert ran(shop.run()) == set()


def test_a_new_node_runs_alone_and_a_removed_one_is_forgotten(shop):
    shop.run()
    (shop.path / "seeknal/publish.yml").unlink()
    shop.write({"seeknal/new.yml": "kind: transform\nname: new\ntransform: SELECT 1 AS x\n"})
    report = shop.run()
    assert ran(report) == {"transform.new"}
    assert "command.publish" not in report.nodes


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"not Parquet")], ids=["gone", "broken"])
def test_an_output_that_is_gone_or_broken_is_made_again(shop, damage):
    shop.run()
    damage(output_path(shop.path, "transform.totals"))
    assert ran(shop.run()) == {"transform.totals"}
    assert shop.rows("transform.totals") == [("north", 3), ("south", 4)]


def test_an_output_of_another_state_is_made_again(shop):
    shop.run()
    old = output_path(shop.path, "transform.totals").read_bytes()
    shop.edit("seeknal/totals.yml", "sum", "max")
    shop.run()
    output_path(shop.path, "transform.totals").write_bytes(old)
    assert ran(shop.run()) == {"transform.totals"}
    assert shop.rows("transform.totals") == [("north", 2), ("south", 4)]


def test_outputs_stay_in_the_project_whatever_a_node_is_called(shop):
    shop.write({"seeknal/odd.yml": 'kind: transform\nname: ../../it\'s "odd"\ntransform: SELECT 1 AS x\n'})
    shop.write({"seeknal/even.yml": "kind: transform\nname: even\ntransform: SELECT * FROM ref('transform.totals')\n"})
    assert shop.run().status == "success"
    assert shop.rows('transform.../../it\'s "odd"') == [(1,)]
    found = {path.suffix for path in (shop.path / "target/outputs").iterdir()}
    assert (len(list((shop.path / "target/outputs").iterdir())), found) == (6, {".parquet"})


def test_every_format_is_read(shop):
    with duckdb.connect() as connection:
        connection.execute("COPY (SELECT 3 AS x) TO $1 (FORMAT parquet)", [str(shop.path / "data/p.parquet")])
    shop.write({"data/j.json": '[{"x": 1}]', "data/l.jsonl": '{"x": 2}\n'})
    for name, form in (("j", "json"), ("l", "jsonl"), ("p", "parquet")):
        shop.write({f"seeknal/{name}.yml": f"kind: source\nname: {name}\nsource: {form}\ntable: data/{name}.{form}\n"})
    assert shop.run().status == "success"
    assert [shop.rows(f"source.{name}") for name in "jlp"] == [[(1,)], [(2,)], [(3,)]]


# ---- what is selected ----


def test_only_what_is_selected_runs_and_the_others_keep_their_states_and_outputs(shop):
    first = shop.run()
    shop.edit("seeknal/totals.yml", "sum", "max")
    shop.edit("data/sales.csv", "south,4", "south,5")
    before = shop.rows("source.sales")
    report = shop.run(selected={"transform.totals"})
    assert report.nodes == {"transform.totals": "success"}
    assert (shop.rows("transform.totals"), shop.rows("source.sales")) == ([("north", 2), ("south", 4)], before)
    with shop.open() as backend:
        assert list(backend.get_all_node_states(report.run_id)) == ["transform.totals"]
        assert backend.get_run(report.run_id).config["selected"] == ["transform.totals"]
        assert backend.get_latest_node_state("source.sales").run_id == first.run_id


def test_what_read_the_output_of_before_runs_again_once_its_parent_has_run(shop):
    shop.run()
    shop.edit("data/sales.csv", "south,4", "south,5")
    assert shop.run(selected={"transform.totals"}).nodes == {"transform.totals": "cached"}
    shop.edit("seeknal/totals.yml", "sum", "max")
    assert shop.run(selected={"transform.totals"}).nodes == {"transform.totals": "success"}
    assert shop.rows("transform.totals") == [("north", 2), ("south", 4)]
    assert ran(shop.run()) == {"source.sales", *TOTALS_ON}
    assert shop.rows("transform.totals") == [("north", 2), ("south", 5)]
    assert ran(shop.run()) == set()


def test_a_node_whose_scheduled_parent_is_not_selected_reads_the_intervals_that_it_has(almanac):
    almanac.write({"seeknal/days.yml": AFTER_DAILY})
    almanac.run()
    almanac.clock.advance(days=1)
    assert almanac.run(selected={"transform.days"}).nodes == {"transform.days": "cached"}
    assert almanac.run(selected={"transform.daily"}).nodes == {"transform.daily": "success"}
    assert almanac.run(selected={"transform.days"}).nodes == {"transform.days": "success"}
    assert almanac.rows("transform.days") == [(4,)]
    assert ran(almanac.run()) == set()


def test_what_is_forced_is_what_is_selected(shop):
    shop.run()
    assert shop.run(selected={"transform.totals", "source.sales"}, full=True).nodes == {
        "source.sales": "success",
        "transform.totals": "success",
    }
    assert ran(shop.run()) == set()


def test_a_node_whose_parent_was_never_computed_is_refused_before_anything_runs(shop):
    with pytest.raises(ConfigurationError) as raised:
        shop.run(selected={"transform.totals", "source.shops"})
    assert str(raised.value) == "transform.totals needs source.sales, which was never computed and is not selected"
    assert "--nodes '+transform.totals'" in raised.value.hint
    with shop.open() as backend:
        assert (backend.list_runs(), backend.list_locks()) == ([], [])
    shop.run(selected={"source.sales"})
    assert shop.run(selected={"transform.totals"}).status == "success"
    output_path(shop.path, "source.sales").unlink()
    with pytest.raises(ConfigurationError, match=r"source\.sales, whose output is gone and which is not selected"):
        shop.run(selected={"transform.totals"})


# ---- why ----


def reasons_of(shop, *, full: bool = False, selected: set[str] | None = None) -> dict[str, str]:
    """Run, and return the reason of each node that was computed, once the plan was seen to say the same."""
    now = shop.clock.now() + timedelta(seconds=1)  # which is when the run will look
    with shop.open() as backend:
        project = load_project(shop.path)
        observed = {node_id: observe(node, shop.path, backend) for node_id, node in project.nodes.items()}
    planned = plan_nodes(project.nodes, observed, now=now, asked=Asked(full=full, selected=selected))
    report = shop.run(full=full, selected=selected)
    with shop.open() as backend:
        states = backend.get_all_node_states(report.run_id)
    found = {node_id: state.metadata["reason"] for node_id, state in states.items() if state.status == "success"}
    assert {node_id: each.why for node_id, each in planned.items() if each.action == "run"} == found
    return found


def test_the_plan_says_what_the_run_then_does_and_why(shop):
    assert set(reasons_of(shop).values()) == {"new"}
    assert reasons_of(shop) == {}
    shop.edit("seeknal/totals.yml", "sum", "max")
    assert reasons_of(shop) == {
        "transform.totals": "SQL changed",
        "transform.named": "parent changed: transform.totals",
        "command.publish": "parent changed: transform.named",
    }
    output_path(shop.path, "source.shops").unlink()
    assert reasons_of(shop) == {"source.shops": "output missing"}
    output_path(shop.path, "source.shops").write_bytes(b"not Parquet")
    assert reasons_of(shop) == {"source.shops": "output cannot be read"}
    shop.edit("seeknal/publish.yml", "echo", "echo again")
    assert reasons_of(shop) == {"command.publish": "command changed"}
    assert set(reasons_of(shop, full=True).values()) == {"forced"}
    assert reasons_of(shop, full=True, selected={"source.shops"}) == {"source.shops": "forced"}


def test_a_node_that_failed_until_now_never_succeeded(shop):
    shop.edit("seeknal/publish.yml", "echo", "exit 3; echo")
    shop.run()
    shop.edit("seeknal/publish.yml", "exit 3; echo", "echo")
    assert reasons_of(shop) == {"command.publish": "never succeeded"}


def test_a_module_that_a_function_names_is_run_as_it_is_now(shop):
    shop.write(
        {"seeknal/step.py": python_node("return [{'x': rates.EURO}]").replace("import datetime", "import rates")}
    )
    shop.write({"seeknal/rates.py": "EURO = 1\n"})
    shop.run()
    assert shop.rows("transform.step") == [(1,)]
    shop.write({"seeknal/rates.py": "EURO = 2\n"})
    assert reasons_of(shop) == {"transform.step": "code changed: seeknal/rates.py:EURO"}
    assert shop.rows("transform.step") == [(2,)]
    shop.write({"seeknal/rates.py": "EURO = 2\nDOLLAR = 3  # not named\n"})
    assert reasons_of(shop) == {}


def test_scheduled_nodes_say_what_is_missing(almanac):
    almanac.write({"seeknal/days.yml": AFTER_DAILY})
    almanac.run()
    almanac.clock.advance(days=1)
    assert reasons_of(almanac) == {
        "transform.daily": "interval missing: 2024-01-10 to 2024-01-11",
        "transform.days": "parent changed: transform.daily",
    }


@pytest.mark.parametrize("older", ["s1:0123", "0123456789abcdef", None])
def test_a_store_with_older_fingerprints_runs_each_node_once(shop, older):
    first = shop.run()
    with shop.open() as backend:
        for node_id in first.nodes:
            backend.set_node_state(first.run_id, node_id, fingerprint=older, metadata={"made_of": None})
    assert reasons_of(shop) == dict.fromkeys(ALL, "fingerprint of an older version")
    assert ran(shop.run()) == set()


def test_scheduled_nodes_of_an_older_fingerprint_are_computed_anew_once(almanac):
    first = almanac.run()
    with almanac.open() as backend:
        backend.set_node_state(first.run_id, "transform.daily", fingerprint="s1:0123")
    assert reasons_of(almanac) == {"transform.daily": "fingerprint of an older version"}
    assert (len(almanac.rows("transform.daily")), almanac.days()) == (3, [(7, 10)])
    assert ran(almanac.run()) == set()


# ---- what fails ----


def test_a_failed_node_skips_what_needs_it_the_others_go_on_and_the_next_run_does_what_is_left(shop):
    shop.edit("seeknal/totals.yml", "sum(amount)", "sum(amoun)")
    report = shop.run()
    assert report.status == "failed"
    assert report.nodes == {
        "source.sales": "success",
        "source.shops": "success",
        "transform.totals": "failed",
        "transform.named": "skipped",
        "command.publish": "skipped",
    }
    with shop.open() as backend:
        assert backend.get_run(report.run_id).status == "failed"
        assert backend.get_metadata(report.run_id)["error_message"] == "failed: transform.totals"
        assert "amoun" in backend.get_node_state(report.run_id, "transform.totals").error_message
        skipped = backend.get_node_state(report.run_id, "transform.named")
        assert skipped.metadata == {"reason": "transform.totals failed"}
    assert [path.suffix for path in (shop.path / "target/outputs").iterdir()] == [".parquet"] * 2
    shop.edit("seeknal/totals.yml", "sum(amoun)", "sum(amount)")
    assert ran(shop.run()) == TOTALS_ON


def test_a_failure_leaves_the_standing_output_as_it_was(shop):
    shop.run()
    shop.edit("seeknal/totals.yml", "sum(amount)", "error('no')")
    assert shop.run().nodes["transform.totals"] == "failed"
    assert shop.rows("transform.totals") == [("north", 3), ("south", 4)]
    shop.edit("seeknal/totals.yml", "error('no')", "sum(amount)")
    assert ran(shop.run()) == set(), "what was once computed is what stands"


def test_a_source_whose_file_is_missing_fails_and_the_others_go_on(shop):
    (shop.path / "data/shops.csv").unlink()
    report = shop.run(continue_on_error=True)
    assert report.nodes["source.shops"] == "failed"
    assert report.nodes["transform.totals"] == "success"
    assert report.nodes["transform.named"] == "skipped"


# ---- commands ----


def test_a_command_runs_in_the_project_and_knows_its_run_and_its_node(shop):
    report = shop.run()
    assert (shop.path / "published.txt").read_text() == f"command.publish {report.run_id}\n"
    shop.run()
    assert (shop.path / "published.txt").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo so far; echo not good >&2; exit 3", "exit code 3: so far\nnot good"),
        ("echo not good; exit 4", "exit code 4: not good"),
        ("exit 5", "exit code 5"),
    ],
)
def test_a_command_that_fails_is_recorded_with_its_exit_code_and_what_it_said(shop, command, message):
    shop.write({"seeknal/bad.yml": f"kind: command\nname: bad\ncommand: {command}\n"})
    report = shop.run()
    assert report.nodes["command.bad"] == "failed"
    with shop.open() as backend:
        assert backend.get_node_state(report.run_id, "command.bad").error_message == message


def test_a_command_can_make_the_file_that_a_source_reads(shop):
    shop.write(
        {
            "seeknal/fetch.yml": "kind: command\nname: fetch\ncommand: echo x > data/new.csv; echo 1 >> data/new.csv\n",
            "seeknal/new.yml": "kind: source\nname: new\nsource: csv\ntable: data/new.csv\n"
            "inputs: [{ref: command.fetch}]\n",
        }
    )
    assert shop.run().status == "success"
    assert shop.rows("source.new") == [(1,)]


# ---- Python nodes ----

RETURNED = {
    "a relation": ("return ctx.ref('transform.totals').filter('amount > 3')", [("south", 4)]),
    "a query": ("""return ctx.duckdb.sql('SELECT count(*) AS n FROM "source.sales"')""", [(3,)]),
    "a list of rows": ("return [{'a': 1, 'b': None}, {'b': 'x', 'a': 2}]", [(1, None), (2, "x")]),
    "dates": ("return [{'d': datetime.date(2024, 1, 10)}]", [(datetime(2024, 1, 10).date(),)]),
}
REFUSED = {
    "nothing": ("return None", "step returned nothing"),
    "an empty list": ("return []", "returned a list that is empty"),
    "rows of different keys": ("return [{'a': 1}, {'b': 1}]", "with the same keys"),
    "rows that are tuples": ("return [(1, 2)]", "with the same keys"),
    "something else": ("return 5", "returned"),
    "an exception": ("return 1 / 0", "ZeroDivisionError: division by zero"),
    "an exception of this package": ("raise ConfigurationError('no such setting')", "no such setting"),
    "what is no input": ("name = 'source.shops'\nreturn ctx.ref(name)", "source.shops is not an input of this node"),
}


@pytest.mark.parametrize(("body", "rows"), RETURNED.values(), ids=RETURNED)
def test_what_a_function_returns_becomes_its_output(shop, body, rows):
    head = "ctx.ref('transform.totals'), ctx.ref('source.sales')\n"
    shop.write({"seeknal/step.py": python_node(head + body)})
    report = shop.run()
    assert report.nodes["transform.step"] == "success"
    assert shop.rows("transform.step") == rows
    with shop.open() as backend:
        assert backend.get_node_state(report.run_id, "transform.step").row_count == len(rows)
    assert ran(shop.run()) == set()


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_a_function_that_fails_fails_its_node_alone(shop, body, message):
    shop.write({"seeknal/step.py": python_node(body)})
    report = shop.run(continue_on_error=True)
    assert {node_id for node_id, status in report.nodes.items() if status == "failed"} == {"transform.step"}
    assert report.nodes["command.publish"] == "success"
    with shop.open() as backend:
        assert message in backend.get_node_state(report.run_id, "transform.step").error_message


def test_a_table_of_pyarrow_becomes_an_output(shop):
    pytest.importorskip("pyarrow")
    shop.write({"seeknal/step.py": python_node("import pyarrow\nreturn pyarrow.table({'x': [1, 2]})")})
    shop.run()
    assert shop.rows("transform.step") == [(1,), (2,)]


def test_a_function_that_was_edited_runs_as_it_is_now_and_leaves_no_files(shop):
    shop.write({"seeknal/step.py": python_node("return [{'x': 1}]")})
    shop.run()
    for number in (2, 3):  # the same size, within the same second
        shop.write({"seeknal/step.py": python_node(f"return [{{'x': {number}}}]")})
        assert ran(shop.run()) == {"transform.step"}
        assert shop.rows("transform.step") == [(number,)]
    assert sorted(path.suffix for path in (shop.path / "seeknal").iterdir()) == [".py", *[".yml"] * 5]


def test_a_function_is_told_its_run_and_its_project(shop):
    shop.write({"seeknal/step.py": python_node("return [{'run': ctx.run_id, 'path': str(ctx.project_path)}]")})
    report = shop.run()
    assert shop.rows("transform.step") == [(report.run_id, str(shop.path))]


# ---- scheduled nodes ----


def test_only_whole_ticks_that_are_missing_are_computed_and_the_rows_of_the_others_stay(almanac):
    report = almanac.run()
    first = almanac.rows("transform.daily")
    assert [day.day for day, _ in first] == [7, 8, 9]
    assert almanac.days() == [(7, 10)]
    assert ran(almanac.run()) == set()
    almanac.clock.advance(days=2)
    events = []
    later = almanac.run(on_event=events.append)
    rows = almanac.rows("transform.daily")
    assert [str(event) for event in events] == ["success  transform.daily: interval missing: 2024-01-10 to 2024-01-12"]
    assert rows[:3] == first
    assert [day.day for day, _ in rows] == [7, 8, 9, 10, 11]
    assert almanac.days() == [(7, 12)]
    with almanac.open() as backend:
        assert backend.get_node_state(report.run_id, "transform.daily").row_count == 3
        assert backend.get_node_state(later.run_id, "transform.daily").row_count == 5


def test_what_needs_a_scheduled_node_runs_when_it_has_new_rows(almanac):
    almanac.write({"seeknal/days.yml": AFTER_DAILY})
    almanac.run()
    assert almanac.rows("transform.days") == [(3,)]
    assert ran(almanac.run()) == set()
    almanac.clock.advance(days=1)
    assert ran(almanac.run()) == {"transform.daily", "transform.days"}
    assert almanac.rows("transform.days") == [(4,)]
    assert ran(almanac.run()) == set()


def test_a_restated_interval_is_computed_again(almanac):
    almanac.run()
    before = dict(almanac.rows("transform.daily"))
    with almanac.open() as backend:
        backend.restate_intervals("transform.daily", datetime(2024, 1, 8), datetime(2024, 1, 9))
    assert almanac.days() == [(7, 8), (9, 10)]
    assert ran(almanac.run()) == {"transform.daily"}
    after = dict(almanac.rows("transform.daily"))
    assert after.keys() == before.keys()
    assert after[datetime(2024, 1, 8)] != before[datetime(2024, 1, 8)]
    assert almanac.days() == [(7, 10)]
    assert ran(almanac.run()) == set()


def test_a_changed_scheduled_node_is_computed_anew(almanac):
    almanac.run()
    almanac.edit("seeknal/daily.yml", "uuid() AS mark", "1 AS mark")
    assert ran(almanac.run()) == {"transform.daily"}
    assert almanac.days() == [(7, 10)]
    assert [mark for _, mark in almanac.rows("transform.daily")] == [1, 1, 1]


def test_another_start_computes_what_is_missing_and_nothing_else(almanac):
    almanac.run()
    before = almanac.rows("transform.daily")
    almanac.edit("seeknal/daily.yml", "2024-01-07", "2024-01-09")
    assert ran(almanac.run()) == set()
    almanac.edit("seeknal/daily.yml", "2024-01-09", "2024-01-05")
    assert ran(almanac.run()) == {"transform.daily"}
    rows = almanac.rows("transform.daily")
    assert ([day.day for day, _ in rows], rows[2:], almanac.days()) == ([5, 6, 7, 8, 9], before, [(5, 10)])


def test_before_the_first_whole_tick_the_output_is_there_and_empty(almanac):
    almanac.edit("seeknal/daily.yml", "2024-01-07", "2024-01-10")
    almanac.write({"seeknal/days.yml": AFTER_DAILY})
    assert almanac.run().status == "success"
    assert (almanac.rows("transform.daily"), almanac.rows("transform.days")) == ([], [(0,)])
    assert almanac.days() == []
    assert ran(almanac.run()) == set()
    almanac.clock.advance(days=1)
    almanac.run()
    assert almanac.rows("transform.days") == [(1,)]


def test_a_start_that_lies_ahead_is_not_an_error(almanac):
    almanac.edit("seeknal/daily.yml", "2024-01-07", "2024-02-01")
    assert almanac.run().status == "success"
    assert almanac.rows("transform.daily") == []


def test_an_end_bounds_the_ticks(almanac):
    almanac.edit("seeknal/daily.yml", "start: 2024-01-07", "start: 2024-01-07\nend: 2024-01-09")
    almanac.run()
    almanac.clock.advance(days=5)
    assert ran(almanac.run()) == set()
    assert almanac.days() == [(7, 9)]


def test_a_deleted_output_of_a_scheduled_node_is_computed_anew_as_a_whole(almanac):
    almanac.run()
    (part,) = parts_folder(almanac.path, "transform.daily").iterdir()
    part.unlink()
    almanac.clock.advance(days=1)
    almanac.run()
    assert [day.day for day, _ in almanac.rows("transform.daily")] == [7, 8, 9, 10]
    assert almanac.days() == [(7, 11)]


def test_a_scheduled_node_that_fails_completes_nothing_and_its_rows_of_before_stay(almanac):
    almanac.run()
    before = almanac.rows("transform.daily")
    almanac.edit("seeknal/daily.yml", "uuid()", "error('no')")
    assert almanac.run().status == "failed"
    assert (almanac.rows("transform.daily"), almanac.days()) == (before, [])


def test_rows_stay_single_when_the_node_changed_hands_while_it_was_looked_at(shop, monkeypatch):
    shop.run()
    monkeypatch.setattr("seeknal.tracking.RunRecorder.skip_if_current", lambda *_: False)
    shop.run()
    assert shop.rows("transform.totals") == [("north", 3), ("south", 4)]


def test_a_node_that_somebody_else_has_run_meanwhile_is_run_before_what_needs_it(shop, monkeypatch):
    shop.run()
    real = RunRecorder.skip_if_current
    told = []

    def late(run: RunRecorder, node_id: str, fingerprint: str) -> bool:
        if node_id == "transform.totals" and "theirs" not in told:
            with shop.open() as other, track_run(other) as theirs, theirs.node(node_id, "v2:other"):
                told.append("theirs")
        return real(run, node_id, fingerprint)

    monkeypatch.setattr(RunRecorder, "skip_if_current", late)
    report = shop.run(on_event=lambda event: told.append(f"{event.status} {event.node_id}: {event.detail}"))
    assert report.nodes == {**dict.fromkeys(ALL, "cached"), "transform.totals": "success"}
    assert told[2:4] == ["theirs", "success transform.totals: changed meanwhile"]
    assert shop.rows("transform.totals") == [("north", 3), ("south", 4)]


def test_what_is_up_to_date_is_recorded_together(tmp_path, monkeypatch):
    works = Workshop("file", tmp_path)
    works.write({"seeknal_project.yml": "name: works\n", "seeknal/steps.py": NOTHING_MANY_TIMES})
    works.run()
    commits = []
    monkeypatch.setattr("seeknal.state.file.durable.at", lambda point: commits.append(point) if point == "fsync" else 0)
    report = works.run()
    assert report.nodes == {f"command.step_{number}": "cached" for number in range(MOST_TOGETHER + 50)}
    assert len(commits) < 20
    with works.open() as backend:
        assert backend.get_all_node_states(report.run_id).keys() == report.nodes.keys()


# ---- runs that are cut short ----


def check_was_cancelled(shop, node_id: str) -> None:
    with shop.open() as backend:
        (run_id,) = backend.list_runs(status="cancelled")
        assert backend.list_runs(status="running") == []
        assert backend.get_node_state(run_id, "source.sales").status == "success"
        state = backend.get_node_state(run_id, node_id)
        assert (state.status, state.error_message) == ("failed", "cancelled")
        assert backend.list_locks() == []
    assert [path.suffix for path in (shop.path / "target/outputs").iterdir()] == [".parquet"] * 2


def test_an_interrupted_node_leaves_a_cancelled_run_and_the_next_one_goes_on(shop):
    shop.write({"seeknal/a_step.py": python_node("raise KeyboardInterrupt")})
    shop.edit("seeknal/a_step.py", "def step", "def again")
    shop.edit("seeknal/a_step.py", "raise", "ctx.ref('source.sales'), ctx.ref('source.shops')\n    raise")
    with pytest.raises(KeyboardInterrupt):
        shop.run()
    check_was_cancelled(shop, "transform.again")
    shop.edit("seeknal/a_step.py", "raise KeyboardInterrupt", "return [{'x': 1}]")
    report = shop.run()
    assert (report.status, report.recovered) == ("success", [])
    assert ran(report) == {"transform.again", *TOTALS_ON}


def test_a_second_run_of_the_project_is_refused_while_one_is_running(shop):
    refused = []

    def run_again(event):
        with pytest.raises(LockHeldError) as raised:
            shop.run()
        refused.append(raised.value)

    assert shop.run(on_event=run_again).status == "success"
    assert len(refused) == len(ALL)
    assert refused[0].holder.run_id == "pipeline:shop"
    with shop.open() as backend:
        assert len(backend.list_runs()) == 1


def test_another_run_on_the_same_store_is_left_alone(shop):
    with shop.open() as backend, track_run(backend, "script") as script, script.node("load"):
        assert shop.run().recovered == []
        assert backend.get_run("script").status == "running"
    with shop.open() as backend:
        assert backend.get_run("script").status == "success"


def test_a_run_that_was_killed_is_failed_once_its_lease_expired_and_its_work_is_resumed(shop):
    shop.write({"seeknal/fragile.py": DIE_ONCE})
    killed = subprocess.run([sys.executable, "-c", RUN_IN_A_PROCESS, shop.kind, shop.path], check=False)
    assert killed.returncode == -signal.SIGKILL
    shop.clock.advance(seconds=2)
    with shop.open() as backend:
        (run_id,) = backend.list_runs(status="running")
        assert backend.get_node_state(run_id, "transform.fragile").status == "running"
        with pytest.raises(LockHeldError, match="held by"):
            run_project(load_project(shop.path), backend)
    shop.write({"spare": ""})
    shop.clock.advance(minutes=2)
    report = shop.run()
    assert (report.status, report.recovered) == ("success", [run_id])
    assert {node_id for node_id, status in report.nodes.items() if status == "cached"} == {
        "source.sales",
        "source.shops",
    }
    with shop.open() as backend:
        assert backend.get_run(run_id).status == "failed"
        state = backend.get_node_state(run_id, "transform.fragile")
        assert (state.status, state.error_message) == ("failed", "the process that ran it ended without saying how")
        assert backend.list_locks() == []


# ---- executors ----


def thread_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


def process_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


@pytest.mark.parametrize("pool", [thread_pool, process_pool])
def test_nodes_are_computed_on_any_executor(shop, pool):
    shop.write({"seeknal/step.py": python_node("return ctx.ref('transform.totals')")})
    shop.write({"seeknal/daily.yml": DAILY})
    with pool() as executor:
        assert shop.run(executor=executor).status == "success"
        assert shop.rows("transform.step") == [("north", 3), ("south", 4)]
        assert shop.days() == [(7, 10)]
        shop.edit("seeknal/totals.yml", "sum(amount)", "sum(amoun)")
        shop.edit("seeknal/publish.yml", "echo", "exit 3; echo")
        report = shop.run(executor=executor)
    assert report.nodes["transform.totals"] == "failed"
    assert report.nodes["transform.step"] == "skipped"
    with shop.open() as backend:
        assert "amoun" in backend.get_node_state(report.run_id, "transform.totals").error_message
    shop.edit("seeknal/totals.yml", "sum(amoun)", "sum(amount)")
    assert ran(shop.run()) == {"command.publish"}, "another executor finds what the pool has done"


def test_the_error_of_a_node_keeps_its_hint_across_processes(shop):
    shop.edit("seeknal/publish.yml", "echo", "exit 3; echo")
    events = []
    with process_pool() as executor:
        shop.run(executor=executor, on_event=events.append)
    assert events[-1].detail == "exit code 3"


def test_time_is_of_the_clock_of_the_store(almanac):
    report = almanac.run()
    with almanac.open() as backend:
        assert backend.get_run(report.run_id).started_at == datetime(2024, 1, 10, 12, 0, 1, tzinfo=UTC)
