"""Names of tensors: as a checkpoint stores them, and as the model in memory has them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.pool.checkpoint import Checkpoint, TensorInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    Buffers that old releases saved and the model computes itself are left out.

    Args:
        checkpoint: Changed in place.
        model: Of its architecture; may be on the meta device.

    Raises:
        InputError: A tensor is stored in another form than it is used in, or two have one name.
    """
    rename = renamer(model)
    state = model.state_dict()
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    tensors: dict[str, TensorInfo] = {}
    for stored_name in sorted(checkpoint.tensors):
        name, converter = rename(stored_name)
        if converter is not None:
            raise InputError(
                f"model {checkpoint.name!r}: tensor {stored_name!r} is stored in another form than "
                f"transformers uses it in ({name!r}); such models (mixtures of experts) cannot be "
                "merged"
            )
        if name not in state and any(re.search(pattern, name) for pattern in ignored):
            continue
        if name in tensors:
            raise InputError(
                f"model {checkpoint.name!r}: {tensors[name].stored_name!r} and {stored_name!r} are "
                "the same tensor of the model"
            )
        tensors[name] = checkpoint.tensors[stored_name]
    checkpoint.tensors = tensors
