"""The way of a device, on this machine's: pools that stay there and pools that are streamed.

Without a GPU the device is the CPU and the kernels are run by Triton's interpreter: what lies
where, what is copied when and what is computed are the same.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import save_adapter
from combinations import everywhere
from evomerge.errors import CandidateError
from evomerge.merge import Engine, Residence, lane_bytes
from evomerge.merge import device as device_module
from evomerge.merge.plan import plan
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.space import recipes
from fixtures import make_pool
from pools import CONFIGS, NAMES, assert_same, build, mixed, open_at, part, recipe_of

pytestmark = pytest.mark.usefixtures("kernels")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

SOME_BYTES = 20_000
"""Room for some of a test pool's tensors."""

PLACES = [("low_half_pool", 5_000), ("low_pool", 0)]
TALL_PLACES = [("half_pool", SOME_BYTES), ("pool", 0)]


@pytest.fixture(scope="module")
def low_pool(tmp_path_factory) -> Pool:
    """One layer, where layers are merged alike: interpreted kernels take their time."""
    return open_at(make_pool(tmp_path_factory.mktemp("low"), num_hidden_layers=1))


@pytest.fixture(scope="module")
def low_half_pool(tmp_path_factory) -> Pool:
    folder = tmp_path_factory.mktemp("low_half")
    return open_at(make_pool(folder, num_hidden_layers=1, dtype="bfloat16"))


def engine_on_device(pool: Pool, budget: int | None = None, **settings) -> Engine:
    residence = Residence(DEVICE, budget)
    return Engine(pool, DEVICE, fused_from=1, residence=residence, **settings)


def assert_built(engine: Engine, recipe: Recipe, expected: dict[str, torch.Tensor]) -> None:
    """The same bits where the device is the CPU; a GPU's libraries add up in another order."""
    found = dict(engine.tensors(recipe))
    if DEVICE.type == "cpu":
        assert_same(found, expected)
    for name, tensor in expected.items():
        assert_close(found[name], tensor)


def assert_as_on_the_cpu(pool: Pool, recipe: Recipe, budget: int) -> None:
    expected = build(pool, recipe)
    engine = engine_on_device(pool, budget)
    assert_built(engine, recipe, expected)
    # Again, with what was kept, into a model that lies there.
    state = {name: torch.zeros_like(t, device=DEVICE) for name, t in expected.items()}
    engine.write_into(state, recipe)
    for name, tensor in expected.items():
        assert_close(state[name].cpu(), tensor)


def assert_same_in_blocks(pool: Pool, recipe: Recipe, statistics_bytes: int, monkeypatch) -> None:
    monkeypatch.setattr(device_module, "BLOCK_ELEMENTS", 100)
    engine = engine_on_device(pool, statistics_budget_bytes=statistics_bytes)
    assert_built(engine, recipe, build(pool, recipe))


class TestEveryMethod:
    @pytest.mark.parametrize(("kind", "place"), everywhere(CONFIGS, PLACES))
    def test_as_on_the_cpu(self, request, kind, place):
        pool = request.getfixturevalue(place[0])
        assert_as_on_the_cpu(pool, recipe_of(pool, part(kind)), place[1])

    @pytest.mark.parametrize("kind", CONFIGS)
    def test_blocks_and_kept_statistics_change_nothing(self, low_pool, kind, monkeypatch):
        assert_same_in_blocks(low_pool, recipe_of(low_pool, part(kind)), 1000, monkeypatch)


class TestMethodsOfOneModel:
    @pytest.mark.parametrize("place", TALL_PLACES)
    def test_as_on_the_cpu(self, request, place):
        pool = request.getfixturevalue(place[0])
        assert_as_on_the_cpu(pool, mixed(pool), place[1])

    def test_blocks_and_kept_statistics_change_nothing(self, pool, monkeypatch):
        assert_same_in_blocks(pool, mixed(pool), 3000, monkeypatch)


def test_what_fits_stays_and_the_rest_is_streamed(half_pool):
    pool = half_pool
    total = sum(pool[n].tensor(t).nbytes for n in ("base", *NAMES) for t in pool.layout.places)
    recipe = recipe_of(pool, part("task_arithmetic"))
    for budget in (None, SOME_BYTES, 0):
        engine = engine_on_device(pool, budget)
        dict(engine.tensors(recipe))
        residence = engine.residence
        assert residence.size_bytes + sum(t.nbytes for t in residence._pinned.values()) == total
        assert residence.size_bytes <= (total if budget is None else budget)
    assert residence.size_bytes == 0
    assert max(len(lane._room) for lane in residence._lanes) == lane_bytes(pool)


def test_streams_within_a_stream_are_refused(pool):
    """They would overwrite what is merged."""
    engine = engine_on_device(pool, 0)
    steps = plan(pool, recipe_of(pool, part("ties")))
    outer = engine._source.stream(steps)
    next(outer)
    with pytest.raises(AssertionError, match="released"):
        list(engine._source.stream(steps))


def test_streams_that_were_left_do_no_harm(low_pool):
    """A build that ends within, and one of single tensors in any order."""
    pool = low_pool
    recipe = recipe_of(pool, part("ties"))
    engine = engine_on_device(pool, 0)
    stream = engine.tensors(recipe)
    first = next(stream)
    stream.close()
    expected = build(pool, recipe)
    make = engine.builder(recipe)
    for name in reversed(expected):
        assert_close(make(name), expected[name])
    assert_close(first[1], expected[first[0]])


def assert_close(found, expected) -> None:
    bounds = {"rtol": 0.0, "atol": 0.0} if DEVICE.type == "cpu" else {}
    torch.testing.assert_close(found, expected, **bounds)


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("target", ["q_proj", "embed_tokens"])
def test_only_what_an_adapter_is_made_of_stays(budget, target, tmp_path):
    """No changed tensor is kept. PEFT stores a targeted embedding's own base as well."""
    make_pool(tmp_path, num_hidden_layers=1)
    shutil.rmtree(tmp_path / "expert1")
    folder = save_adapter(tmp_path / "expert1", tmp_path / "base", r=4, target_modules=[target])
    pool = open_at(tmp_path)
    recipe = recipe_of(pool, part("ties"))
    engine = engine_on_device(pool, budget)
    assert_built(engine, recipe, build(pool, recipe))
    residence = engine.residence
    assert max(len(lane._room) for lane in residence._lanes) <= lane_bytes(pool)
    lying = (residence._resident | residence._pinned).items()
    kept = sum(tensor.numel() for (model, _), tensor in lying if model == "expert1")
    state = load_file(folder / "adapter_model.safetensors")
    assert kept == sum(tensor.numel() for tensor in state.values())
    remembered = set(engine._source._latest._found)
    unchanged = pool.layout.places.keys() - pool["expert1"].updates.keys()
    assert remembered == (unchanged if budget is None else set())


@pytest.mark.parametrize("kind", ["linear", "ties", "dare_ties", "slerp", "della"])
def test_numbers_that_are_not_finite_are_told(kind, tmp_path):
    """The first of the model's order, and as on the CPU."""
    make_pool(tmp_path, num_hidden_layers=2)
    path = tmp_path / "expert1/model.safetensors"
    state = load_file(path)
    for name in ("model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"):
        state[name][3] = float("inf")
    save_file(state, path, metadata={"format": "pt"})
    pool = open_at(tmp_path, allow_nonfinite=True)
    recipe = recipe_of(pool, part(kind))
    with pytest.raises(CandidateError, match=r"layers\.0\.mlp\.up_proj.*not finite") as expected:
        build(pool, recipe)
    state = {n: torch.zeros(shape, device=DEVICE) for n, shape in pool.layout.shapes.items()}
    with pytest.raises(CandidateError) as found:
        engine_on_device(pool, SOME_BYTES).write_into(state, recipe)
    assert str(found.value) == str(expected.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_another_recipe_after_one_that_failed(pool):
    engine = engine_on_device(pool, SOME_BYTES)
    with pytest.raises(CandidateError):
        weights = dict.fromkeys(NAMES, 1e40)
        bad = part("task_arithmetic").model_copy(update={"parameters": {"weight": weights}})
        dict(engine.tensors(recipe_of(pool, bad)))
    recipe = recipes.uniform(pool)
    assert_built(engine, recipe, build(pool, recipe))
