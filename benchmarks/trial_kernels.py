"""Part of the trial: merges on the device against blocks on the CPU, and pools that are streamed.

Every kind of `METHODS` is tried with its defaults and with each of its options changed. First what
has kernels, tensor by tensor: the same bits as blocks on the CPU, in all types, of one to three
models; and numbers that are not finite are told. Then all of them through the engine, with the
pool resident, with half of it streamed, and without kernels, as small tensors are merged: the same
bits, but for methods that add up over whole tensors or decompose them, whose libraries round in
another order. Of these, a tensor may differ by
`TOLERANCE` of the norm of what the merge added to it. Last a larger pool, half of it streamed.

Where there is no GPU the kernels are run by Triton's interpreter and the device is the CPU.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter
from typing import Literal

import torch
from torch import Tensor
from transformers import LlamaConfig

from build_beside import seconds
from build_pool import llama_of
from drawn_pool import CPU, NAMES, draw_pool
from evomerge.errors import CandidateError
from evomerge.kernels.gpu import draw_uniforms
from evomerge.kernels.philox import uniform_uint16
from evomerge.kernels.support import NUM_FLAGS, has_kernels
from evomerge.merge import TORCH_DTYPES, Engine, Residence
from evomerge.merge.launches import is_known, launch
from evomerge.methods import METHODS, Coefficients, Method, MethodConfig, Operands, Statistics
from evomerge.methods.terms import MaskedSum, Terms, TrimmedSum
from evomerge.pool import Pool
from evomerge.recipe import Dtype, Recipe
from harness import print_table
from trial import Figures, Tally, Trial, same_bits
from trial_methods import KEEPING, VALUES, kind_of, part_of, sets_of_values, variants

ADDING_UP = {
    *("karcher", "model_stock", "multislerp", "nuslerp", "pcb", "sce", "slerp"),
    *("iso_c", "opcm", "tsv_m"),
}
"""Kinds that add up over whole tensors, or decompose them; others do where they rescale by l1."""

TOLERANCE = 1e-3
"""Of those kinds: the norm of a difference, as a share of that of what was added to the base."""

How = Literal["resident", "half streamed", "in blocks"]
"""Where the pool lies, all of it merged by kernels; or merged without them."""

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32

LAUNCHES = (
    (3, (BRAIN,), BRAIN),
    (2, (SINGLE, BRAIN), HALF),
    (2, (HALF,), HALF),
    (1, (SINGLE,), SINGLE),
    (3, (BRAIN,), SINGLE),
)
"""Models, their types in turn (the first is the base's as well), and the result's type."""

SIZES = {
    "quick": ((1_503, 2_048), (200_003, 262_144)),
    "bar": ((5_003, 8_192), (1_053_579, 1_048_576)),
    "full": ((20_003, 32_768), (16_777_259, 16_777_216)),
}
"""Numbers in a tensor: no multiple of a block, and one."""

SHAPES = (
    {"hidden_size": 16, "intermediate_size": 40, "vocab_size": 37},
    {"hidden_size": 128, "intermediate_size": 352, "vocab_size": 1037},
)
"""The pool's on the CPU and on a GPU."""

KEYS = (0, 1, 1 << 31, 12345678901234567890, (1 << 64) - 1)


def run(trial: Trial, figures: Figures) -> None:
    """Compare everything.

    Raises:
        RuntimeError: Something differs.
    """
    launches, builds = Tally(), Tally()
    rows = {kind: Counter[str]() for kind in sorted(METHODS)}
    errors: dict[str, float] = {}
    skipped: list[str] = []
    try:
        launches.compare("support", lambda: "" if has_kernels(trial.device) else "no kernels here")
        try_uniforms(trial, launches)
        for label, config in filter(has_terms, variants()):
            rows[config.kind]["launches"] += try_launches(trial, label, config, launches)
            rows[config.kind]["told"] += try_bad_numbers(trial, label, config, launches)
        for label, config in variants():
            before = builds.num_compared
            errors |= try_builds(trial, label, config, builds)
            rows[config.kind]["builds"] += builds.num_compared - before
            if builds.num_compared == before:
                skipped.append(label)
        figures |= try_streaming(trial, builds)
    finally:
        inexact = {label: error for label, error in errors.items() if error}
        figures |= {
            "kinds_with_kernels": [kind for kind, row in rows.items() if row["launches"]],
            "launches": launches.figures,
            "builds": builds.figures,
            "not_built": skipped,
            "tolerance": TOLERANCE,
            "errors": inexact,
        }
        print_rows(rows, errors, launches.failures + builds.failures)
    launches.require()
    builds.require()


@functools.cache
def operands(num_models: int, dtypes: tuple[torch.dtype, ...], size: int) -> Operands:
    """A tensor of a base and models near it; in steps of their type, so that many are equal."""
    generator = torch.Generator().manual_seed(size)
    base = torch.randn(size, generator=generator).mul_(0.02).to(dtypes[0])
    models = tuple(
        (base.float() + 0.002 * torch.randn(size, generator=generator)).to(
            dtypes[number % len(dtypes)]
        )
        for number in range(num_models)
    )
    return Operands("tensor", base, models, NAMES[1:][:num_models], 0, (1, size))


def has_terms(variant: tuple[str, MethodConfig]) -> bool:
    """Whether a method with these settings is a sum that kernels know."""
    method = METHODS.make(variant[1])
    whole = operands(method.needs.num_models or 3, (SINGLE,), 40)
    coefficients = next(sets_of_values(variant[1], len(whole.models)), None)
    if coefficients is None:
        return False
    return method.terms(whole, method.prepare(whole, 3), coefficients) is not None


def moved(whole: Operands, device: torch.device) -> Operands:
    """The same on a device."""
    assert whole.base is not None
    models = tuple(model.to(device) for model in whole.models)
    base = whole.base.to(device)
    return Operands(whole.name, base, models, whole.model_hashes, whole.offset, whole.shape)


def terms_on(
    device: torch.device,
    method: Method,
    whole: Operands,
    prepared: Statistics,
    coefficients: Coefficients,
    clean: Operands | None = None,
) -> Terms:
    """What the method is a sum of, there; tables and masks are made there as well.

    Shares that follow from sums over a tensor are those of the CPU: there they are rounded in
    another order.
    """
    if isinstance(method.terms(whole, prepared, coefficients), MaskedSum | TrimmedSum):
        prepared = method.prepare(moved(clean or whole, device), 3)
    terms = method.terms(moved(whole, device), prepared, coefficients)
    assert terms is not None
    return terms


def launched(terms: Terms, size: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """What the kernels write, and what they say of it."""
    device = terms.models[0].device
    target = torch.full((size,), 7.0, dtype=dtype, device=device)
    if not is_known(terms, target):
        raise RuntimeError("there is no kernel for these numbers")
    flags = torch.zeros(NUM_FLAGS, dtype=torch.int32, device=device)
    launch(terms, target, flags)
    return target.cpu(), int(flags[0])


def try_launches(trial: Trial, label: str, config: MethodConfig, tally: Tally) -> int:
    """Compare kernels with blocks, in all types; how often."""
    method, before = METHODS.make(config), tally.num_compared
    odd, even = trial.amount(SIZES)
    some = LAUNCHES[:2] if trial.size == "quick" else LAUNCHES
    cases = [(*LAUNCHES[0], even)] + [(*case, odd) for case in some]
    for given, dtypes, dtype, size in cases:
        num_models = method.needs.num_models or given
        whole = operands(num_models, dtypes, size)
        prepared = method.prepare(whole, 3)
        for coefficients in sets_of_values(config, num_models):
            if method.terms(whole, prepared, coefficients) is None:
                continue

            def difference(
                whole: Operands = whole,
                prepared: Statistics = prepared,
                coefficients: Coefficients = coefficients,
                dtype: torch.dtype = dtype,
            ) -> str:
                settled = prepared + method.settle(whole, prepared, coefficients)
                expected = method.combine(whole, settled, coefficients).to(dtype)
                terms = terms_on(trial.device, method, whole, prepared, coefficients)
                found, flag = launched(terms, len(expected), dtype)
                return f"told {flag}" if flag else same_bits(found, expected)

            types = " and ".join(str(t).removeprefix("torch.") for t in dtypes)
            tally.compare(f"{label}, {num_models} of {types} to {dtype}, {size}", difference)
    return tally.num_compared - before


def try_bad_numbers(trial: Trial, label: str, config: MethodConfig, tally: Tally) -> int:
    """See that a number that is not finite is told; how often."""
    method, before = METHODS.make(config), tally.num_compared
    size, _ = trial.amount(SIZES)
    clean = operands(2, (SINGLE,), size)
    prepared = method.prepare(clean, 3)
    coefficients = part_of(config, NAMES[1:3], VALUES | KEEPING).coefficients()
    for bad in (float("nan"), float("inf")):
        models = tuple(model.clone() for model in clean.models)
        models[1][size // 2] = bad
        whole = Operands("tensor", clean.base, models, clean.model_hashes, 0, clean.shape)

        def difference(whole: Operands = whole) -> str:
            terms = terms_on(trial.device, method, whole, prepared, coefficients, clean)
            _, flag = launched(terms, size, SINGLE)
            return "" if flag == 1 else f"told {flag}, expected 1"

        tally.compare(f"{label}, {bad}", difference)
    return tally.num_compared - before


def try_uniforms(trial: Trial, tally: Tally) -> None:
    """Compare the random numbers of masks."""
    size, _ = trial.amount(SIZES)
    for key in KEYS:

        def difference(key: int = key) -> str:
            drawn = draw_uniforms(key, size, trial.device).cpu()
            return "" if torch.equal(drawn, uniform_uint16(key, size)) else "they differ"

        tally.compare(f"uniforms of key {key}", difference)


@functools.cache
def pool_of(on_gpu: bool, dtype: Dtype) -> Pool:
    """A base and three experts, drawn on the CPU."""
    config = LlamaConfig(
        **SHAPES[on_gpu],
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return draw_pool(config, 3, CPU, dtype=dtype)


def recipe_of(pool: Pool, config: MethodConfig) -> Recipe:
    """The method over as many experts as it takes."""
    names = NAMES[1:][: METHODS.make(config).needs.num_models or 3]
    part = part_of(config, names, VALUES)
    return Recipe(members=pool.members, mask_seed=11, dtype=pool.dtype, parts=(part,))


def try_builds(trial: Trial, label: str, config: MethodConfig, tally: Tally) -> dict[str, float]:
    """Compare builds on the device with those on the CPU.

    Returns:
        The largest error of each, by label; nothing where the values make no candidate.
    """
    adds_up = config.kind in ADDING_UP or getattr(config, "rescale", None) == "l1"
    cases: list[tuple[Dtype, How]] = [("float32", "half streamed"), ("float32", "in blocks")]
    if label == config.kind and trial.size != "quick":
        cases += [("float32", "resident")]
        # What adds up is compared before it is rounded.
        cases += [] if adds_up else [("bfloat16", "half streamed"), ("float16", "half streamed")]
    errors: dict[str, float] = {}
    for dtype, how in cases:
        pool = pool_of(trial.on_gpu, dtype)
        recipe = recipe_of(pool, config)
        try:
            expected = dict(Engine(pool, fused_from=sys.maxsize).tensors(recipe))
        except CandidateError:
            return {}
        name = f"{label}, {dtype}, {how}"

        def difference(
            name: str = name,
            how: How = how,
            pool: Pool = pool,
            recipe: Recipe = recipe,
            expected: dict[str, Tensor] = expected,
        ) -> str:
            found = build(trial, pool, recipe, how)
            if not adds_up:
                errors[name] = 0.0
                lines = {n: same_bits(found[n], expected[n]) for n in expected}
                return next((f"{n}: {line}" for n, line in lines.items() if line), "")
            errors[name] = max(error(found[n], expected[n], pool, n) for n in expected)
            is_near = errors[name] <= TOLERANCE
            return "" if is_near else f"differs by {errors[name]:.2g} of what was added"

        tally.compare(name, difference)
    return errors


def build(trial: Trial, pool: Pool, recipe: Recipe, how: How) -> dict[str, Tensor]:
    """The recipe's model, built there twice: with what was prepared before, the second time."""
    engine, state = engine_on(trial.device, pool, recipe, how)
    for _ in range(1 if trial.size == "quick" else 2):
        engine.write_into(state, recipe)
    assert engine.residence is not None
    if how == "half streamed" and not 0 < engine.residence.size_bytes < bytes_of(pool, recipe):
        raise RuntimeError(f"{engine.residence.size_bytes} bytes stay on the device")
    return {name: tensor.cpu() for name, tensor in state.items()}


def engine_on(
    device: torch.device, pool: Pool, recipe: Recipe, how: How
) -> tuple[Engine, dict[str, Tensor]]:
    """What builds there, and what it builds into."""
    budget_bytes = bytes_of(pool, recipe) // 2 if how == "half streamed" else None
    fused_from = sys.maxsize if how == "in blocks" else 1
    residence = Residence(device, budget_bytes)
    engine = Engine(pool, device, fused_from=fused_from, residence=residence)
    state = {
        name: torch.full(shape, 7.0, dtype=TORCH_DTYPES[recipe.dtype], device=device)
        for name, shape in pool.layout.shapes.items()
    }
    return engine, state


def bytes_of(pool: Pool, recipe: Recipe) -> int:
    """What the recipe's build reads."""
    (part,) = recipe.parts
    num_bases = METHODS.make(part.method).needs.base
    return pool.base.size_bytes * (len(part.models) + num_bases)


def try_streaming(trial: Trial, tally: Tally) -> Figures:
    """Compare streamed builds with resident ones where a copy takes as long as a merge.

    Returns:
        Seconds of a streamed build, by method.
    """
    pool = pool_of(False, "bfloat16")
    if trial.on_gpu:
        pool = draw_pool(llama_of("271 M"), 3, trial.device)
    figures: Figures = {}
    for kind in ("task_arithmetic", "ties", "dare_ties"):
        recipe = recipe_of(pool, METHODS[kind].config(kind=kind))

        def difference(kind: str = kind, recipe: Recipe = recipe) -> str:
            engine, expected = engine_on(trial.device, pool, recipe, "resident")
            engine.write_into(expected, recipe)
            engine, found = engine_on(trial.device, pool, recipe, "half streamed")
            for _ in range(3):
                took_s = seconds(lambda: engine.write_into(found, recipe), trial.device)
                lines = {n: same_bits(found[n], expected[n]) for n in expected}
                for name, line in lines.items():
                    if line:
                        return f"{name}: {line}"
            figures[f"{kind}_streamed_seconds"] = took_s
            return ""

        tally.compare(f"{kind}, {pool.layout.num_parameters} numbers streamed", difference)
    return figures


def error(found: Tensor, expected: Tensor, pool: Pool, name: str) -> float:
    """Norm of a difference as a share of that of what the merge added to the base."""
    base = pool.base.tensor(name).double()
    added = float((expected.double() - base).norm())
    differs = float((found.double() - expected.double()).norm())
    if math.isnan(differs):
        return math.inf
    return differs / added if differs else 0.0


def print_rows(
    rows: dict[str, Counter[str]], errors: dict[str, float], failures: list[str]
) -> None:
    """A line for each kind."""
    table = []
    for kind, row in rows.items():
        largest = max((e for label, e in errors.items() if kind_of(label) == kind), default=0.0)
        table.append(
            [
                kind,
                str(row["launches"] or "none"),
                str(row["told"] or "none"),
                str(row["builds"]),
                str(sum(kind_of(line) == kind for line in failures)),
                f"{largest:.1e}" if largest else "none",
            ]
        )
    headings = ["method", "kernels against blocks", "bad numbers told", "builds", "failed", "error"]
    print_table("merges on the device against the CPU's blocks", headings, table)
