"""front.html: the front, its genomes, its surrogates and its growth, as pictures to point at."""

from __future__ import annotations

import importlib.util
import itertools
import logging
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from evomerge.choice.front import Entry, Front
from evomerge.choice.results import Results
from evomerge.optimize.fronts import hypervolume, non_dominated, violations
from evomerge.record.report import front_details, front_lines

logger = logging.getLogger(__name__)

COLORS = {"front": "#1a7f4b", "near": "#d9a21b", "behind": "#8aa0b6", "over a limit": "#c0564f"}
KNEE = "#0b3d91"
PANELS = 3
"""Pairs of objectives in a row."""

LAYOUT = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1d2733"},
    "margin": {"l": 70, "r": 30, "t": 40, "b": 60},
}


def render_front(results: Results) -> str | None:
    """The page, with everything that it needs in it.

    Returns:
        None of a run without a front, and where plotly is not installed.
    """
    front = results.front
    if front is None:
        return None
    if importlib.util.find_spec("plotly") is None:
        logger.warning("the page with the front's pictures is left out: plotly is not installed")
        return None
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("evomerge.record", "."), autoescape=select_autoescape(default=True)
    )
    figures = {
        "The front on validation": _pairs(results, front),
        "Genomes and scores": _parallel(results, front),
        "Predicted and measured": _predictions(results, front),
        "Growth of the front": _growth(results, front),
    }
    return environment.get_template("front.jinja").render(
        name=results.state.started["name"],
        lines=[*front_lines(front), *front_details(front)],
        run_dir=results.run_dir,
        knee=front.knee,
        plotly=get_plotlyjs(),
        figures={
            heading: figure.to_html(
                full_html=False, include_plotlyjs=False, config={"displayModeBar": False}
            )
            for heading, figure in figures.items()
            if figure is not None
        },
    )


def _pairs(results: Results, front: Front) -> Any:
    """Every pair of objectives as a panel, a point for each candidate."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = [objective.name for objective in results.objectives]
    pairs = list(itertools.combinations(names, 2)) or [(names[0], names[0])]
    columns = min(PANELS, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = make_subplots(rows=rows, cols=columns, horizontal_spacing=0.08)
    for number, (first, second) in enumerate(pairs):
        row, column = number // columns + 1, number % columns + 1
        for place, color in COLORS.items():
            entries = [entry for entry in front.entries if entry.place == place]
            if entries:
                figure.add_trace(
                    go.Scatter(
                        x=[entry.values[first] for entry in entries],
                        y=[entry.values[second] for entry in entries],
                        error_x=_bars(entries, first),
                        error_y=_bars(entries, second),
                        mode="markers",
                        marker={
                            "color": color,
                            "size": [12 if e.candidate == front.knee else 8 for e in entries],
                            "symbol": [
                                "star" if e.candidate == front.knee else "circle" for e in entries
                            ],
                        },
                        text=[_hover(results, front, entry) for entry in entries],
                        hovertemplate="%{text}<extra></extra>",
                        name=place,
                        legendgroup=place,
                        showlegend=number == 0,
                    ),
                    row=row,
                    col=column,
                )
        for name, add in ((first, figure.add_vline), (second, figure.add_hline)):
            if name in front.limits:
                add(
                    front.limits[name],
                    line={"color": "#c0564f", "dash": "dot"},
                    row=row,
                    col=column,
                )
        figure.update_xaxes(title_text=first, row=row, col=column)
        figure.update_yaxes(title_text=second, row=row, col=column)
    figure.update_layout(
        **LAYOUT, height=420 * rows, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"}
    )
    return figure


def _bars(entries: list[Entry], name: str) -> dict[str, Any]:
    deviations = [entry.deviations[name] for entry in entries]
    return {"array": deviations, "color": "rgba(90, 107, 123, 0.35)", "thickness": 1, "width": 0}


def _hover(results: Results, front: Front, entry: Entry) -> str:
    state = results.state
    candidate = state.candidates[entry.candidate]
    lines = [f"<b>{entry.candidate}</b>{' (knee)' if entry.candidate == front.knee else ''}"]
    lines += [
        f"{o.name}: {entry.values[o.name]:.4f} ±{entry.deviations[o.name]:.4f}"
        for o in results.objectives
    ]
    names = state.dimensions(candidate.phase)
    genome = list(zip(names, candidate.genome or (), strict=False))
    lines += [f"{name} = {number:.4f}" for name, number in genome[:12]]
    if len(genome) > 12:
        lines.append(f"and {len(genome) - 12} numbers more")
    return "<br>".join(lines)


def _parallel(results: Results, front: Front) -> Any:
    """Parallel coordinates of what the front and near it have in genome and scores."""
    import plotly.graph_objects as go

    state = results.state
    entries = [
        entry
        for entry in [*front.members, *front.near]
        if state.candidates[entry.candidate].genome is not None
    ]
    if not entries:
        return None
    phase = max(state.candidates[entry.candidate].phase for entry in entries)
    entries = [e for e in entries if state.candidates[e.candidate].phase == phase]
    genomes = np.array([state.candidates[entry.candidate].genome for entry in entries])
    axes = [
        {"label": name, "values": column}
        for name, column in zip(state.dimensions(phase)[:20], genomes.T, strict=False)
    ]
    axes += [
        {"label": name, "values": [entry.values[name] for entry in entries]}
        for name in (objective.name for objective in results.objectives)
    ]
    shades = [int(entry.place == "front") for entry in entries]
    figure = go.Figure(
        go.Parcoords(
            dimensions=axes,
            line={
                "color": shades,
                "cmin": 0,
                "cmax": 1,
                "colorscale": [[0, COLORS["near"]], [1, COLORS["front"]]],
            },
            labelfont={"size": 13},
        )
    )
    figure.update_layout(**{**LAYOUT, "margin": {"l": 90, "r": 90, "t": 60, "b": 30}}, height=420)
    return figure


def _predictions(results: Results, front: Front) -> Any:
    """What surrogates say of each from everybody else, against what validation measured."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = [o.name for o in results.objectives]
    names = [n for n in names if any(n in e.predicted for e in front.entries)]
    if not names:
        return None
    figure = make_subplots(rows=1, cols=len(names), subplot_titles=names)
    for column, name in enumerate(names, start=1):
        entries = [entry for entry in front.entries if name in entry.predicted]
        middle, low, high = np.array([entry.predicted[name] for entry in entries]).T
        measured = [entry.measured[name] for entry in entries]
        ends = [min(*measured, *low), max(*measured, *high)]
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", line={"color": "#c9d2dc"}, hoverinfo="skip"),
            row=1,
            col=column,
        )
        figure.add_trace(
            go.Scatter(
                x=middle,
                y=measured,
                error_x={
                    "array": high - middle,
                    "arrayminus": middle - low,
                    "color": "rgba(90, 107, 123, 0.35)",
                    "thickness": 1,
                    "width": 0,
                },
                mode="markers",
                marker={"color": [COLORS[entry.place] for entry in entries], "size": 8},
                text=[entry.candidate for entry in entries],
                hovertemplate="%{text}: predicted %{x:.4f}, measured %{y:.4f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(title_text="predicted on search, 95 % interval", row=1, col=column)
    figure.update_yaxes(title_text="measured on validation", row=1, col=1)
    figure.update_layout(**LAYOUT, height=420, showlegend=False)
    return figure


def _growth(results: Results, front: Front) -> Any:
    """Hypervolume of what was measured on search documents, against evaluations."""
    import plotly.graph_objects as go

    told = sorted(
        (c for c in results.state.of_origin("asked", "enqueued") if c.told is not None),
        key=lambda c: c.told or 0,
    )
    reference = [
        o.loss(front.reference[o.name]) if g.reference is None else g.reference
        for o, g in zip(results.objectives, results.goals("search"), strict=True)
    ]
    limits = [goal.limit for goal in results.goals("search")]
    losses = np.zeros((0, len(reference)))
    volumes = []
    for candidate in told:
        scored = results.losses(candidate.id, "search")
        if scored is not None and violations(scored[0], limits)[0] == 0.0:
            losses = np.vstack([losses, scored[0]])
            losses = losses[non_dominated(losses)]
        volumes.append(hypervolume(losses, reference))
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(volumes) + 1)),
            y=volumes,
            line={"color": COLORS["front"], "shape": "hv"},
            text=[candidate.id for candidate in told],
            hovertemplate="%{x} evaluations, %{text}: %{y:.5f}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="evaluations")
    figure.update_yaxes(title_text="hypervolume on search documents", rangemode="tozero")
    figure.update_layout(**LAYOUT, height=380)
    return figure
