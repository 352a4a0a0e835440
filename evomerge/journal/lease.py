"""Who works on a run folder: also where files cannot be locked, as on some network disks."""

from __future__ import annotations

import getpass
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from evomerge.errors import NotNowError, StoppedError
from evomerge.files import write_text
from evomerge.journal.folder import OWNER_FILE

logger = logging.getLogger(__name__)

SIGN_EVERY_S = 15.0
STALE_S = 120.0
"""An owner on another machine that has given no sign for so long is taken to be gone."""


class Lease:
    """A run folder's owner file, as long as it names this process.

    Args:
        run_dir: The folder.

    Raises:
        NotNowError: Another process owns it, and lives as far as can be told.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / OWNER_FILE
        owner = _read(self.path)
        if owner is not None:
            self._take_over(owner)
        self._token = secrets.token_hex(16)
        write_text(self.path, json.dumps({**_here(), "token": self._token}) + "\n", durable=False)
        self._is_over = threading.Event()
        threading.Thread(target=self._give_signs, name="lease", daemon=True).start()

    def check(self) -> None:
        """Write no further into a folder that another process has taken over.

        Raises:
            StoppedError: It has.
        """
        owner = _read(self.path)
        if owner is None or owner.get("token") != self._token:
            who = "is gone" if owner is None else f"names {_described(owner)}"
            raise StoppedError(
                f"{self.path.parent}: another process has taken the run over ({self.path.name} "
                f"{who}); nothing more is written here"
            )

    def end(self) -> None:
        """Leave the folder to the next, where it is still this process's."""
        self._is_over.set()
        owner = _read(self.path)
        if owner is not None and owner.get("token") == self._token:
            self.path.unlink(missing_ok=True)

    def _take_over(self, owner: dict[str, Any]) -> None:
        quiet_s = time.time() - self.path.stat().st_mtime
        here = _here()
        if owner.get("host") == here["host"]:
            is_gone = owner.get("pid") == here["pid"] or not _lives(owner)
        else:
            is_gone = quiet_s > STALE_S
        if not is_gone:
            raise NotNowError(
                f"{self.path.parent} is in use by {_described(owner)}; wait for it, or stop it"
            )
        if owner.get("pid") != here["pid"] or owner.get("host") != here["host"]:
            logger.warning(
                "%s: taken over from %s, which is gone (its last sign: %.0f s ago)",
                self.path.parent,
                _described(owner),
                quiet_s,
            )

    def _give_signs(self) -> None:
        while not self._is_over.wait(SIGN_EVERY_S):
            try:
                os.utime(self.path)
            except OSError:
                # The next commit says what is wrong.
                return


def owner_of(run_dir: Path) -> str:
    """Who works on a run, for a person."""
    owner = _read(run_dir / OWNER_FILE)
    return "another process" if owner is None else _described(owner)


def _here() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started_at": process.create_time(),
        "user": _user(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _lives(owner: dict[str, Any]) -> bool:
    """Whether an owner's process, and no other of its number, is there."""
    try:
        return bool(psutil.Process(int(owner["pid"])).create_time() == owner["started_at"])
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _described(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid')} of {owner.get('user')} on {owner.get('host')}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None
