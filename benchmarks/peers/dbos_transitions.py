"""DBOS Transact: a workflow for each turn, with a step for each node; each step is a checkpoint.

python dbos_transitions.py FILE.db default|wal
python dbos_transitions.py URL SCHEMA
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS, DBOSConfig
from records import NOTE, node_of
from settings import of_postgresql, of_sqlite, through_sqlalchemy, use_wal
from turns import serve_turns

where, how = sys.argv[1:]
config: DBOSConfig = {"name": "transitions", "log_level": "ERROR", "console_log_level": "ERROR"}
is_server = "://" in where
if is_server:
    config |= {"system_database_url": where, "dbos_system_schema": how}
else:
    config["system_database_url"] = f"sqlite:///{where}"
    if how == "wal":  # DBOS has no option for it, but leaves the file as it is
        use_wal(Path(where))
DBOS(config=config)


@DBOS.step()
def complete(number: int) -> dict[str, object]:
    return {"node": node_of(number), "status": "success", "row_count": number, "note": NOTE}


@DBOS.workflow()
def run(first: int, end: int) -> None:
    for number in range(first, end):
        complete(number)


DBOS.launch()
durability = through_sqlalchemy(lambda: run(0, 1), of_postgresql if is_server else of_sqlite)
serve_turns(
    lambda numbers: run(numbers.start, numbers.stop),
    {"version": version("dbos"), "durability": durability, "work": "a workflow for each turn, a step for each node"},
)
DBOS.destroy()
