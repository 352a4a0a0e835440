"""A merged model as a LoRA adapter of its base, in PEFT's format."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.merge import TORCH_DTYPES
from evomerge.pool import Pool
from evomerge.pool.adapters.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evomerge.pool.hub import split_source
from evomerge.pool.layout import hollow_model
from evomerge.threads import one_thread

EXACT_SIZE = 2048
"""Matrices with no more rows or columns are decomposed whole; of others, a random part is taken."""

OVERSAMPLING, POWER_ITERATIONS = 32, 4
"""Halko et al. 2011, "Finding structure with randomness": columns beyond the rank, and rounds."""


@dataclass
class Reconstruction:
    """What an adapter has of a difference.

    Attributes:
        rank: Of each matrix.
        lost: Sum of squares of what the adapter lacks.
        whole: Sum of squares of the difference.
        of_base: Sum of squares of the base's changed tensors.
        left_out: Tensors whose difference no adapter can have.
    """

    rank: int
    lost: float = 0.0
    whole: float = 0.0
    of_base: float = 0.0
    left_out: list[str] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Norm of what is missing over the norm of the difference, in [0, 1]."""
        return math.sqrt(self.lost / self.whole) if self.whole else 0.0

    @property
    def error_of_weights(self) -> float:
        """Norm of what is missing over the norm of the weights that differ."""
        return math.sqrt(self.lost / self.of_base) if self.of_base else 0.0


def write_adapter(
    pool: Pool, folder: Path, rank: int, report: Callable[[int, int], None] = lambda _n, _of: None
) -> Reconstruction:
    """Write the difference of a merged model to its base as a LoRA adapter.

    Matrices have a decomposition of this rank, the best one in the Frobenius norm (Eckart and
    Young 1936). Biases and norms are stored whole.

    Args:
        pool: The base, and the merged model as its only expert.
        folder: An empty folder.
        rank: At least 1; of all matrices no more than the largest one can have.
        report: Is told how many matrices are done, of how many.

    Returns:
        What the adapter has, as it is rounded in the file.

    Raises:
        InputError: The model has another vocabulary than the base, or the same matrices.
    """
    base, (merged,) = pool.base, pool.experts
    if pool.vocabulary is not None:
        raise InputError("a LoRA adapter has the base's tokens, and the merged model has others")
    modules = dict(hollow_model(base.model_dir).named_modules())
    dtype = TORCH_DTYPES[pool.dtype]
    tensors: dict[str, Tensor] = {}
    targets: list[str] = []
    saved: set[str] = set()
    biases: dict[str, Tensor] = {}
    names = [n for n in pool.layout.places if not _equal(pool, n)]
    most = [min(shape) for n in names if len(shape := pool.layout.shapes[n]) == 2]
    if not most:
        raise InputError(
            "the model has the same matrices as its base, and a LoRA adapter is a change of "
            "matrices"
        )
    rank = min(rank, max(most))
    found = Reconstruction(rank)
    for number, name in enumerate(names):
        report(number, len(names))
        owner, _, part = name.rpartition(".")
        module = modules.get(owner)
        before = base.tensor(name).float()
        difference = merged.tensor(name).float() - before
        found.whole += _squares(difference)
        found.of_base += _squares(before)
        kind = _kind(module) if part == "weight" else None
        # PEFT applies a low rank to a tied head too, and when merging once more.
        is_whole = difference.ndim == 1 or name in pool.layout.aliases.values()
        key = f"base_model.model.{owner}"
        if kind is not None and not is_whole:
            is_table, is_transposed = kind
            matrix = difference.T if is_transposed else difference
            left, right = (
                factor.to(dtype) for factor in _decompose(matrix, rank, sha256_json(name))
            )
            found.lost += _squares(matrix - left.float() @ right.float())
            ends = ("lora_embedding_A", "lora_embedding_B") if is_table else LINEAR_ENDS
            tensors[f"{key}.{ends[0]}"] = right.contiguous()
            tensors[f"{key}.{ends[1]}"] = left.contiguous()
            targets.append(owner)
        elif part == "bias" and _kind(module) is not None:
            biases[owner] = merged.tensor(name).to(dtype).contiguous()
        elif module is not None and is_whole:
            for inner in (n for n in pool.layout.places if n.rpartition(".")[0] == owner):
                tensors[f"base_model.model.{inner}"] = merged.tensor(inner).to(dtype).contiguous()
            # PEFT wants a tied head under its own name as well.
            for alias in (a for a, of in pool.layout.aliases.items() if of == name):
                tensors[f"base_model.model.{alias}"] = tensors[f"base_model.model.{name}"].clone()
            saved.add(owner)
        else:
            found.lost += _squares(difference)
            found.left_out.append(name)
    report(len(names), len(names))
    for owner, bias in biases.items():
        # PEFT puts a module that it changes into another.
        inner = "base_layer.bias" if owner in targets else "bias"
        tensors[f"base_model.model.{owner}.{inner}"] = bias
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    place, revision = split_source(base.source)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": place,
        "revision": revision,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "all" if biases else "none",
        "fan_in_fan_out": any(isinstance(modules[target], Conv1D) for target in targets),
        "target_modules": targets,
        "modules_to_save": sorted(saved) or None,
        "ensure_weight_tying": bool(pool.layout.tied),
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return found


LINEAR_ENDS = ("lora_A.weight", "lora_B.weight")


def _kind(module: nn.Module | None) -> tuple[bool, bool] | None:
    """Of a module with a matrix: whether it is an embedding, and whether it stores [in, out]."""
    if isinstance(module, nn.Embedding):
        return True, True
    if isinstance(module, Conv1D):
        return False, True
    return (False, False) if isinstance(module, nn.Linear) else None


def _decompose(matrix: Tensor, rank: int, seed: str) -> tuple[Tensor, Tensor]:
    """B [out, rank] and A [rank, in] whose product is nearest to a matrix [out, in]."""
    size = min(matrix.shape)
    kept = min(rank, size)
    with one_thread():
        if size <= EXACT_SIZE:
            u, s, v = torch.linalg.svd(matrix, full_matrices=False)
            vh = v
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seed[:8], 16))
                width = min(size, kept + OVERSAMPLING)
                u, s, v = torch.svd_lowrank(matrix, q=width, niter=POWER_ITERATIONS)
            vh = v.T
    root = s[:kept].sqrt()
    left = torch.zeros(matrix.shape[0], rank)
    right = torch.zeros(rank, matrix.shape[1])
    # Half of each singular value on either side keeps both within the type's range.
    left[:, :kept] = u[:, :kept] * root
    right[:kept] = root[:, None] * vh[:kept]
    return left, right


def _equal(pool: Pool, name: str) -> bool:
    return torch.equal(pool.base.tensor(name), pool.experts[0].tensor(name))


def _squares(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
