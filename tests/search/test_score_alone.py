"""A model scored by itself: of the configuration only what is measured counts."""

from __future__ import annotations

import torch

from evomerge.search.alone import score_model
from evomerge.threads import torch_threads
from fixtures import make_workspace


def test_what_is_searched_does_not_matter(tmp_path):
    space = {"fix": {"weight/expert0": 0.5}, "experts": ["expert0", "expert1"]}
    config_path = make_workspace(tmp_path, space=space, search={"start_from": ["merge.yaml"]})
    (tmp_path / "merge.yaml").write_text(
        "merge_method: linear\nmodels: [{model: pool/expert1, parameters: {weight: 1}}]\n"
    )
    scores = score_model(str(tmp_path / "pool/expert1"), config_path, "validation")
    assert scores.keys() == {"toy_choose", "toy_write"}


def test_the_callers_threads_are_left(tmp_path):
    config_path = make_workspace(tmp_path, workers={"num_cpus": 2})
    with torch_threads(3):
        score_model(str(tmp_path / "pool/base"), config_path, "search")
        assert torch.get_num_threads() == 3
