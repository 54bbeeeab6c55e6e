"""The kit for a backend that is only named, each case on a scratch store: what `seeknal state check-backend` runs."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from seeknal.state.contract import StateBackend
from seeknal.state.testing.kit import StateBackendConformance

SCRATCH = "{scratch}"
"""What stands for the directory of a case in an option."""


@dataclass(frozen=True)
class Request:
    """What is to be checked. The class is named, so that other processes can import it too."""

    module: str
    name: str
    options: dict[str, Any]
    timeout_s: float
    cases: str


def run_cases() -> None:
    """Run the cases against what ``request.json`` in the working directory names, and leave the process."""
    folder = Path.cwd()
    request = _read_request(folder / "request.json")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_backend.py").write_text(
        f"from seeknal.state.testing.scratch import conformance_of\n\n"
        f"TestBackend = conformance_of({str(folder / 'request.json')!r})\n"
    )
    with (folder / "events.jsonl").open("w", encoding="utf-8") as told:
        pytest.main(
            ["-q", "-p", "no:cacheprovider", "-c", "pytest.ini", "--rootdir", ".", "--import-mode=importlib",
             "--basetemp", "cases", "-o", "tmp_path_retention_policy=none", "test_backend.py"],
            plugins=[_Recorder(lambda line: print(json.dumps(line), file=told, flush=True), request)],
        )  # fmt: skip
    sys.stdout.flush()
    os._exit(0)  # a thread of a backend that hangs must not keep this process


def _read_request(path: Path) -> Request:
    return Request(**json.loads(path.read_text(encoding="utf-8")))


def conformance_of(path: str) -> type:
    """Return the kit for the backend that a request names."""
    request = _read_request(Path(path))

    class Conformance(StateBackendConformance):
        capabilities = _class_of(request.module, request.name).capabilities

        @pytest.fixture
        def open_backend(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StateBackend]:
            monkeypatch.chdir(tmp_path)  # a relative path is a scratch path, too
            return _Opener(request, tmp_path).open

        @pytest.fixture
        def open_in_process(self, tmp_path: Path) -> Callable[[], StateBackend]:
            return partial(open_scratch, request.module, request.name, _placed(request.options, tmp_path))

    return Conformance


class _Opener:
    """Opens instances on one scratch store; those of a store in memory share what the first one made."""

    def __init__(self, request: Request, folder: Path) -> None:
        self._open = partial(open_scratch, request.module, request.name)
        self._options = _placed(request.options, folder)
        self._shares = "store" in inspect.signature(_class_of(request.module, request.name)).parameters

    def open(self, **timing: Any) -> StateBackend:
        backend = self._open(self._options, **timing)
        if self._shares and "store" not in self._options:
            self._options = {**self._options, "store": getattr(backend, "store", None)}
        return backend


def open_scratch(module: str, name: str, options: Mapping[str, Any], **timing: Any) -> StateBackend:
    """Return an instance; ``timing`` is passed on as far as its constructor takes it."""
    backend_class = _class_of(module, name)
    taken = inspect.signature(backend_class).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    backend = backend_class(**options, **{key: value for key, value in timing.items() if takes_all or key in taken})
    if "clock" in timing and not (takes_all or "clock" in taken):
        backend.clock = timing["clock"]
    return backend


def _placed(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {
        key: value.replace(SCRATCH, str(folder)) if isinstance(value, str) else value for key, value in options.items()
    }


def _class_of(module: str, name: str) -> type[StateBackend]:
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    backend_class: type[StateBackend] = found
    return backend_class


class _Recorder:
    """A pytest plugin that tells what happens, and ends a case that takes too long."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], request: Request) -> None:
        self._tell = tell
        self._timeout_s = request.timeout_s
        self._cases = request.cases

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out the cases that were not asked for."""
        items[:] = [item for item in items if self._is_wanted(item.originalname, item.function)]

    def pytest_collection_finish(self, session: Any) -> None:
        """Tell the cases that were not collected, because the backend does not declare what they need."""
        self._tell({"collected": len(session.items)})
        collected = {item.originalname for item in session.items}
        for name, case in inspect.getmembers(StateBackendConformance, inspect.isfunction):
            if name.startswith("test_") and name not in collected and self._is_wanted(name, case):
                self._tell({"case": name, "clauses": _clauses(case), "outcome": "not_declared"})

    def _is_wanted(self, name: str, case: Any) -> bool:
        return self._cases in " ".join([name, *_clauses(case)])

    @contextmanager
    def _limited(self) -> Iterator[None]:
        def over(_signal: int, _frame: object) -> None:
            raise TimeoutError(f"no end after {self._timeout_s:g} s")

        if not hasattr(signal, "SIGALRM"):  # pragma: no cover - Windows
            yield
            return
        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_runtest_protocol(self, item: Any) -> bool:
        """Run one case and tell how it went."""
        clauses = _clauses(item.function)
        self._tell({"started": item.name, "clauses": clauses})
        with self._limited():
            reports = runtestprotocol(item, log=False)
        failed = next((report for report in reports if report.failed), None)
        skipped = any(report.skipped for report in reports)
        line: dict[str, Any] = {"case": item.name, "clauses": clauses}
        if failed is None:
            self._tell({**line, "outcome": "not_declared" if skipped else "passed"})
        else:
            self._tell({**line, "outcome": "failed", "message": _message(failed), "details": failed.longreprtext})
        return True


def _clauses(case: Any) -> list[str]:
    return list(getattr(case, "clauses", ())) or ["-"]


def _message(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else report.longreprtext).strip().splitlines()
    return " ".join(lines[0].split())[:200] if lines else "it failed without a word"
