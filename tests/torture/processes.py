"""Real processes to be tortured: Valkey, sentinels, `usher receive`, `usher work`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from worker import embedded

ROOT = Path(__file__).parent.parent.parent
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class Process:
    """A process that can be killed and started again."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._arguments = list(arguments)
        self._cwd = cwd
        self._env = dict(env)
        self._log = cwd / f"{Path(arguments[0]).name}-{id(self):x}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=self._cwd,
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=embedded.end_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
            )

    def kill(self) -> None:
        """Kill as a power cut does: no handler runs."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def memory(self) -> int:
        """Return the resident memory in KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0


class Valkey(Process):
    """A Valkey with its append-only file in a folder; `settings` go before ours."""

    def __init__(
        self, folder: Path, port: int, env: Mapping[str, str] | None = None, **settings: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        whole = DURABLE | {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": ""}
        arguments = [part for k, v in (whole | named).items() for part in (f"--{k}", v)]
        super().__init__([str(embedded._binary()), *arguments], cwd=folder, env=env or {})

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        super().start()
        wait_for(lambda: embedded._answers(self.port))


class Sentinel(Process):
    """One sentinel that watches the master `usher`."""

    def __init__(self, folder: Path, port: int, master: int, *, down_after: int = 1000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor usher 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds usher {down_after}\n"
            "sentinel failover-timeout usher 5000\nsentinel parallel-syncs usher 2\n"
        )
        binary = str(embedded._binary())
        super().__init__([binary, str(folder / "sentinel.conf"), "--sentinel"], cwd=folder, env={})

    def start(self) -> None:
        super().start()
        wait_for(lambda: embedded._answers(self.port))


def usher(command: str, folder: Path, **env: str) -> Process:
    """Return an `usher` command, not yet started, in a folder with its rooms.toml."""
    return _python(["-m", "worker.cli.main", command], folder, **env)


def script(name: str, folder: Path, **env: str) -> Process:
    """Return a script of this folder as a process."""
    return _python(["-m", f"torture.{name}"], folder, **env)


def _python(arguments: Sequence[str], folder: Path, **env: str) -> Process:
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": os.environ["PATH"]}
    return Process(
        [sys.executable, *arguments], cwd=folder, env=paths | {"USHER_LOG": "json"} | env
    )


def ready(port: int) -> None:
    """Wait until a receiver says that it can keep deliveries."""

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=4).status_code == 200
        return False

    wait_for(answers)


def wait_for(true, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
