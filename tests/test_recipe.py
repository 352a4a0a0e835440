"""Recipes: exact round trips, a hash of what is made, and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import Member, Part, Recipe, Selector, read_recipe
from sample_recipes import NAMES, as_mapping, make_recipe, members, ties_part, write


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

    def test_recipes_without_names_keep_the_hash_they_had(self):
        """Computed by the release before selectors had names."""
        part = Part(
            select=(Selector(layers=("outside",)), Selector(components=("mlp",))),
            method=LinearConfig(),
            models=("math",),
            parameters={"weight": {"math": 1.0}},
        )
        recipe = make_recipe(parts=(part, make_recipe().parts[1]))
        assert recipe.sha256.startswith("db9a7db0c7d046dd31b391dc6eb7845d")

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
            "names": make_recipe(
                parts=(ties_part(select=(Selector(layers=(0,), names=("mlp",)),)), rest)
            ),
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
        assert selector.matches(*place, "model.layers.0.mlp.up_proj.weight") is expected

    @pytest.mark.parametrize(
        ("names", "layers", "expected"),
        [
            (("up_proj",), None, True),
            (("q_proj", "layers.4.mlp"), None, True),
            (("q_proj",), None, False),
            (("UP_PROJ",), None, False),
            ((), None, False),
            (("up_proj",), (4,), True),
            (("up_proj",), (3,), False),
        ],
    )
    def test_matches_parts_of_names(self, names, layers, expected):
        selector = Selector(layers=layers, names=names)
        assert selector.matches(4, "mlp", "model.layers.4.mlp.up_proj.weight") is expected


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
        message = self.refused(tmp_path, lambda data: data.update(schema_version=3))
        assert "schema_version 3" in message and "install a newer evomerge" in message

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


@pytest.mark.parametrize(
    ("config", "sha256"),
    [
        (TiesConfig(), "d795262c7ebdc15ccca6054a798edd8b23e39d80e691c8b6f7dc62a37927c986"),
        (
            # As mergekit's configurations were read once.
            TiesConfig(none_kept="refuse", vectors="same"),
            "201fe0cad97e3e7a4b4f2783cb28573820b3e54bc459878906eda7d2bcf9631c",
        ),
        (DareLinearConfig(), "818d1bccebd4829e52a3dcdd36317524422ccc88ac4f9b3afecf67bc93dec967"),
        (
            DareTiesConfig(normalize=True),
            "ca7aff49ba26cf85a0acac7afa2419ae400624ebc7ec52430092457ce96aebee",
        ),
        (
            TaskArithmeticConfig(),
            "1bc220ffabe0a01cf11e0b6fab634507b9b0ea0393220e6691705a1181abc234",
        ),
    ],
)
def test_options_that_came_later_leave_older_hashes_as_they_were(config, sha256):
    members = {name: Member(sha256="ab" * 32, source="/x") for name in ("base", "a", "b")}
    assert Recipe(members=members, parts=(Part(method=config, models=("a", "b")),)).sha256 == sha256


def test_an_option_that_is_set_is_part_of_the_hash():
    members = {name: Member(sha256="ab" * 32, source="/x") for name in ("base", "a", "b")}
    hashes = {
        Recipe(members=members, parts=(Part(method=config, models=("a", "b")),)).sha256
        for config in (TiesConfig(), TiesConfig(election="count"), TiesConfig(rescale="l1"))
    }
    assert len(hashes) == 3
