"""More threads change no bit of what is hashed, compared or decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from torch import Tensor

from adapters import open_with, save_adapter, save_gpt2
from computing import threads_in_use
from evomerge.config import load_config
from evomerge.methods import METHODS, MethodConfig, Operands
from evomerge.methods.arithmetic import l1_norm, mean_square
from evomerge.methods.dare import DareLinearConfig
from evomerge.methods.della import DellaLinearConfig
from evomerge.methods.model_stock import ModelStockConfig
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.pcb import PcbConfig
from evomerge.methods.ties import TiesConfig
from evomerge.optimize import Goal
from evomerge.optimize.surrogates import fit_surrogates
from evomerge.pool.adapters.lora import LowRank
from evomerge.pool.checkpoint import SINGLE_FILE, open_checkpoint
from evomerge.pool.vocabulary.rows import TokenRows
from evomerge.search.setup import set_up
from evomerge.threads import one_thread, torch_threads
from fixtures import make_config, make_pool, make_tasks, save_model
from merges import settled, values
from pools import CONFIGS

COUNTS = (1, 2, 3)

# Above torch's own threshold for threads, of sizes that no vector width divides.
SHAPE, LARGER = (67, 1001), (67, 4099)
SIZES = {"hidden_size": 68, "intermediate_size": 1001, "num_hidden_layers": 1}
MOST_MODELS = 5

METHOD_CONFIGS: dict[str, MethodConfig] = {
    **CONFIGS,
    "dare_linear, l1": DareLinearConfig(rescale="l1"),
    "della_linear, l1": DellaLinearConfig(rescale="l1"),
    "ties, l1": TiesConfig(rescale="l1"),
    "ties by count": TiesConfig(election="count"),
    "nuslerp, flat": NuslerpConfig(),
    "nuslerp by columns": NuslerpConfig(flatten=False, row_wise=True),
    "multislerp of models": MultislerpConfig(),
    "model_stock, flat": ModelStockConfig(),
    "pcb of the model": PcbConfig(scope="model"),
}
COEFFICIENTS = {
    "weight": (0.3, 0.8, 0.5, 0.2, 0.7),
    "density": (0.7, 0.4, 0.5, 0.3, 0.6),
    "scale": (0.9,),
    "t": (0.3,),
    "select_topk": (0.6,),
    "q": (0.8,),
    "ratio": (0.3,),
}

Numbers = Tensor | np.ndarray


def each_count(compute: Callable[[], list[Numbers]], counts: tuple[int, ...] = COUNTS) -> None:
    """Compute with every number of threads, and compare all bits."""
    found = []
    for count in counts:
        with torch_threads(count), threadpool_limits(limits=count, user_api="blas"):
            found.append([_bytes(numbers) for numbers in compute()])
    assert found[0]
    for other in found[1:]:
        assert other == found[0]


def _bytes(numbers: Numbers) -> bytes:
    if isinstance(numbers, Tensor):
        numbers = numbers.contiguous().view(-1).view(torch.uint8).numpy()
    return numbers.tobytes()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestOneThread:
    def test_holds_in_every_library(self):
        with torch_threads(3), threadpool_limits(limits=2, user_api="blas"):
            before = threads_in_use()
            assert before >= {2, 3}
            with one_thread():
                assert threads_in_use() == {1}
            assert threads_in_use() == before

    def test_an_optimizer_is_made_on_it(self, tmp_path):
        found = []

        class Watched(list):
            def __iter__(self):
                found.append(threads_in_use())
                return super().__iter__()

        make_pool(tmp_path / "pool")
        make_tasks(tmp_path / "tasks")
        setup = set_up(load_config(make_config(tmp_path, optimizer={"kind": "map"})), tmp_path)
        with torch_threads(3):
            setup.make_optimizer(0, setup.spaces[0], Watched([Goal(), Goal()]))
        assert found and all(3 not in threads for threads in found)


class TestMethods:
    def test_all_are_tried(self):
        assert {config.kind for config in METHOD_CONFIGS.values()} == set(METHODS)

    @pytest.mark.parametrize("name", METHOD_CONFIGS)
    def test_statistics_and_numbers(self, name):
        """Statistics too: they are float64, whose last bits seldom show in the numbers."""
        config = METHOD_CONFIGS[name]
        method = METHODS.make(config)
        count = method.needs.num_models or MOST_MODELS
        # Two partial sums of few numbers often come to the same.
        shape = LARGER if config.kind == "nuslerp" else SHAPE
        base = randn(math.prod(shape))
        models = [base + 0.1 * randn(math.prod(shape), seed=seed + 1) for seed in range(count)]
        hashes = tuple(f"hash{number}" for number in range(count))
        whole = Operands("tensor", base, tuple(models), hashes, 0, shape)
        given = {key: value[:count] for key, value in COEFFICIENTS.items()}
        coefficients = values(config, count, **given)

        def compute() -> list[Numbers]:
            statistics = settled(method, whole, 0, coefficients)
            if method.needs.whole_model:
                statistics += method.survey(lambda: [(whole, statistics)], coefficients)
            return [*statistics, method.combine(whole, statistics, coefficients)]

        each_count(compute)

    @pytest.mark.parametrize("reduce", [l1_norm, mean_square])
    def test_sums_of_tensors(self, reduce):
        sizes = (50_003, 301_301, 1_000_003)
        each_count(lambda: [np.array([reduce(randn(size)) for size in sizes])])


LINEARS = ["q_proj", "o_proj", "gate_proj", "down_proj"]


class TestAdapters:
    @pytest.mark.parametrize(
        "settings",
        [
            {"target_modules": [*LINEARS, "embed_tokens"]},
            {"target_modules": LINEARS, "use_rslora": True},
            {"target_modules": [*LINEARS, "embed_tokens"], "use_dora": True},
        ],
        ids=["LoRA", "rsLoRA", "DoRA"],
    )
    def test_linears_and_an_embedding(self, settings, tmp_path):
        base_dir = save_model(tmp_path / "base", 0, vocab_size=1003, **SIZES)
        _check_adapter(base_dir, tmp_path / "adapter", r=5, **settings)

    @pytest.mark.parametrize("use_dora", [False, True])
    def test_conv1d(self, use_dora, tmp_path):
        base_dir = save_gpt2(tmp_path / "base", vocab_size=1003, n_embd=68, n_inner=1001, n_layer=1)
        settings = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
        _check_adapter(base_dir, tmp_path / "adapter", r=5, use_dora=use_dora, **settings)

    @pytest.mark.parametrize("is_transposed", [False, True])
    @pytest.mark.parametrize("has_lengths", [False, True])
    def test_shapes_and_ranks(self, is_transposed, has_lengths):
        def compute() -> list[Numbers]:
            found = []
            for rows, columns in ((68, 1001), (1001, 68), (300, 257), (1, 40_001), (40_001, 1)):
                for rank in (1, 2, 8, 64):
                    out_size, in_size = (columns, rows) if is_transposed else (rows, columns)
                    factors = [randn(rank, in_size, seed=1), randn(out_size, rank, seed=2)]
                    factors += [randn(out_size, seed=3)] if has_lengths else []
                    update = LowRank(("",) * len(factors), 1.7, is_transposed)
                    found.append(update.apply(randn(rows, columns), *factors))
            return found

        each_count(compute)


def _check_adapter(base_dir: Path, folder: Path, **settings) -> None:
    adapter = open_with(base_dir, save_adapter(folder, base_dir, **settings)).experts[0]
    assert adapter.updates
    each_count(lambda: [adapter.tensor(name) for name in adapter.updates])


def test_mean_rows_of_a_vocabulary(tmp_path):
    """Of a model's own tokens, and of the models that have a token."""
    models = []
    for seed in range(3):
        folder = tmp_path / f"model{seed}"
        folder.mkdir()
        tables = {"tall": randn(5003, 24, seed=seed), "wide": randn(4, 16_411, seed=seed)}
        save_file(tables, folder / SINGLE_FILE)
        models.append(open_checkpoint(folder.name, folder, str(folder)))
    nothing = torch.tensor([], dtype=torch.int64)
    none = (nothing, nothing, nothing)
    of_own = TokenRows(models[0], 1, (), (), torch.tensor([0]), torch.arange(5003), *none)
    rows = ((0, tuple((model, 2) for model in models)),)
    of_owners = TokenRows(models[0], 1, (), rows, nothing, None, *none)
    there, first = torch.arange(5003), torch.tensor([0])
    copied = ((models[0], there, there + 1),)
    of_tokens = TokenRows(models[0], 5004, copied, (), nothing, None, nothing, first, there + 1)
    each_count(
        lambda: [
            of_own.make("tall", "tall"),
            of_owners.make("wide", "wide"),
            of_tokens.make("tall", "tall"),
        ]
    )


@pytest.mark.parametrize(
    "kind", ["automatic", "quadratic", "gaussian_process", "quadratic_and_gaussian_process"]
)
def test_surrogates(kind):
    rng = np.random.default_rng(0)
    points, elsewhere = rng.uniform(-1.0, 1.0, (160, 3)), rng.uniform(-1.0, 1.0, (50, 3))
    z = np.sin(3.0 * points[:, :1]) + 0.2 * (points**2).sum(axis=1, keepdims=True)
    losses = 0.2 + 0.5 / (1.0 + np.exp(-z - 0.01 * rng.standard_normal((160, 1))))
    errors = np.full((160, 1), 0.01)

    def compute() -> list[Numbers]:
        with one_thread():
            (found,) = fit_surrogates(kind, points, losses, errors, [Goal(low=0.0, high=1.0)])
            predicted, left_out = found.predict(elsewhere), found.left_out()
            drawn = found.sample(np.random.default_rng(1))(elsewhere)
            return [predicted.mean, predicted.low, left_out.mean, *found.posterior(), drawn]

    each_count(compute, (1, 3))
