"""Errors: one tree, with facts that survive pickling."""

import inspect
import pickle

import pytest

from seeknal import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS)
def test_they_survive_pickling(kind):
    facts = {
        name: f"the {name}"
        for name in inspect.signature(kind.__init__).parameters
        if name not in ("self", "message", "hint")
    }
    error = kind("it happened", hint="do this", **facts)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.hint, again.retriable) == ("it happened", "do this", kind.retriable)
    for name, value in facts.items():
        assert getattr(again, name) == value


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_one_tree_and_documented_in_it(kind):
    assert issubclass(kind, errors.SeeknalError)
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.InvalidIdError, ValueError),
        (errors.IntervalError, ValueError),
        (errors.RunNotFoundError, LookupError),
        (errors.LockHeldError, errors.ConcurrencyError),
        (errors.LeaseLostError, errors.ConcurrencyError),
        (errors.CommitUnknownError, errors.TransactionError),
        (errors.TransactionError, errors.StateBackendError),
    ],
)
def test_what_programs_catch(kind, base):
    assert issubclass(kind, base)


def test_only_what_may_succeed_later_is_retriable():
    assert {kind.__name__ for kind in KINDS if kind.retriable} == {
        "StaleVersionError",
        "LockHeldError",
        "BackendUnavailableError",
    }
