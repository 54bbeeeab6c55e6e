"""Backends of a third party, written through the plain verbs: the example's, over dictionaries and over a JSON file.

The tests of the command name this file in the entry point of a package.
"""

import importlib.util
import json
import sys
from pathlib import Path

import msgspec

from seeknal.model.codec import decode, encode
from seeknal.model.records import CompletedInterval, NodeState, PartitionState, RunState

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_backend.py"
KINDS = {"runs": RunState, "nodes": NodeState, "partitions": PartitionState}


def load_example():
    if "custom_backend" not in sys.modules:
        spec = importlib.util.spec_from_file_location("custom_backend", EXAMPLE)
        sys.modules["custom_backend"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["custom_backend"])
    return sys.modules["custom_backend"]


custom = load_example()


class JsonStore(custom.Store):
    """What the example keeps in dictionaries, written to one file at every commit."""

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        if self.path.exists():
            self.records = records_of(json.loads(self.path.read_text()))

    def put(self, records):
        super().put(records)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(document_of(self.records)))
        new.replace(self.path)


def document_of(records):
    plain = {name: [msgspec.to_builtins(each) for each in getattr(records, name).values()] for name in KINDS}
    spans = [json.loads(encode(span)) for done in records.intervals.values() for span in done]
    return {**plain, "intervals": spans, "sequence": records.sequence}


def records_of(document):
    read = {name: [decode(encode(each), kind) for each in document[name]] for name, kind in KINDS.items()}
    records = custom.Records(sequence=document["sequence"])
    records.runs = {run.run_id: run for run in read["runs"]}
    records.nodes = {(state.run_id, state.node_id): state for state in read["nodes"]}
    records.partitions = {(state.node_id, state.partition): state for state in read["partitions"]}
    for each in document["intervals"]:
        span = decode(encode(each), CompletedInterval)
        records.intervals.setdefault(span.node_id, []).append(span)
    return records


class JsonBackend(custom.CustomBackend):
    """State in one JSON file; one process at a time.

    Args:
        base_path: The file.
    """

    def __init__(self, base_path, *, clock=None):
        super().__init__(store=JsonStore(base_path), clock=clock)
