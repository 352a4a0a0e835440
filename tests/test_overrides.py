"""`--set`: what overrides replace, and whose mistake a mistake is."""

from __future__ import annotations

import pytest

from evomerge.config import load_config
from evomerge.errors import InputError
from fixtures import make_config


def test_overrides_replace_add_and_index(tmp_path):
    path = make_config(tmp_path)
    config = load_config(
        path,
        [
            "seed=5",
            "search.budget.candidates=9",
            "optimizer={kind: random}",
            "workers.num_gpus=0.5",
            "pool.experts.1=pool/other",
            "score.objectives.0.preference=2",
            "space.vary.weight.high=1.5",
            "name=other",
        ],
    )
    assert config.seed == 5
    assert config.search.budget.candidates == 9
    assert config.optimizer.kind == "random"
    assert config.workers.num_gpus == 0.5
    assert [expert.source for expert in config.pool.experts] == ["pool/expert0", "pool/other"]
    assert [o.preference for o in config.score.objectives] == [2.0, 1.0]
    assert config.space.vary["weight"].high == 1.5
    assert config.name == "other"
    assert load_config(path).seed == 1


def test_an_override_may_hold_an_equals_sign(tmp_path):
    uri = "postgresql://host/db?a=b"
    config = load_config(make_config(tmp_path), [f"record.tracking_uri={uri}"])
    assert config.record.tracking_uri == uri


@pytest.mark.parametrize(
    "override",
    ["", "seed", "=3", ".seed=3", "a..b=3", "seed.x=3", "pool.experts.9=x", "pool.experts.x=y"],
)
def test_malformed_overrides_are_refused(override, tmp_path):
    with pytest.raises(InputError, match="--set"):
        load_config(make_config(tmp_path), [override])


def test_a_wrong_override_is_refused_like_the_file(tmp_path):
    with pytest.raises(InputError, match=r"seed: .*greater than or equal to 0, got -1"):
        load_config(make_config(tmp_path), ["seed=-1"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=abc"], "--set seed=abc: seed: expected an integer"),
        (
            ["seed=2", "search.budget={candidates: abc}"],
            "--set 'search.budget={candidates: abc}': search.budget.candidates: expected an",
        ),
        (
            ["score.objectives.1.preference=-2", "seed=2"],
            "--set score.objectives.1.preference=-2: score.objectives.1.preference: input should",
        ),
        (["workers.pool_gb=2"], "--set workers.pool_gb=2: workers.pool_gb: unknown field; did you"),
        (
            ["space.method.kind=tise", "seed=2"],
            "--set space.method.kind=tise: space.method: no kind 'tise'; did you mean 'ties'",
        ),
        # Elsewhere than where it is set.
        (
            ["seed=2", "space.method.kind=linear"],
            "--set space.method.kind=linear: space.method.election: unknown field; valid: kind",
        ),
        (
            ["search.budget.candidates=null", "search.budget.target=0.5"],
            "--set search.budget.candidates=null: search.budget: the search has no end",
        ),
        (
            ["space=null", "seed=2"],
            "--set space=null: the configuration: space: this field is requ",
        ),
    ],
)
def test_what_an_override_makes_wrong_is_its_own(overrides, message, tmp_path):
    path = make_config(tmp_path, space={"method": {"kind": "ties", "election": "count"}})
    with pytest.raises(InputError) as info:
        load_config(path, overrides)
    assert str(info.value).startswith(message)
    assert "config.yaml" not in str(info.value)


@pytest.mark.parametrize(
    ("old", "new", "overrides", "message"),
    [
        (
            "seed: 1",
            "seed: abc",
            ["search.budget.candidates=3"],
            "2: seed: expected an integer",
        ),
        (
            "candidates: 6",
            "target: 0.5",
            ["search.budget.target=0.4"],
            ": search.budget: the search",
        ),
        # A check of the whole, which the file's other mistake has kept from being made.
        (
            "seed: 1",
            "seed: abc\nphases: [{name: a, space: {method: {kind: slerp}}, budget: {seconds: 1}}]",
            ["seed=3"],
            "1: the configuration: space: stands in each phase",
        ),
    ],
)
def test_what_the_file_has_wrong_keeps_its_line(old, new, overrides, message, tmp_path):
    path = make_config(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as info:
        load_config(path, overrides)
    assert message in str(info.value)
    assert str(info.value).startswith(f"{path}:")
    assert "--set" not in str(info.value)


def test_an_override_makes_sections_that_are_empty(tmp_path):
    path = make_config(tmp_path)
    path.write_text(path.read_text().replace("workers:\n  num_actors: 1\n", "workers:\n"))
    assert load_config(path, ["workers.num_actors=3"]).workers.num_actors == 3
