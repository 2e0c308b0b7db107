"""Where the stack keeps what: one folder, STACK_HOME, and the names below it."""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from stack.faults import ForeignFolder

CHECKOUT = Path(__file__).resolve().parent.parent
POSTGRES_USER = "postgres"
# sun_path holds 108 bytes; a longer socket path is refused by the kernel.
LONGEST_SOCKET_PATH = 100


def runs_as_root() -> bool:
    """Whether this process is root, so that PostgreSQL needs a user of its own."""
    return os.geteuid() == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths of one stack.

    Args:
        home: STACK_HOME, absolute.
        checkout: The project's folder.
    """

    home: Path
    checkout: Path = CHECKOUT

    @classmethod
    def from_environment(cls) -> Layout:
        """The layout named by STACK_HOME (relative to the checkout), or `<checkout>/.stack`."""
        return cls(home=(CHECKOUT / os.environ.get("STACK_HOME", ".stack")).resolve())

    @property
    def stack_id(self) -> str:
        """Eight hexadecimal digits that stay the same for this home and differ from another's."""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:8]

    @property
    def etc(self) -> Path:
        """Generated configuration, closed to others: some of it holds passwords."""
        return self.home / "etc"

    @property
    def logs(self) -> Path:
        """One log a service."""
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """Process ids, sockets, locks: worthless when nothing runs."""
        return self.home / "run"

    @property
    def work(self) -> Path:
        """A working directory for each program; a process found in one belongs to this stack."""
        return self.home / "work"

    @property
    def data(self) -> Path:
        """The data of the services."""
        return self.home / "data"

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME: generated configuration, task logs, the file of UI passwords."""
        return self.home / "airflow"

    @property
    def nodes(self) -> Path:
        """A folder for each worker host: its temporary files, home, AIRFLOW_HOME."""
        return self.home / "nodes"

    @property
    def settings_file(self) -> Path:
        """Ports and versions, remembered from the first start on."""
        return self.home / "settings.json"

    @property
    def secrets_file(self) -> Path:
        """Generated passwords and keys; only the owner can read it."""
        return self.home / "secrets.env"

    @property
    def outside(self) -> Path:
        """Where things go that cannot lie below home: named after it, in a folder every user can enter."""
        return Path("/var/tmp") / f"collect-ops-{self.stack_id}"  # noqa: S108 (owner and mode are checked)

    @property
    def postgres_data(self) -> Path:
        """PGDATA: below home, or outside when the postgres user cannot enter home."""
        if runs_as_root() and not enterable_by_others(self.home):
            return self.outside / "postgres"
        return self.data / "postgres"

    @property
    def supervisor_socket(self) -> Path:
        """The socket through which supervisord is told what to do."""
        inside = self.run / "supervisor.sock"
        return inside if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH else self.outside / "supervisor.sock"

    def create(self) -> None:
        """Make the folders; harmless when they exist.

        Raises:
            ForeignFolder: the folder outside exists and belongs to another user.
        """
        for path, mode in (
            (self.home, 0o711),  # the postgres user passes through, and can list nothing
            (self.data, 0o711),
            (self.etc, 0o700),
            (self.logs, 0o700),
            (self.run, 0o700),
            (self.work, 0o711),
            (self.airflow_home, 0o700),
        ):
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(mode)
        if self.outside in (self.postgres_data.parent, self.supervisor_socket.parent):
            self._create_outside()

    def _create_outside(self) -> None:
        self.outside.mkdir(mode=0o711, exist_ok=True)
        found = self.outside.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ForeignFolder(self.outside, pwd.getpwuid(found.st_uid).pw_name)
        self.outside.chmod(0o711)


def enterable_by_others(path: Path) -> bool:
    """Whether every user can pass through `path` and all above it; what does not exist yet counts as open."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents) if folder.exists())
