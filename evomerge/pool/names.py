"""Names of tensors: as a checkpoint stores them, and as the model in memory has them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.pool.checkpoint import Checkpoint
from evomerge.pool.conversion import Conversion, ConversionError, Source
from evomerge.pool.stored import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

COMPUTED = (
    # The rotary frequencies, which follow from config.json.
    r"(^|\.)(original_)?inv_freq",
    # The mask of tokens that come later; a bias of weights has one dimension.
    r"(^|\.)(attn|attention|crossattention)\.(bias|masked_bias)",
    # The number of a file format.
    r"(^|\.)(encoder|decoder)\.version",
)
"""Ends of names of buffers that old releases saved and models compute themselves."""


def is_computed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a stored tensor holds no weights: its model computes the same from config.json.

    Args:
        name: As it is stored.
        shape: Its dimensions.
    """
    is_weight = name.endswith(".bias") and len(shape) == 1
    return not is_weight and any(re.search(f"{end}$", name) for end in COMPUTED)


@dataclass(frozen=True)
class LoadingRules:
    """The rules `from_pretrained` renames and converts a model's stored tensors by.

    Attributes:
        renamings: Those that give another name.
        converters: Those that put together another form.
        prefix: Name of the model under the head.
        state: The model's tensors by name.
    """

    renamings: list[Any]
    converters: list[Any]
    prefix: str
    state: dict[str, Tensor]

    @classmethod
    def of(cls, model: PreTrainedModel) -> LoadingRules:
        """The rules of a model, which may be on the meta device."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        return cls(
            [t for t in transforms if isinstance(t, WeightRenaming)],
            [t for t in transforms if isinstance(t, WeightConverter)],
            model.base_model_prefix,
            model.state_dict(),
        )

    def rename(self, stored_name: str) -> tuple[str, str | None]:
        """The model's name of a stored tensor, and the pattern of what converts its form, if any.

        To be called in order of name: some rules depend on what they have seen.
        """
        from transformers.core_model_loading import rename_source_key

        name, pattern = rename_source_key(
            stored_name, self.renamings, self.converters, self.prefix, self.state
        )
        if name not in self.state and stored_name in self.state:
            name, pattern = rename_source_key(stored_name, [], [], self.prefix, self.state)
        return name, pattern


def use_model_names(checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Call a checkpoint's tensors as the model does, by the rules `from_pretrained` loads them by.

    They differ for families whose code was renamed after their checkpoints were made (GPT-NeoX's
    head), and where the model under the head was saved alone (GPT-2 has no "transformer.").
    Tensors that are stored in another form (a mixture's experts, one by one) are converted when
    they are read. Buffers that old releases saved and the model computes itself are left out,
    with a warning. All else keeps its place, also what transformers passes over in silence (heads
    that predict further tokens, towers that read images): an export would lack it.

    Args:
        checkpoint: Changed in place.
        model: Of its architecture; may be on the meta device.

    Raises:
        InputError: A tensor is stored in another form and cannot be converted to the model's and
            back, or two have one name.
    """
    from transformers.core_model_loading import apply_renamings, dot_natural_key

    rules = LoadingRules.of(model)
    state = rules.state
    by_pattern = {pattern: c for c in rules.converters for pattern in c.source_patterns}
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    left_out = []
    tensors: dict[str, TensorInfo] = {}
    conversions: dict[str, Conversion] = {}
    # In order of name, as transformers: some renamings depend on what they have seen, and experts
    # are stacked as they come.
    for stored_name in sorted(checkpoint.tensors, key=dot_natural_key):
        info = checkpoint.tensors[stored_name]
        name, pattern = rules.rename(stored_name)
        is_ignored = any(re.search(expression, name) for expression in ignored)
        if name not in state and is_ignored and is_computed(stored_name, info.shape):
            left_out.append(stored_name)
        elif pattern is not None and name not in tensors:
            conversion = conversions.setdefault(name, Conversion(by_pattern[pattern], model, name))
            conversion.sources.append(
                Source(info, pattern, apply_renamings(stored_name, rules.renamings))
            )
        elif name in tensors or name in conversions:
            other = tensors[name] if name in tensors else conversions[name].sources[0].info
            raise InputError(
                f"model {checkpoint.name!r}: {other.stored_name!r} and {stored_name!r} are "
                "the same tensor of the model"
            )
        else:
            tensors[name] = info
    checkpoint.tensors = tensors
    for conversion in conversions.values():
        _add_converted(checkpoint, conversion)
    if left_out:
        logger.warning(
            "model %r: %d tensors that its model class computes itself are left out: %s",
            checkpoint.name,
            len(left_out),
            ", ".join(left_out[:3]),
        )


def _add_converted(checkpoint: Checkpoint, conversion: Conversion) -> None:
    try:
        conversion.check()
    except ConversionError as error:
        raise InputError(
            f"model {checkpoint.name!r}: {conversion.describe()} are stored in another form than "
            f"transformers uses them in ({conversion.name!r}), and cannot be converted to it and "
            f"back: {error}"
        ) from None
    first = conversion.sources[0].info
    for name, shape in conversion.shapes.items():
        if name in checkpoint.tensors:
            raise InputError(
                f"model {checkpoint.name!r}: {conversion.describe()} and "
                f"{checkpoint.tensors[name].stored_name!r} are the same tensor of the model"
            )
        checkpoint.tensors[name] = replace(first, shape=shape)
        checkpoint.conversions[name] = conversion
