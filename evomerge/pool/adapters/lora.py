"""What a LoRA adapter of PEFT says of itself, and what it does to one tensor."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from evomerge.errors import InputError
from evomerge.pool.checkpoint import model_json
from evomerge.threads import torch_threads

HARMLESS = {
    "alora_invocation_string",
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
}
"""Fields that change nothing, or only which tensors the adapter has, which its file says."""

KEPT_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""Initializations that leave the base's tensors alone; PiSSA's adapter is of another base."""


class LoraSettings(BaseModel):
    """An adapter's `adapter_config.json`, by PEFT's own names and defaults.

    Attributes:
        r: Rank, of modules that no key of `rank_pattern` matches.
        lora_alpha: Numerator of the scale, where no key of `alpha_pattern` matches.
        use_rslora: The scale is alpha / sqrt(r) and not alpha / r.
        use_dora: Rows have a length of their own (a magnitude vector).
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    peft_type: str
    base_model_name_or_path: str | None = None
    r: int = Field(8, ge=1)
    lora_alpha: float = 8.0
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] | None = None
    init_lora_weights: bool | str | None = True

    def rank(self, module: str) -> int:
        """The rank that a module's matrices must have."""
        key = _matching(self.rank_pattern, module)
        return self.r if key is None else (self.rank_pattern or {})[key]

    def scale(self, module: str) -> float:
        """The factor of B A."""
        key = _matching(self.alpha_pattern, module)
        alpha = self.lora_alpha if key is None else (self.alpha_pattern or {})[key]
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_settings(name: str, path: Path) -> LoraSettings:
    """Read an adapter's configuration.

    Raises:
        InputError: It is no LoRA, or of a variant that is another function of its tensors.
    """
    data = model_json(name, path)
    peft_type = data.get("peft_type")
    if peft_type != "LORA":
        raise InputError(
            f"model {name!r}: {path} has peft_type {peft_type!r}; valid: 'LORA' "
            "(merge the adapter into its base with PEFT and name the whole model)"
        )
    try:
        settings = LoraSettings.model_validate(data)
        for pattern in [*(settings.rank_pattern or ()), *(settings.alpha_pattern or ())]:
            re.compile(pattern)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"model {name!r}: {path}: {field}: {first['msg']}") from None
    except re.error as error:
        raise InputError(
            f"model {name!r}: {path}: {error.pattern!r} in a pattern is no regular expression: "
            f"{error}"
        ) from None
    unknown = [key for key, value in (settings.model_extra or {}).items() if value]
    for key in sorted(set(unknown) - HARMLESS):
        raise InputError(
            f"model {name!r}: {path} sets {key!r}, which is not supported (merge the adapter into "
            "its base with PEFT and name the whole model)"
        )
    if settings.init_lora_weights is not None and settings.init_lora_weights not in KEPT_BASE:
        raise InputError(
            f"model {name!r}: {path} has init_lora_weights {settings.init_lora_weights!r}: its "
            "making changed the base's tensors; save it as a plain LoRA "
            "(path_initial_model_for_weight_conversion)"
        )
    return settings


@dataclass(frozen=True)
class LowRank:
    """W' = W + s B A; with DoRA, each of its rows scaled to a length m.

    Hu et al. 2021 (eq. 3); Liu et al. 2024, "DoRA" (eq. 5). W is [out, in], or [in, out] where the
    module stores it transposed (embeddings, GPT-2's Conv1D).

    Attributes:
        keys: Of A [r, in], B [out, r] and, with DoRA, m [out] in the adapter's file.
        scale: s.
        is_transposed: W is [in, out].
    """

    keys: tuple[str, ...]
    scale: float
    is_transposed: bool

    def apply(self, start: Tensor, *factors: Tensor) -> Tensor:
        """W' in float32 from W of any type and the tensors of `keys`.

        The bits are the same with any number of threads.
        """
        a, b = factors[0].float(), factors[1].float()
        result = start.to(torch.float32, copy=True)
        left, right = (a.T, b.T) if self.is_transposed else (b, a)
        # Not in blocks of rows: on one thread, too, these have other last bits than the whole.
        with torch_threads(1):
            result.addmm_(left, right, alpha=self.scale)
        if len(factors) > 2:
            dim = 0 if self.is_transposed else 1
            with torch_threads(1):
                norm = torch.linalg.vector_norm(result, dim=dim, keepdim=True, dtype=torch.float64)
            magnitude = factors[2].double().reshape(norm.shape)
            result.mul_((magnitude / norm).float())
        return result


@dataclass(frozen=True)
class Shift:
    """b' = b + s v: the bias of B (`lora_bias`).

    Attributes:
        keys: Of v [out] in the adapter's file.
        scale: s.
    """

    keys: tuple[str, ...]
    scale: float

    def apply(self, start: Tensor, *factors: Tensor) -> Tensor:
        """Of W of any type and the tensors of `keys`: b' in float32."""
        return torch.add(start.float(), factors[0].float(), alpha=self.scale)


Update = LowRank | Shift


def _matching(patterns: dict[str, int] | dict[str, float] | None, module: str) -> str | None:
    """The first key that matches a module's name or the end of it, as PEFT looks."""
    for key in patterns or ():
        if re.match(rf"(.*\.)?({key})$", module):
            return key
    return None
