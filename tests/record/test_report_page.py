"""The report as a person uses it, in a browser."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

import evomerge
from browser import needs_browser, opened
from evomerge.choice.table import final_table
from evomerge.journal import replay
from evomerge.optimize.fronts import knee, preferred
from evomerge.record.report import render_html
from evomerge.record.report_data import page_data, to_script
from evomerge.search.looks import recipe_of
from fixtures import make_config, make_workspace
from runs import give_scores, new_run, tell


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A search for a front of two objectives."""
    folder = tmp_path_factory.mktemp("report")
    make_workspace(folder)
    config = make_config(
        folder,
        optimizer={"kind": "map"},
        search={"budget": {"candidates": 14}, "finalists": 6},
        workers={"kind": "inline"},
        record={"enabled": False},
    )
    return evomerge.run(config, folder / "run")


@pytest.fixture(scope="module")
def page_path(result):
    needs_browser()
    return result.run_dir / "report.html"


def most_apart(entries, names) -> str:
    """Whose point no other one hides."""
    values = np.array([[e.values[name] for name in names] for e in entries])
    values = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    distances = np.linalg.norm(values[:, None] - values[None], axis=2) + 9.0 * np.eye(len(values))
    return entries[int(distances.min(axis=1).argmax())].candidate


def test_a_click_picks_a_model(page_path, result):
    front = result.results.front
    other = most_apart(front.entries, [o.name for o in result.results.objectives])
    assert other != result.best
    with opened(page_path, 1280) as (page, said):
        assert page.inner_text("#pick-name") == result.best
        page.click(f'#scores tr[data-id="{result.results.parents[0]}"]')
        assert page.inner_text("#pick-name") == result.results.parents[0]
        ids = page.evaluate("document.getElementById('front').data.map((t) => t.ids)")
        curve, point = next((n, t.index(other)) for n, t in enumerate(ids) if other in t)
        page.locator("#front").scroll_into_view_if_needed()
        x, y = page.evaluate(
            """([curve, point]) => {
                const plot = document.getElementById("front"), trace = plot.data[curve];
                const box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
                return [box.x + xaxis._offset + xaxis.d2p(trace.x[point]),
                        box.y + yaxis._offset + yaxis.d2p(trace.y[point])];
            }""",
            [curve, point],
        )
        page.mouse.click(x, y)
        assert page.inner_text("#pick-name") == other
        assert page.inner_text("#promote") == (
            f"evomerge promote {result.run_dir} --candidate {other}"
        )
        rows = page.locator("tr.picked")
        assert {rows.nth(n).get_attribute("data-id") for n in range(rows.count())} == {other}
        assert page.url.endswith(f"#{other}")
        assert said == []


def test_sliders_pick_as_the_command_does(page_path, result):
    results = result.results
    objectives = results.objectives
    members = results.front.members
    losses = [[o.loss(e.values[o.name]) for o in objectives] for e in members]
    with opened(page_path, 1280) as (page, said):
        slide = """([id, value]) => { const input = document.getElementById(id);
            input.value = value; input.dispatchEvent(new Event('input')); }"""
        page.evaluate(slide, ["weight-0", 1])
        page.evaluate(slide, ["weight-1", 0])
        expected = members[preferred(losses, [1.0, 0.0])]
        found = next(e for e in members if e.candidate == page.inner_text("#pick-name"))
        name = objectives[0].name
        # The page has seven digits of each value.
        assert found.values[name] == pytest.approx(expected.values[name], rel=1e-6)
        command = page.inner_text("#front-command")
        assert "--prefer" in command
        picked = re.search(r"--prefer (\S+)", command)[1]
        assert picked == f"{objectives[0].name}=1,{objectives[1].name}=0"
        page.reload()
        page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")
        low = page.evaluate("Number(document.getElementById('limit-0').min)")
        high = page.evaluate("Number(document.getElementById('limit-0').max)")
        bound = low + (high - low) / 2
        page.evaluate(slide, ["limit-0", bound])
        bound = page.evaluate("Number(document.getElementById('limit-0').value)")
        left = [n for n, e in enumerate(members) if e.values[name] >= bound - 1e-6]
        best = members[left[knee([losses[n] for n in left])]]
        found = next(e for e in members if e.candidate == page.inner_text("#pick-name"))
        assert found.values == pytest.approx(best.values, rel=1e-6)
        assert f"{len(left)} of {len(members)} models" in page.inner_text("#front-says")
        assert said == []


def test_a_heading_sorts(page_path, result):
    with opened(page_path, 1280) as (page, _):
        column = page.locator("#front-table th").nth(1)
        for down in (True, False):
            column.click()
            texts = page.locator("#front-table tbody td:nth-child(2)").all_inner_texts()
            numbers = [float(text.split()[0]) for text in texts]
            assert numbers == sorted(numbers, reverse=down)


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_it_is_as_wide_as_the_window(page_path, width, scheme):
    with opened(page_path, width, scheme) as (page, said):
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
        assert said == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run of a thousand candidates, with a journal and without workers."""
    run = new_run(tmp_path_factory.mktemp("large"))
    rng = random.Random(0)
    space = run.space(0)
    for ask in range(1000):
        genome = tuple(rng.uniform(d.low, d.high) for d in space.dimensions)
        candidate = run.add_asked(ask, genome)
        give_scores(run, candidate, lambda task, document, g=genome: float(g[0] > document / 40))
        tell(run, candidate)
    run.record("decided", what="chosen", value="c00003")
    run.commit()
    run.close()
    return run


def test_a_thousand_candidates_are_small_and_drawn_at_once(large):
    results = large.results
    page = render_html(results, large.recipe)
    (library,) = re.findall(r"<script>(/\*\*.*?)</script>", page, re.S)[:1]
    assert len(page) - len(library) < 1_000_000
    needs_browser()
    path = large.run_dir / "report.html"
    path.write_text(page)
    with opened(path, 1280) as (shown, said):
        assert shown.locator("#everybody tbody tr").count() == 1000
        assert said == []


def test_the_data_can_stand_in_a_page(result):
    results = result.results
    data = page_data(results, final_table(results), lambda c: recipe_of(result.run_dir, c))
    script = to_script(data | {"odd": "<!--<script></script>", "none": float("inf")})
    assert "<" not in script
    again = json.loads(script)
    assert again["odd"] == "<!--<script></script>" and again["none"] is None
    assert {c["id"] for c in again["candidates"]} == set(replay(result.run_dir).candidates)
    assert again["heat"] and again["importance"]
