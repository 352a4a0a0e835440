"""Nothing that a search starts listens for other machines."""

from __future__ import annotations

import ipaddress

import psutil

from commands import start, wait_for
from fixtures import make_workspace


def doors(pid: int) -> dict[str, set[str]]:
    """Addresses that a process and all below it listen on, by the name of the process.

    Ray's processes are in sessions of their own and stay children of the driver.
    """
    found: dict[str, set[str]] = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(process.name(), set()).add(connection.laddr.ip)
        except psutil.Error:
            continue
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def test_a_search_listens_for_its_own_machine_alone(tmp_path):
    make_workspace(tmp_path, search={"budget": {"candidates": 2000}})
    process = start("search", "config.yaml", "--run-dir", "run", cwd=tmp_path)
    journal = tmp_path / "run/journal.jsonl"
    try:
        # Actors are there, and answer.
        wait_for(process, lambda: journal.exists() and b'"kind":"told"' in journal.read_bytes())
        found = doors(process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert {"gcs_server", "raylet"} <= found.keys()
    assert any("Worker" in name or "ray::" in name for name in found)
    assert all(is_loopback(address) for addresses in found.values() for address in addresses), found
