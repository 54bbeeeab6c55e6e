"""Backends by name: our own, those of installed packages, and those a program registers.

A backend is imported when it is first created, so that naming one never loads a driver.
"""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from seeknal.errors import ConfigurationError, MissingDriverError, UnknownBackendError
from seeknal.state.contract import StateBackend

ENTRY_POINT_GROUP = "seeknal.state_backends"

BUILT_IN = {
    "memory": "seeknal.state.memory:MemoryStateBackend",
    "file": "seeknal.state.file.backend:FileStateBackend",
    "database": "seeknal.state.sql.backend:DatabaseStateBackend",
    "sqlite": "seeknal.state.sql.backend:DatabaseStateBackend",
}

EXTRAS = {"psycopg": "postgres", "pymysql": "mysql", "httpx": "turso"}
"""Driver module to the extra that installs it."""


class StateBackendFactory:
    """Names to backend classes. Registering is not safe from threads; creating is."""

    _registered: ClassVar[dict[str, type[StateBackend]]] = {}

    @classmethod
    def register(cls, name: str, backend_class: type[StateBackend]) -> None:
        """Make a backend known under a name; a name that was registered before now means this one.

        Raises:
            ConfigurationError: ``backend_class`` is not a subclass of `StateBackend`, or ``name`` is empty.
        """
        if not isinstance(backend_class, type) or not issubclass(backend_class, StateBackend):
            raise ConfigurationError(
                f"{backend_class!r} is not a subclass of StateBackend",
                hint="Derive it from seeknal.state.backend.StateBackend.",
            )
        if not isinstance(name, str) or not name:
            raise ConfigurationError("a backend needs a name", hint="Pass a non-empty string.")
        cls._registered[name] = backend_class

    @classmethod
    def create(cls, backend_type: str, **options: Any) -> StateBackend:
        """Return a new instance; `StateBackend.initialize` is the caller's to call.

        Raises:
            UnknownBackendError: No such name; the hint lists those that are known.
            MissingDriverError: Its driver is not installed; the hint names the extra.
            ConfigurationError: An option it does not take.
        """
        backend_class = cls.find(backend_type)
        known = inspect.signature(backend_class).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        for option in options:
            if option not in known and not takes_any and not getattr(backend_class, "__abstractmethods__", ()):
                raise _unknown_option(backend_type, option, list(known))
        try:
            return backend_class(**options)
        except TypeError as error:
            missing = ", ".join(sorted(getattr(backend_class, "__abstractmethods__", ())))
            raise ConfigurationError(
                f"backend {backend_type!r} cannot be created: {f'it lacks {missing}' if missing else error}",
                hint="Write the methods that are missing." if missing else "Check the names of its options.",
            ) from error

    @classmethod
    def list_backends(cls) -> list[str]:
        """Return the names that can be created, sorted."""
        return sorted({*BUILT_IN, *cls._registered, *(point.name for point in _installed())})

    @classmethod
    def find(cls, name: str) -> type[StateBackend]:
        """Return the class of a name.

        Raises:
            UnknownBackendError: No such name; the hint lists those that are known.
            MissingDriverError: Its driver is not installed; the hint names the extra.
            ConfigurationError: The entry point of that name is no backend.
        """
        if name in cls._registered:
            return cls._registered[name]
        try:
            if name in BUILT_IN:
                module, _, attribute = BUILT_IN[name].partition(":")
                found = getattr(import_module(module), attribute)
            else:
                point = next((point for point in _installed() if point.name == name), None)
                if point is None:
                    raise _unknown(name, cls.list_backends())
                found = point.load()
        except ModuleNotFoundError as error:
            raise missing_driver(name, error) from error
        if not (isinstance(found, type) and issubclass(found, StateBackend)):
            raise ConfigurationError(
                f"the entry point {name!r} does not name a StateBackend", hint="Tell the authors of that package."
            )
        return found


def missing_driver(name: str, error: ModuleNotFoundError) -> MissingDriverError:
    """Return the error of a backend whose driver is not installed."""
    module = error.name or ""
    if not module.startswith("seeknal."):
        module = module.partition(".")[0]
    extra = EXTRAS.get(module)
    install = f"pip install 'seeknal-state[{extra}]'" if extra else f"Install the package that provides {module}"
    return MissingDriverError(f"backend {name!r} needs {module}, which is not installed", hint=f"{install}.")


def _installed() -> list[EntryPoint]:
    return [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in BUILT_IN]


def _unknown_option(name: str, option: str, known: list[str]) -> ConfigurationError:
    near = difflib.get_close_matches(option, known, n=1)
    return ConfigurationError(
        f"backend {name!r} has no option {option!r}",
        hint=f"{f'Did you mean {near[0]}? ' if near else ''}Known: {', '.join(known) or 'none'}.",
    )


def _unknown(name: str, known: list[str]) -> UnknownBackendError:
    near = difflib.get_close_matches(str(name), known, n=1)
    return UnknownBackendError(
        f"there is no state backend {name!r}",
        hint=f"{f'Did you mean {near[0]}? ' if near else ''}Known: {', '.join(known)}.",
        name=str(name),
        known=tuple(known),
    )
