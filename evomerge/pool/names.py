"""Names of tensors: as a checkpoint stores them, and as the model in memory has them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.pool.checkpoint import Checkpoint, TensorInfo
from evomerge.pool.conversion import Conversion, ConversionError, Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def renamer(model: PreTrainedModel) -> Callable[[str], tuple[str, Any]]:
    """The rules `from_pretrained` renames a stored tensor by.

    Args:
        model: May be on the meta device.

    Returns:
        A function from a stored name to the model's, with what converts the tensor's form if it is
        stored in another. To be called in order of name: some rules depend on what they have seen.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state = model.state_dict()

    def rename(stored_name: str) -> tuple[str, Any]:
        name, converter = rename_source_key(
            stored_name, renamings, converters, model.base_model_prefix, state
        )
        return name, converter

    return rename


def use_model_names(checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Call a checkpoint's tensors as the model does, by the rules `from_pretrained` loads them by.

    They differ for families whose code was renamed after their checkpoints were made (GPT-NeoX's
    head), and where the model under the head was saved alone (GPT-2 has no "transformer.").
    Tensors that are stored in another form (a mixture's experts, one by one) are converted when
    they are read. Buffers that old releases saved and the model computes itself are left out,
    with a warning.

    Args:
        checkpoint: Changed in place.
        model: Of its architecture; may be on the meta device.

    Raises:
        InputError: A tensor is stored in another form and cannot be converted to the model's and
            back, or two have one name.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        apply_renamings,
        dot_natural_key,
        rename_source_key,
    )

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    by_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    prefix, state = model.base_model_prefix, model.state_dict()
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    left_out = []
    tensors: dict[str, TensorInfo] = {}
    conversions: dict[str, Conversion] = {}
    # In order of name, as transformers: some renamings depend on what they have seen, and experts
    # are stacked as they come.
    for stored_name in sorted(checkpoint.tensors, key=dot_natural_key):
        info = checkpoint.tensors[stored_name]
        name, pattern = rename_source_key(stored_name, renamings, converters, prefix, state)
        if name not in state and stored_name in state:
            name, pattern = rename_source_key(stored_name, [], [], prefix, state)
        if name not in state and any(re.search(expression, name) for expression in ignored):
            left_out.append(stored_name)
        elif pattern is not None and name not in tensors:
            conversion = conversions.setdefault(name, Conversion(by_pattern[pattern], model, name))
            conversion.sources.append(
                Source(info, pattern, apply_renamings(stored_name, renamings))
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
            "model %r: %d tensors that its model class does not load are left out: %s",
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
