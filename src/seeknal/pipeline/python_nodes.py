"""Nodes that are Python functions."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from seeknal.errors import ConfigurationError, InvalidIdError
from seeknal.model.ids import check_id
from seeknal.pipeline.attempts import ATTEMPT_KEYS, attempt_fields
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.pipeline.ranges import RANGE_KEYS, range_fields

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__seeknal_node__"
_OPTIONS = ("name", "inputs", "description", "tags", *RANGE_KEYS, *ATTEMPT_KEYS)
_PREFIX = "seeknal_project_"
_LAZY = (
    (inspect.iscoroutinefunction, "coroutine function"),
    (inspect.isasyncgenfunction, "generator function"),
    (inspect.isgeneratorfunction, "generator function"),
)
_loading = threading.RLock()
_loaded: dict[Path, tuple[bytes, ModuleType]] = {}
"""The files of projects that were run, with the code that they had; for as long as nothing they import changes."""
_imported: dict[str, tuple[ModuleType, Path, bytes]] = {}
"""The modules that files of a project have imported from beside themselves, with where and what they were."""


class NodeOptions(TypedDict, total=False):
    """The options of the decorators; what each means is said at `source`."""

    name: str
    inputs: Sequence[str]
    description: str
    tags: Sequence[str]
    schedule: str
    timezone: str
    start: str | date
    end: str | date
    lookback: int
    lateness: str | float
    batch_size: int
    partitions: Sequence[str] | Literal["expected"]
    retries: int
    retry_delay: str | float
    timeout: str | float


@overload
def source(function: F, /) -> F: ...
@overload
def source(**options: Unpack[NodeOptions]) -> Callable[[F], F]: ...
def source(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark a function as a source: it takes ``ctx`` and returns rows.

    Args:
        function: The function, when used without parentheses.
        **options: ``name`` (the function's own by default), ``inputs`` (ids; literal ``ctx.ref("kind.name")`` calls
            are found without), ``description``, ``tags``, ``retries``, ``retry_delay`` and ``timeout`` (``"10m"``, or
            seconds); and, of a node that is computed range by range, ``schedule``, ``timezone``, ``start``, ``end``,
            ``lookback``, ``lateness``, ``batch_size`` or ``partitions``: then it is called for each range that is
            missing, which ``ctx.interval`` or ``ctx.partition`` names. A start or an end without an offset is what the
            clocks of the time zone show.
    """
    return _marked("source", function, options)


@overload
def transform(function: F, /) -> F: ...
@overload
def transform(**options: Unpack[NodeOptions]) -> Callable[[F], F]: ...
def transform(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark a function as a transform: it takes ``ctx`` and returns rows. Options are those of `source`."""
    return _marked("transform", function, options)


@overload
def command(function: F, /) -> F: ...
@overload
def command(**options: Unpack[NodeOptions]) -> Callable[[F], F]: ...
def command(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark a function as a command: it takes ``ctx``, does something, and leaves no rows. Options as of `source`."""
    return _marked("command", function, options)


def _marked(kind: str, function: F | None, options: dict[str, Any]) -> F | Callable[[F], F]:
    def mark(marked: F) -> F:
        setattr(marked, _MARK, (kind, options))
        return marked

    return mark if function is None else mark(function)


def python_nodes(file: Path, project_path: Path) -> list[Node]:
    """Return the nodes that a Python file defines, in the order of definition; running the file defines them.

    Raises:
        ConfigurationError: The file cannot be run, an option of a node cannot be used, or its function cannot be
            called with ``ctx``, or would return before it has done anything.
    """
    place = str(file.relative_to(project_path))
    module = load_module(file)
    code = file.read_text(encoding="utf-8")
    tree = ast.parse(code)
    bodies = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    found = []
    seen: set[int] = set()
    for attribute, function in list(vars(module).items()):
        mark = getattr(function, _MARK, None)
        if mark is None or getattr(function, "__module__", "") != module.__name__ or id(function) in seen:
            continue
        seen.add(id(function))  # a second name for it makes no second node
        kind, options = mark
        _check_options(options, place)
        _check_function(function, attribute, place)
        body = bodies.get(attribute)
        refs = _literal_refs(body) if body is not None else []
        found.append(
            Node(
                kind=kind,
                name=_name(kind, options.get("name") or attribute, place),
                file=place,
                content="",
                format=PYTHON,
                function=attribute,
                inputs=tuple(dict.fromkeys([*_texts(options, "inputs", place), *refs])),
                description=str(options.get("description", "")),
                tags=tuple(_texts(options, "tags", place)),
                **range_fields(options, place),
                **attempt_fields(options, place),
            )
        )
    return found


def load_module(file: Path) -> ModuleType:
    """Run a Python file of a project and return its module; it can import the modules beside it, as they are now.

    Once for all nodes of the file, as Python imports a module once: until it, or what files of the project have
    imported from beside themselves, has been edited.

    Raises:
        ConfigurationError: It raised; the message names the file and the line.
    """
    file = file.absolute()
    with _loading:
        _forget_imported(file.parent)
        code = _bytes(file)
        found = _loaded.get(file)
        if found is None or found[0] != code:
            found = _loaded[file] = (code, _executed(file))
        return found[1]


def code_stamp(file: Path) -> str:
    """Return a hash of a Python file of a project and of all that such files have imported from beside themselves.

    It changes whenever the module that `load_module` returns may be another one.
    """
    file = file.absolute()
    with _loading:
        load_module(file)
        digest = hashlib.sha256(_loaded[file][0])
        for path, code in sorted((str(path), code) for _, path, code in _imported.values()):
            digest.update(f"{path} {len(code)} ".encode() + code)
        return digest.hexdigest()


def _executed(file: Path) -> ModuleType:
    name = f"{_PREFIX}{file.stem}_{abs(hash(str(file.resolve())))}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with _importing_from(file.parent):
        sys.modules[name] = module
        try:
            # From the source, never from cached bytecode: that cannot tell two edits within a second apart.
            exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        except (Exception, SystemExit) as error:  # a project's code may raise anything
            del sys.modules[name]
            raise ConfigurationError(
                _told(error, file), hint="Correct the file; it is run to find its nodes."
            ) from error
    return module


def _told(error: BaseException, file: Path) -> str:
    """Return what a file of a project has raised, and in which line of it or of what it imports from beside itself."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        places.append((error.filename, error.lineno))
        text = error.msg
    folder = file.parent.absolute()
    own = [(Path(name), line) for name, line in places if Path(name).absolute().is_relative_to(folder)]
    what = f"{type(error).__name__}: {text}"
    if not own:
        return f"{file} cannot be run: {what}"
    path, line = own[-1]
    is_other = path.absolute() != file.absolute()
    return f"{file} cannot be run: {path}, line {line}: {what}" if is_other else f"{file}, line {line}: {what}"


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let a block import what stands in a folder, as it is now: not what it was when it was last imported.

    One thread at a time, since the path and the modules belong to the whole process.
    """
    with _loading:
        _forget_imported(folder)
        before = dict(sys.modules)
        writes_no_bytecode = sys.dont_write_bytecode
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            sys.dont_write_bytecode = writes_no_bytecode
            for name, module in list(sys.modules.items()):
                path = Path(getattr(module, "__file__", None) or "")
                if before.get(name) is not module and not name.startswith(_PREFIX) and path.is_relative_to(folder):
                    _imported[name] = (module, path, _bytes(path))


def _forget_imported(folder: Path) -> None:
    """Let everything be imported again, if any of it was changed or stands in another folder."""
    if all(path.is_relative_to(folder) and _bytes(path) == then for _, path, then in _imported.values()):
        return
    for name, (module, _, _) in _imported.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _imported.clear()
    _loaded.clear()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _check_options(options: dict[str, Any], place: str) -> None:
    for key in options:
        if key not in _OPTIONS:
            near = difflib.get_close_matches(key, _OPTIONS, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigurationError(
                f"{place}: there is no option {key!r}", hint=f"{hint}Known: {', '.join(_OPTIONS)}."
            )


def _check_function(function: object, name: str, place: str) -> None:
    """Raise if a function cannot be called with ``ctx`` alone, or only makes something that would have to be run."""
    if not callable(function):
        raise ConfigurationError(f"{place}: {name} is no function", hint=f"Write `def {name}(ctx):`.")
    for is_lazy, what in _LAZY:
        if is_lazy(function):
            raise ConfigurationError(
                f"{place}: {name} is a {what}, which does nothing when it is called",
                hint=f"Write `def {name}(ctx):`, with `return` and without `async` and `yield`.",
            )
    try:
        # Not of what a decorator has wrapped: that is called by the wrapper, with whatever it adds.
        signature = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # some that are written in C have none
        return
    try:
        signature.bind("ctx")
    except TypeError as error:
        raise ConfigurationError(
            f"{place}: {name}{signature} cannot be called with `ctx` alone: {error}",
            hint=f"Write `def {name}(ctx):`; whatever else it takes needs a default.",
        ) from error


def _name(kind: str, name: str, place: str) -> str:
    try:
        check_id(name, "name")
        check_id(f"{kind}.{name}", "name")
    except InvalidIdError as error:
        raise ConfigurationError(f"{place}: {error}", hint=error.hint) from error
    return name


def _literal_refs(body: ast.FunctionDef) -> list[str]:
    return [
        call.args[0].value
        for call in ast.walk(body)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "ref"
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]


def _texts(options: dict[str, Any], key: str, place: str) -> list[str]:
    value = options.get(key, ())
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ConfigurationError(f"{place}: {key} must be a list of texts", hint=f'Write {key}=["..."].')
    return list(value)
