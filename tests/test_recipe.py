"""Recipes: exact round trips, a hash of what is made, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.methods.dare import DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import MERGED, Hop, LayerPath, Member, Part, Recipe, Selector, read_recipe

NAMES = ("math", "code")


def members(names=NAMES) -> dict[str, Member]:
    return {
        name: Member(sha256=f"{index:064x}", source=f"/models/{name}")
        for index, name in enumerate(("base", *names))
    }


def ties_part(weights=(0.25, 0.75), density=(0.5, 0.5), scale=1.0, **changes) -> Part:
    fields = {
        "select": (Selector(layers=("outside",)), Selector(layers=(0, 1), components=("mlp",))),
        "method": TiesConfig(normalize=False),
        "models": NAMES,
        "parameters": {
            "weight": dict(zip(NAMES, weights, strict=True)),
            "density": dict(zip(NAMES, density, strict=True)),
            "scale": scale,
        },
    }
    return Part(**(fields | changes))


def make_recipe(**changes) -> Recipe:
    rest = Part(method=LinearConfig(), models=("base",), parameters={"weight": {"base": 1.0}})
    fields = {
        "members": members(),
        "mask_seed": 5,
        "dtype": "bfloat16",
        "parts": (ties_part(), rest),
    }
    return Recipe(**(fields | changes))


def as_mapping(recipe: Recipe) -> dict:
    return json.loads(recipe.to_json())


def write(path: Path, data) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


class TestRoundTrip:
    @settings(deadline=None, max_examples=60)
    @given(
        weights=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
        density=st.tuples(*[st.floats(0, 1)] * 2),
        scale=st.floats(allow_nan=False, allow_infinity=False),
        seed=st.integers(0, 2**62),
    )
    def test_floats_are_exact(self, tmp_path_factory, weights, density, scale, seed):
        recipe = make_recipe(parts=(ties_part(weights, density, scale),), mask_seed=seed)
        assert Recipe.from_json(recipe.to_json()) == recipe
        path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
        path.write_text(recipe.to_yaml())
        read = read_recipe(path)
        assert read == recipe
        assert read.sha256 == recipe.sha256
        # -0.0 == 0.0, so that equality does not see the sign: the text does.
        assert read.to_json() == recipe.to_json()

    @pytest.mark.parametrize("name", ["1", "1e5", "yes", "null", "münchen", "a: b", "- x"])
    def test_names_that_yaml_could_take_for_something_else(self, tmp_path, name):
        part = Part(method=LinearConfig(), models=(name,), parameters={"weight": {name: 0.1}})
        recipe = make_recipe(members=members((name,)), parts=(part,))
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe.to_yaml(), encoding="utf-8")
        assert read_recipe(path) == recipe
        assert Recipe.from_json(recipe.to_json()) == recipe

    def test_json_is_one_line(self):
        assert "\n" not in make_recipe().to_json()

    def test_whole_numbers_are_floats(self, tmp_path):
        data = as_mapping(make_recipe(parts=(ties_part(weights=(1.0, 2.0)),)))
        data["parts"][0]["parameters"]["weight"] = {"math": 1, "code": 2}
        read = read_recipe(write(tmp_path / "recipe.yaml", data))
        assert read == make_recipe(parts=(ties_part(weights=(1.0, 2.0)),))
        assert read.sha256 == make_recipe(parts=(ties_part(weights=(1.0, 2.0)),)).sha256


class TestHash:
    def test_where_members_lie_is_left_out(self):
        moved = {
            name: Member(sha256=member.sha256, source=f"org/{name}@abc")
            for name, member in members().items()
        }
        assert make_recipe(members=moved).sha256 == make_recipe().sha256

    def test_the_order_of_mappings_is_left_out(self):
        reversed_members = dict(reversed(members().items()))
        parameters = {
            "scale": 1.0,
            "density": {"code": 0.5, "math": 0.5},
            "weight": {"code": 0.75, "math": 0.25},
        }
        parts = (ties_part(parameters=parameters), make_recipe().parts[1])
        assert make_recipe(members=reversed_members, parts=parts).sha256 == make_recipe().sha256

    def test_everything_else_counts(self):
        first, rest = make_recipe().parts
        other_bytes = members() | {"code": Member(sha256="f" * 64, source="/models/code")}
        swapped = ties_part(models=NAMES[::-1])
        changed = {
            "itself": make_recipe(),
            "a member's hash": make_recipe(members=other_bytes),
            "mask seed": make_recipe(mask_seed=6),
            "dtype": make_recipe(dtype="float32"),
            "order of parts": make_recipe(parts=(rest, first)),
            "fewer parts": make_recipe(parts=(rest,)),
            "last bit of a weight": make_recipe(
                parts=(ties_part(weights=(0.25, 0.7500000000000001)), rest)
            ),
            "density": make_recipe(parts=(ties_part(density=(0.5, 0.6)), rest)),
            "scale": make_recipe(parts=(ties_part(scale=1.1), rest)),
            "order of models": make_recipe(parts=(swapped, rest)),
            "layers": make_recipe(parts=(ties_part(select=(Selector(layers=(0,)),)), rest)),
            "everywhere": make_recipe(parts=(ties_part(select=()), rest)),
            "option": make_recipe(parts=(ties_part(method=TiesConfig()), rest)),
            "vectors": make_recipe(
                parts=(ties_part(method=TiesConfig(normalize=False, vectors="same")), rest)
            ),
            "method": make_recipe(parts=(ties_part(method=DareTiesConfig()), rest)),
        }
        hashes = {name: recipe.sha256 for name, recipe in changed.items()}
        assert len(set(hashes.values())) == len(hashes), hashes


class TestCoefficients:
    def test_in_the_order_of_models(self):
        values = ties_part(models=("code", "math")).coefficients()
        assert values == {"weight": (0.75, 0.25), "density": (0.5, 0.5), "scale": (1.0,)}

    def test_defaults_are_filled_in(self):
        part = Part(method=TiesConfig(), models=NAMES)
        assert part.coefficients() == {
            "weight": (1.0, 1.0),
            "density": (1.0, 1.0),
            "scale": (1.0,),
        }
        assert Part(method=SlerpConfig(), models=NAMES).coefficients() == {"t": (0.5,)}


class TestSelector:
    @pytest.mark.parametrize(
        ("selector", "place", "expected"),
        [
            (Selector(), (3, "mlp"), True),
            (Selector(), (None, "head"), True),
            (Selector(layers=(0, 1)), (1, "mlp"), True),
            (Selector(layers=(0, 1)), (2, "mlp"), False),
            (Selector(layers=(0, 1)), (None, "mlp"), False),
            (Selector(layers=("outside",)), (None, "norm"), True),
            (Selector(layers=("outside",)), (0, "norm"), False),
            (Selector(components=("norm", "head")), (None, "head"), True),
            (Selector(components=("norm", "head")), (4, "mlp"), False),
            (Selector(layers=(4,), components=("mlp",)), (4, "norm"), False),
            (Selector(layers=()), (0, "mlp"), False),
        ],
    )
    def test_matches(self, selector, place, expected):
        assert selector.matches(*place) is expected


class TestRefusals:
    def refused(self, tmp_path, change) -> str:
        data = as_mapping(make_recipe())
        change(data)
        path = write(tmp_path / "recipe.yaml", data)
        with pytest.raises(InputError) as info:
            read_recipe(path)
        assert str(path) in str(info.value)
        return str(info.value)

    def test_unknown_parameter(self, tmp_path):
        def change(data):
            data["parts"][0]["parameters"]["wieght"] = {"math": 1.0, "code": 1.0}

        message = self.refused(tmp_path, change)
        assert "parts.0" in message and "'wieght'" in message and "weight" in message

    def test_missing_model_value(self, tmp_path):
        message = self.refused(
            tmp_path, lambda data: data["parts"][0]["parameters"]["weight"].pop("code")
        )
        assert "parts.0" in message and "weight" in message and "code" in message

    def test_value_of_a_model_that_is_not_merged(self, tmp_path):
        def change(data):
            data["parts"][0]["parameters"]["weight"]["base"] = 1.0

        assert "base" in self.refused(tmp_path, change)

    @pytest.mark.parametrize("number", [1.5, -0.1])
    def test_density_out_of_range(self, tmp_path, number):
        def change(data):
            data["parts"][0]["parameters"]["density"]["code"] = number

        message = self.refused(tmp_path, change)
        assert "density" in message and str(number) in message and "0.0 to 1.0" in message

    @pytest.mark.parametrize("parameter", ["weight", "density"])
    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_numbers_that_are_not_finite(self, tmp_path, parameter, number):
        def change(data):
            data["parts"][0]["parameters"][parameter]["code"] = number

        self.refused(tmp_path, change)

    def test_one_value_where_each_model_has_its_own(self, tmp_path):
        def change(data):
            data["parts"][0]["parameters"]["weight"] = 0.5

        assert "weight" in self.refused(tmp_path, change)

    def test_own_values_where_all_models_share_one(self, tmp_path):
        def change(data):
            data["parts"][0]["parameters"]["scale"] = {"math": 1.0, "code": 1.0}

        assert "scale" in self.refused(tmp_path, change)

    def test_slerp_of_three_models(self, tmp_path):
        def change(data):
            data["parts"][0] |= {
                "method": {"kind": "slerp"},
                "models": ["base", *NAMES],
                "parameters": {},
            }

        message = self.refused(tmp_path, change)
        assert "exactly 2" in message and "got 3" in message

    def test_no_models(self, tmp_path):
        def change(data):
            data["parts"][0] |= {"models": [], "parameters": {}}

        assert "no models" in self.refused(tmp_path, change)

    def test_model_that_is_no_member(self, tmp_path):
        message = self.refused(tmp_path, lambda data: data["members"].pop("code"))
        assert "'code'" in message

    def test_no_base(self, tmp_path):
        assert "base" in self.refused(tmp_path, lambda data: data["members"].pop("base"))

    def test_unknown_method(self, tmp_path):
        def change(data):
            data["parts"][0]["method"]["kind"] = "tise"

        assert "tise" in self.refused(tmp_path, change)

    def test_unknown_field(self, tmp_path):
        def change(data):
            data["parts"][0]["selct"] = []

        assert "selct" in self.refused(tmp_path, change)

    def test_newer_schema_version(self, tmp_path):
        message = self.refused(tmp_path, lambda data: data.update(schema_version=2))
        assert "schema_version 2" in message and "install a newer evomerge" in message

    def test_a_newer_recipe_is_not_blamed_for_what_else_it_has(self, tmp_path):
        message = self.refused(tmp_path, lambda data: data.update(schema_version=9, novelty=1))
        assert "novelty" not in message

    @pytest.mark.parametrize("text", ["", "- 1", "a: [", "\t{"])
    def test_not_a_recipe(self, tmp_path, text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=r"recipe\.yaml"):
            read_recipe(path)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            read_recipe(tmp_path / "recipe.yaml")


def path_recipe(outer="math", steps=(("math", 0, 1.0), ("code", 3, 0.7)), **changes) -> Recipe:
    hops = tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in steps)
    path = LayerPath(outer=outer, hops=hops)
    return make_recipe(**({"parts": (), "path": path} | changes))


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
            content = recipe.model_dump(mode="json", exclude={"path"})
            assert "path" not in content
            content["members"] = {n: m["sha256"] for n, m in content["members"].items()}
            assert recipe.sha256 == sha256_json(content)
        content = path_recipe().model_dump(mode="json")
        content["members"] = {n: m["sha256"] for n, m in content["members"].items()}
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
