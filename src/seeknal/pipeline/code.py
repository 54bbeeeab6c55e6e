"""The Python code of a project as it counts: what a function names, in its own file and in the modules it imports.

Code is read, never run. What counts is its syntax tree without docstrings; so neither comments nor layout do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from seeknal.pipeline.attempts import ATTEMPT_KEYS
from seeknal.pipeline.ranges import RANGE_KEYS

Chain = tuple[str, ...]
"""A dotted name, as it is written: ``lib.clean`` is ``("lib", "clean")``."""

_NOT_OWN = frozenset({"site-packages", "dist-packages", "target", "node_modules", "__pycache__"})
_DESCRIBES = ("description", "tags", *ATTEMPT_KEYS, *RANGE_KEYS)
_DECORATORS = ("source", "transform", "command")
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment"})
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SEES_ALL = frozenset({"globals", "eval", "exec"})
"""Whoever calls one of these may name anything of its file."""


class Imported(NamedTuple):
    """What a name of a module stands for elsewhere: a module, or with ``attribute`` something in it."""

    module: str
    level: int
    attribute: str | None


class Module:
    """The top level of one Python file: which statements make each name what it is.

    What it says of them is kept, since a file may define thousands of nodes. Safe from threads.
    """

    def __init__(self, path: Path, place: str, tree: ast.Module) -> None:
        self.path = path
        self.place = place
        self.tree = tree
        self.statements: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[Imported]] = {}
        self.stars: list[Imported] = []
        for statement in tree.body:
            if not _is_main_block(statement):
                for name in _touched(statement):
                    self.statements.setdefault(name, []).append(statement)
        for node in ast.walk(tree):  # in functions, too: there they name the same
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
        self._texts: dict[str, str] = {}
        self._chains: dict[str, list[Chain]] = {}

    def text(self, name: str) -> str:
        """Return the statements of a name as text; all of the file for an empty one."""
        if name not in self._texts:
            self._texts[name] = _dumped(self._of(name))
        return self._texts[name]

    def chains(self, name: str) -> list[Chain]:
        """Return the dotted names in the statements of a name, sorted; in all of the file for an empty one."""
        if name not in self._chains:
            self._chains[name] = sorted(_chains(self._of(name)))
        return self._chains[name]

    def _of(self, name: str) -> list[ast.stmt]:
        return self.statements[name] if name else self.tree.body

    def _import(self, node: ast.Import) -> None:
        for each in node.names:
            name = each.asname or each.name.partition(".")[0]
            self.imports.setdefault(name, []).append(Imported(each.name if each.asname else name, 0, None))

    def _import_from(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            if each.name == "*":
                self.stars.append(Imported(node.module or "", node.level, None))
            else:
                found = Imported(node.module or "", node.level, each.name)
                self.imports.setdefault(each.asname or each.name, []).append(found)


class NamedCode:
    """What a function of a project is made of: the code that it names, and what that names in turn.

    Attributes:
        own: The function itself; the whole file, if its definition is not to be found by reading.
        named: Everything else by ``file:name``, or by ``file`` where all of it may be meant.
    """

    def __init__(self, file: Path, function: str, project_path: Path) -> None:
        self.own = ""
        self.named: dict[str, str] = {}
        self._project = project_path.resolve()
        # Where Python looks for what the file imports, as far as that is in the project.
        self._roots = [file.resolve().parent, *_own_folders(self._project, Path.cwd(), tuple(sys.path))]
        self._followed: set[tuple[Path, Chain]] = set()
        self._defined: set[tuple[Path, str]] = set()
        module = self._module(file.resolve())
        if module is not None:
            name = function if function in module.statements else ""
            self._defined.add((module.path, name))
            self.own = module.text(name)
            self._follow(module, name)
        self.named = dict(sorted(self.named.items()))

    def _follow(self, module: Module, name: str) -> None:
        for chain in module.chains(name):
            if chain[0] in _SEES_ALL and chain[0] not in module.statements:
                self._add_whole(module)
            else:
                self._add(module, chain)

    def _add(self, module: Module, chain: Chain) -> bool:
        """Add what a dotted name stands for in a module; return whether the module has it."""
        name = chain[0]
        statements = module.statements.get(name, [])
        imports = module.imports.get(name, [])
        if not statements and not imports:
            return any(self._add_starred(module, star, chain) for star in module.stars)
        if (module.path, chain) in self._followed:
            return True
        self._followed.add((module.path, chain))
        for imported in imports:
            self._add_imported(module, imported, chain)
        if statements and (module.path, name) not in self._defined:
            self._defined.add((module.path, name))
            self.named[f"{module.place}:{name}"] = module.text(name)
            self._follow(module, name)
        return True

    def _add_starred(self, module: Module, star: Imported, chain: Chain) -> bool:
        target = self._find(module, star)
        return target is not None and target.path != module.path and self._add(target, chain)

    def _add_imported(self, module: Module, imported: Imported, chain: Chain) -> None:
        target = self._find(module, imported)
        rest = chain[1:] if imported.attribute is None else (imported.attribute, *chain[1:])
        if target is None and imported.module == "seeknal.pipeline":
            return  # its decorators only mark
        if target is None:
            # Not the project's: only what is imported counts, not its code.
            self.named[f"{module.place}:import {chain[0]}"] = ".".join([imported.module, imported.attribute or ""])
        else:
            self._add_of(target, imported, rest)

    def _add_of(self, target: Module, imported: Imported, rest: Chain) -> None:
        while rest:
            if self._add(target, rest):
                return
            inner = self._inside(target, rest[0])
            if inner is None:
                break
            target, rest = inner, rest[1:]
        self._add_whole(target)

    def _add_whole(self, module: Module) -> None:
        if (module.path, "") not in self._defined:
            self._defined |= {(module.path, name) for name in ("", *module.statements)}
            self.named[module.place] = module.text("")
            self._follow(module, "")

    def _find(self, module: Module, imported: Imported) -> Module | None:
        parts = [part for part in imported.module.split(".") if part]
        if imported.level:
            return self._within(module.path.parents[imported.level - 1], parts)
        if not parts or parts[0] in sys.builtin_module_names:
            return None
        return next((found for root in self._roots if (found := self._within(root, parts)) is not None), None)

    def _within(self, folder: Path, parts: list[str]) -> Module | None:
        for path in (folder.joinpath(*parts, "__init__.py"), folder.joinpath(*parts).with_suffix(".py")):
            if (parts or path.name == "__init__.py") and (found := self._module(path)) is not None:
                return found
        package = folder.joinpath(*parts)
        if parts and _is_own(package, self._project) and package.is_dir():  # a package without a file of its own
            return Module(package / "__init__.py", package.relative_to(self._project).as_posix(), ast.Module([], []))
        return None

    def _inside(self, package: Module, name: str) -> Module | None:
        return self._within(package.path.parent, [name]) if package.path.name == "__init__.py" else None

    def _module(self, path: Path) -> Module | None:
        if not _is_own(path, self._project) or not path.is_file():
            return None
        try:
            return _read(path, path.relative_to(self._project).as_posix(), path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            return None  # it cannot be imported either: running the file that does so says why


def _is_own(path: Path, project: Path) -> bool:
    if not path.is_relative_to(project):
        return False
    parts = path.relative_to(project).parts
    return not any(part in _NOT_OWN or part.startswith(".") for part in parts)


@lru_cache(maxsize=16)
def _own_folders(project: Path, working: Path, path: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders in a project where Python looks for modules, of ``path`` as it is seen from ``working``.

    Kept, since each node of a project asks for them, and they are resolved one by one.
    """
    return tuple(folder for each in path if _is_own(folder := (working / each).resolve(), project))


@lru_cache(maxsize=256)
def _read(path: Path, place: str, source: bytes) -> Module:
    tree = ast.parse(source)
    _leave_out_descriptions(tree)
    return Module(path, place, tree)


def _leave_out_descriptions(tree: ast.Module) -> None:
    """Drop what only describes: docstrings, and the description and tags of a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                del node.body[0]
        for call in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in _DECORATORS:
                call.keywords = [each for each in call.keywords if each.arg not in _DESCRIBES]


def _is_main_block(statement: ast.stmt) -> bool:
    """Return whether this is ``if __name__ == "__main__":``, which is not run in a project."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test).startswith("__name__ ==")


def _touched(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of the top level defines or may change."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    if isinstance(statement, ast.Expr):  # a call may change whatever it is given: TABLE.update(...)
        return {chain[0] for chain in _chains([statement])}
    found: set[str] = set()
    for field in ast.iter_child_nodes(statement):
        if isinstance(field, ast.stmt):
            found |= _touched(field)
        elif isinstance(field, ast.ExceptHandler | ast.match_case):
            found |= {name for each in field.body for name in _touched(each)}
        else:
            found |= set(_stored(field))
    return found


def _stored(node: ast.AST) -> Iterator[str]:
    """Yield the names that an expression binds, deletes, or changes an item or an attribute of."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name | ast.Attribute | ast.Subscript) and isinstance(each.ctx, ast.Store | ast.Del):
            base: ast.expr = each
            while isinstance(base, ast.Attribute | ast.Subscript | ast.Starred):
                base = base.value
            if isinstance(base, ast.Name):
                yield base.id


def _chains(nodes: Iterable[ast.AST]) -> set[Chain]:
    """Return the dotted names in some code."""
    found: set[Chain] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        rest: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            rest.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            found.add((inner.id, *reversed(rest)))
        else:
            stack += ast.iter_child_nodes(inner)
    return found


def _dumped(nodes: Iterable[ast.AST]) -> str:
    """Return syntax trees as text, the same on every version of Python: what is empty or ``None`` is left out."""
    out: list[str] = []
    stack: list[object] = [list(nodes)]
    while stack:
        item = stack.pop()
        if isinstance(item, _Text):
            out.append(item)
        elif isinstance(item, ast.AST):
            fields = [(name, getattr(item, name, None)) for name in item._fields if name not in _IGNORED_FIELDS]
            out.append(f"{type(item).__name__}(")
            stack.append(_Text(")"))
            for name, value in reversed(fields):
                if value is not None and value != []:
                    stack += [_Text(","), value, _Text(f"{name}=")]
        elif isinstance(item, list):
            out.append("[")
            stack.append(_Text("]"))
            for value in reversed(item):
                stack += [_Text(","), value]
        else:  # the digits of a huge number are more than str() prints
            out.append(hex(item) if type(item) is int else f"{type(item).__name__}:{item!r}")
    return "".join(out)


class _Text(str):
    """Text that `_dumped` prints as it is; a plain ``str`` is a value of the code."""

    __slots__ = ()
