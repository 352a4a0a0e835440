"""The path of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe, read_recipe
from sample_recipes import NAMES, as_mapping, make_recipe, write


def path_recipe(outer="math", steps=(("math", 0, 1.0), ("code", 3, 0.7)), **changes) -> Recipe:
    hops = tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in steps)
    path = LayerPath(outer=outer, hops=hops)
    return make_recipe(**({"parts": (), "path": path} | changes))


def first_content(recipe):
    """What the first release that knew paths made a hash from."""
    content = recipe.model_dump(mode="json")
    del content["vocabulary"], content["chat_template"]
    content["members"] = {n: m["sha256"] for n, m in content["members"].items()}
    for part in content["parts"]:
        for later in ("scope", "election", "rescale", "none_kept", "equal"):
            part["method"].pop(later, None)
        for selector in part["select"]:
            del selector["names"]
    return content


class TestPath:
    def assert_same_when_read(self, recipe: Recipe, path: Path) -> None:
        path.write_text(recipe.to_yaml())
        for read in (Recipe.from_json(recipe.to_json()), read_recipe(path)):
            assert read == recipe
            assert read.sha256 == recipe.sha256
            assert read.to_json() == recipe.to_json()

    @settings(deadline=None, max_examples=60)
    @given(
        outer=st.sampled_from(["base", *NAMES]),
        steps=st.lists(
            st.tuples(
                st.sampled_from(["base", *NAMES]),
                st.integers(0, 200),
                st.floats(allow_nan=False, allow_infinity=False),
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def test_round_trip(self, tmp_path_factory, outer, steps):
        path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
        self.assert_same_when_read(path_recipe(outer, steps), path)

    def test_round_trip_through_a_merged_model(self, tmp_path):
        steps = (("code", 1, 1.0), (MERGED, 0, 0.1 + 0.2), (MERGED, 0, 1.0))
        recipe = path_recipe(MERGED, steps, parts=make_recipe().parts)
        assert recipe.path.models == (MERGED, "code")
        self.assert_same_when_read(recipe, tmp_path / "recipe.yaml")

    def test_the_merge_alone(self):
        assert path_recipe().merge is None
        assert path_recipe(MERGED, parts=make_recipe().parts).merge == make_recipe()
        assert path_recipe(MERGED, parts=make_recipe().parts).merge.sha256 == make_recipe().sha256
        assert make_recipe().merge == make_recipe()

    def test_a_scale_is_one_by_default(self, tmp_path):
        data = as_mapping(path_recipe(steps=(("math", 2, 1.0),)))
        data["path"]["hops"] = [{"model": "math", "layer": 2}]
        read = read_recipe(write(tmp_path / "recipe.yaml", data))
        assert read == path_recipe(steps=(("math", 2, 1.0),))

    def test_all_of_it_counts(self):
        first, second = ("math", 0, 1.0), ("code", 3, 0.7)
        changed = {
            "itself": path_recipe(),
            "outer": path_recipe("code"),
            "order": path_recipe(steps=(second, first)),
            "a repeat": path_recipe(steps=(first, second, second)),
            "model": path_recipe(steps=(first, ("math", 3, 0.7))),
            "layer": path_recipe(steps=(first, ("code", 2, 0.7))),
            "last bit of a scale": path_recipe(steps=(first, ("code", 3, 0.7000000000000001))),
            "parts": path_recipe(parts=make_recipe().parts),
            "parts alone": make_recipe(),
        }
        hashes = {name: recipe.sha256 for name, recipe in changed.items()}
        assert len(set(hashes.values())) == len(hashes), hashes

    def test_without_a_path_the_hash_is_that_of_releases_without_paths(self):
        for recipe in (make_recipe(), make_recipe(path=None)):
            content = first_content(recipe)
            del content["path"]
            assert recipe.sha256 == sha256_json(content)
        content = first_content(path_recipe())
        # It came later, and is left out where it says nothing.
        assert content["path"].pop("stored") is None
        assert path_recipe().sha256 == sha256_json(content)

    def test_a_file_of_a_release_without_paths(self, tmp_path):
        data = as_mapping(make_recipe())
        del data["path"]
        read = read_recipe(write(tmp_path / "recipe.yaml", data))
        assert read == make_recipe()
        assert read.sha256 == make_recipe().sha256
        assert "path" not in yaml.safe_load(make_recipe().to_yaml())

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda path: path.update(hops=[]), ("path.hops", "at least 1")),
            (lambda path: path.pop("hops"), ("path.hops", "required")),
            (lambda path: path.pop("outer"), ("path.outer", "required")),
            (lambda path: path.update(outer="poet"), ("'poet'", "valid: base, code, math")),
            (lambda path: path["hops"][1].update(model="poet"), ("path: no model 'poet'", "code")),
            (
                lambda path: path.update(outer=MERGED),
                ("path: no model 'merged'", "valid: base, code, math"),
            ),
            (lambda path: path["hops"][0].update(model=MERGED), ("path: no model 'merged'",)),
            (lambda path: path["hops"][1].update(layer=-1), ("path.hops.1.layer", "equal to 0")),
            (lambda path: path["hops"][1].update(layer=0.5), ("path.hops.1.layer", "integer")),
            (lambda path: path["hops"][0].update(scale=float("nan")), ("path.hops.0.scale",)),
            (lambda path: path["hops"][0].update(scale=float("inf")), ("path.hops.0.scale",)),
            (lambda path: path["hops"][0].update(scael=1.0), ("path.hops.0.scael",)),
        ],
    )
    def test_refusals(self, tmp_path, change, expected):
        data = as_mapping(path_recipe())
        change(data["path"])
        with pytest.raises(InputError) as info:
            read_recipe(write(tmp_path / "recipe.yaml", data))
        for text in expected:
            assert text in str(info.value), str(info.value)

    def test_neither_parts_nor_a_path(self, tmp_path):
        data = as_mapping(path_recipe()) | {"path": None}
        with pytest.raises(InputError, match="neither parts nor a path"):
            read_recipe(write(tmp_path / "recipe.yaml", data))

    def test_no_member_is_called_merged(self, tmp_path):
        data = as_mapping(path_recipe())
        data["members"][MERGED] = data["members"]["code"]
        with pytest.raises(InputError, match="no member can be called 'merged'"):
            read_recipe(write(tmp_path / "recipe.yaml", data))
