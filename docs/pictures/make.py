"""Make the pictures and the recorded text of docs/looking.md from a run.

    python docs/pictures/make.py RUN_DIR

The run has ended and is in MLflow (`evomerge sync`), and its chosen model is explained
(`evomerge explain`) and promoted. Pictures of
Prefect are of the demo, which runs for them in the folder of RUN_DIR's folder. It needs Chromium
(Debian: chromium) and playwright, and takes four minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from evomerge.config import load_config
from evomerge.journal.folder import CONFIG_FILE
from evomerge.record.config import tracking_uri
from evomerge.record.picks import parent_of, run_of
from evomerge.search import Result

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "tests"))

from prefect_server import Prefect, copy_flows  # noqa: E402  (their folder is named before)

PORT = 5971
WIDTHS = (60, 80, 120)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def main() -> None:
    """Make everything."""
    run_dir = Path(sys.argv[1])
    record_text(run_dir)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        report(browser, run_dir)
        mlflow(browser, run_dir)
        prefect(browser, run_dir.resolve().parents[1])
        browser.close()


def record_text(run_dir: Path) -> None:
    """The final table as the command prints it, at several widths."""
    command = [sys.executable, "-m", "evomerge", "resume", run_dir.name]
    for width in WIDTHS:
        done = subprocess.run(
            command,
            env={**os.environ, "COLUMNS": str(width)},
            cwd=run_dir.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        (HERE / f"terminal-{width}.txt").write_text(done.stdout)


def report(browser: Any, run_dir: Path) -> None:
    """The report at two widths, with another model picked than the chosen one."""
    for width, height in ((1280, 1000), (400, 900)):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto((run_dir / "report.html").resolve().as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")
        rows = page.locator("#front-table tr[data-id]")
        rows.nth(rows.count() - 1).click()
        shoot(page, f"report-{width}")
        page.locator("#front").scroll_into_view_if_needed()
        shoot(page, f"front-{width}")
    page = browser.new_page(viewport={"width": 1280, "height": 640})
    page.goto((run_dir / "report.html").resolve().as_uri())
    page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")
    page.locator("#explained").scroll_into_view_if_needed()
    shoot(page, "explained-1280")


def mlflow(browser: Any, run_dir: Path) -> None:
    """The experiment, the search, its metrics and its chosen model in MLflow."""
    experiment, run = parent_of(run_dir)
    result = Result(run_dir)
    started_at = result.results.state.started_at
    chosen = run_of(tracking_uri(run_dir), run_dir.resolve(), started_at, result.best)
    command = [sys.executable, "-m", "evomerge", "ui", str(run_dir), "--port", str(PORT)]
    server = subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        page = browser.new_page(viewport={"width": 1700, "height": 900})
        training = "workflowType=machine_learning"
        place = f"http://127.0.0.1:{PORT}/#/experiments/{experiment}"
        for name, address in {
            "mlflow-candidates": f"runs?{training}&viewStateShareKey=evomerge",
            "mlflow-search": f"runs/{run}?{training}",
            "mlflow-candidate": f"runs/{chosen}?{training}",
        }.items():
            page.goto(f"{place}/{address}")
            page.wait_for_timeout(6000)
            shoot(page, name)
        # The model is registered under the search's name.
        name = load_config(run_dir / CONFIG_FILE).name
        page.goto(f"http://127.0.0.1:{PORT}/#/models/{name}/versions/1?{training}")
        page.wait_for_timeout(6000)
        page.get_by_role("button", name="Close").last.click()
        shoot(page, "mlflow-model")
    finally:
        server.terminate()
        server.wait()


def prefect(browser: Any, folder: Path) -> None:
    """The form for a run, a run that goes on, and what it leaves when it has ended.

    Args:
        browser: Chromium.
        folder: Where the deployments are made and run.
    """
    copy_flows(folder)
    shutil.copytree(ROOT / "evomerge/demo", folder / "evomerge/demo", dirs_exist_ok=True)
    server = Prefect(folder)
    try:
        pages = server.url.removesuffix("/api")
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        identity = server.get("/deployments/name/search/demo")["id"]
        page.goto(f"{pages}/deployments/deployment/{identity}/run")
        page.get_by_text("The merge method and its options").wait_for()
        shoot(page, "prefect-form")
        page.get_by_role("button", name="Submit").click()
        page.set_viewport_size({"width": 1280, "height": 1000})
        while not any(each["key"] == "search" for each in artifacts(server)):
            time.sleep(1.0)
        time.sleep(10.0)
        (run,) = server.get("/flow_runs/filter", {})
        page.goto(f"{pages}/runs/flow-run/{run['id']}")
        page.get_by_text("Artifacts").last.click()
        page.wait_for_timeout(3000)
        shoot(page, "prefect-run")
        while not any(each["key"] == "links" for each in artifacts(server)):
            time.sleep(1.0)
        table = next(each for each in artifacts(server) if each["key"] == "final-table")
        page.goto(f"{pages}/artifacts/artifact/{table['id']}")
        page.wait_for_timeout(3000)
        shoot(page, "prefect-table")
    finally:
        server.stop()


def artifacts(server: Prefect) -> list[dict[str, Any]]:
    """All that there are."""
    found: list[dict[str, Any]] = server.get("/artifacts/filter", {})
    return found


def shoot(page: Page, name: str) -> None:
    """Write what the window shows."""
    page.wait_for_timeout(500)
    path = HERE / f"{name}.png"
    page.screenshot(path=path)
    # A palette of 128 colors is enough for pages, and takes a third of the bytes.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
