"""The console command ``seeknal``: its commands, how errors are told, and exit codes.

0 done, 1 failed, 2 wrong usage or configuration, 3 held by somebody else, 4 store unreachable, 5 store
corrupt; 130 after Ctrl-C, 141 when nobody reads the output any more.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence

from typer.exceptions import Abort, TyperException

from seeknal.cli.commands import assembled
from seeknal.cli.streams import open_closed_streams
from seeknal.errors import (
    AccessDeniedError,
    BackendUnavailableError,
    ConfigurationError,
    CorruptStateError,
    GraphError,
    IntervalError,
    InvalidFieldError,
    InvalidIdError,
    LockHeldError,
    MoveInProgressError,
    SeeknalError,
)

EXIT_CODES: tuple[tuple[type[SeeknalError], int], ...] = (
    (ConfigurationError, 2),
    (GraphError, 2),
    (InvalidIdError, 2),
    (InvalidFieldError, 2),
    (IntervalError, 2),
    (LockHeldError, 3),
    (MoveInProgressError, 3),
    (BackendUnavailableError, 4),
    (AccessDeniedError, 4),
    (CorruptStateError, 5),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors are two lines on stderr.

    Args:
        arguments: Those of the process when ``None``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_process()
    try:
        code = assembled(given)(args=given, prog_name="seeknal", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Typer turns a broken pipe into SystemExit, and nothing else outside its standalone mode.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, OSError):
            raise
        # The interpreter flushes stdout once more at exit; let that go nowhere instead of failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, Abort):
        sys.stderr.write("error: interrupted\n")
        return 130
    except TyperException as error:
        if error.format_message().startswith("Usage:"):  # no command was given: this is the help, as it is
            sys.stderr.write(f"{error.format_message()}\n")
            return 2
        _tell(error.format_message() or "no command was given", f"See `{_command_of(error)} --help`.")
        return 2
    except SeeknalError as error:
        if "--debug" in given:
            traceback.print_exc()
        _tell(str(error), error.hint)
        return exit_code(error)
    except OSError as error:
        if "--debug" in given:
            traceback.print_exc()
        _tell(f"{error.strerror or error}", "Check where the output goes: is it closed, or its disk full?")
        return 1
    except Exception as error:  # noqa: BLE001 - the last place where it can be told in two lines
        if "--debug" in given:
            traceback.print_exc()
        _tell(f"{type(error).__name__}: {error}", "This is a bug; report it with the output of --debug.")
        return 1
    return code if isinstance(code, int) else 0


def exit_code(error: SeeknalError) -> int:
    """Return what the command exits with after an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _prepare_process() -> None:
    """Take SIGTERM and SIGHUP for an interruption, so that runs end as what they are; print whatever text there is."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)


def _command_of(error: TyperException) -> str:
    """Return the command that was used wrongly, as far as it was found."""
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "seeknal"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _tell(message: str, hint: str) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.stderr.write(f"hint: {' '.join(hint.split()) or 'Run it again with --debug to see more.'}\n")


if __name__ == "__main__":
    sys.exit(main())
