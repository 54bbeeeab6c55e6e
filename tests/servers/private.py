"""Servers of the tests' own, for what a shared server must never suffer: PostgreSQL, and MariaDB or MySQL."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
import pymysql
from tests.servers.process import HOST, ServerProcess, ServerUnavailableError
from tests.servers.sqld import Sqld

DATABASE = "test"
SYSTEM_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec")  # not on everybody's PATH


class PrivatePostgres(ServerProcess):
    """A PostgreSQL server; anybody on this machine is let in as ``postgres``."""

    name = "postgres"
    account = "postgres"
    stop_signal = signal.SIGINT  # SIGTERM would wait for the clients to go
    discard_signal = signal.SIGQUIT  # SIGKILL would leave its shared memory behind

    def __init__(self) -> None:
        self._binaries = _postgres_binaries()
        super().__init__()

    def command(self) -> list[str]:
        settings = {"port": self.port.number, "listen_addresses": HOST, "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._binaries / "postgres"), "-D", str(self.directory / "data"), *options]

    def start(self) -> None:
        is_new = not (self.directory / "data").exists()
        if is_new:
            initdb = str(self._binaries / "initdb")
            options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
            self.run_tool([initdb, *options, "-D", str(self.directory / "data")])
        super().start()
        if is_new:
            with psycopg.connect(self._url_of("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self._url_of("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def url(self) -> str:
        return self._url_of(DATABASE)

    def _url_of(self, database: str) -> str:
        return f"postgresql://postgres@{HOST}:{self.port.number}/{database}"


def _postgres_binaries() -> Path:
    """Return the directory with ``initdb`` and ``postgres``, which Debian puts on nobody's PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parts[-2]), reverse=True)
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
        places.insert(0, Path(done.stdout.strip()))
    if postgres := shutil.which("postgres"):
        places.append(Path(postgres).resolve().parent)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise ServerUnavailableError("there is no initdb with a postgres beside it on this machine")


class PrivateMysql(ServerProcess):
    """A MariaDB or MySQL server; ``root`` of this machine needs no password."""

    name = "mysqld"
    account = "mysql"

    def __init__(self) -> None:
        self._install = _find("mariadb-install-db") or _find("mysql_install_db")
        self._server = (_find("mariadbd") if self._install else None) or _find("mysqld")
        if self._server is None:
            raise ServerUnavailableError("there is neither a mariadbd nor a mysqld on this machine")
        super().__init__()

    def command(self) -> list[str]:
        place = self.directory
        return [
            self._server, "--no-defaults", f"--datadir={place / 'data'}", f"--port={self.port.number}",
            f"--bind-address={HOST}", f"--socket={place / 'socket'}", f"--pid-file={place / 'pid'}",
            self._tmpdir, *([] if self._install else ["--mysqlx=OFF"]),
        ]  # fmt: skip

    def start(self) -> None:
        data = self.directory / "data"
        is_new = not data.exists()
        if is_new and self._install:
            options = [f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
            self.run_tool([self._install, "--no-defaults", self._tmpdir, *options])
        elif is_new:
            self.run_tool([self._server, "--no-defaults", self._tmpdir, "--initialize-insecure", f"--datadir={data}"])
        super().start()
        if is_new:
            with self._connect() as connection:
                connection.cursor().execute(f"CREATE DATABASE {DATABASE}")

    def is_ready(self) -> bool:
        try:
            self._connect().close()
        except pymysql.OperationalError:
            return False
        return True

    @property
    def url(self) -> str:
        return f"mysql://root@{HOST}:{self.port.number}/{DATABASE}"

    @property
    def _tmpdir(self) -> str:
        """Return the option for a directory of its own: a server that starts empties it of other servers' tables."""
        return f"--tmpdir={self.directory}"

    def _connect(self) -> pymysql.Connection:
        return pymysql.connect(host=HOST, port=self.port.number, user="root", connect_timeout=5, ssl_disabled=True)


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=":".join(SYSTEM_PLACES))


PROCESSES: dict[str, type[ServerProcess]] = {"postgresql": PrivatePostgres, "mysql": PrivateMysql, "libsql": Sqld}
