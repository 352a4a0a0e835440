"""A real PostgreSQL, as Debian has it, on loopback and with a password."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "planted-postgres-password"


def programs() -> Path | None:
    """The folder of the newest release's programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgres(folder: Path, port: int) -> Iterator[str]:
    """The address of a database, without the password, once it answers."""
    bin_dir = programs()
    assert bin_dir is not None
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    as_user = []
    if os.getuid() == 0:
        # It does not run as root.
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and "pytest" in str(parent):
                parent.chmod(parent.stat().st_mode | 0o055)
        as_user = ["runuser", "-u", "postgres", "--"]
    data_dir = folder / "data"
    subprocess.run(
        [
            *as_user,
            *(bin_dir / "initdb", "-D", data_dir, "-U", "mlflow", "-A", "scram-sha-256"),
            f"--pwfile={folder}/password",
        ],
        check=True,
        capture_output=True,
    )
    options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen(
        [*as_user, bin_dir / "postgres", "-D", data_dir, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + 60
        ready = [bin_dir / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < ends and server.poll() is None
            time.sleep(0.2)
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*as_user, bin_dir / "pg_ctl", "-D", data_dir, "-m", "fast", "stop"],
            check=False,
            capture_output=True,
        )
        server.wait(30)
