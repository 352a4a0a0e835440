"""A checkpoint as a GGUF file, for llama.cpp and what is built on it, by the package `gguf`.

Names of tensors and fields are that package's. What llama.cpp stores otherwise than transformers is
said here: the rows of rotary queries and keys of Llama alternate between both halves, and Gemma's
norms have their one added.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.errors import InputError
from evomerge.files import replacing
from evomerge.models.weights import stored_tensors
from evomerge.pool.layout import read_config

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
}
"""By model type: what `gguf` calls it."""

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: Mapping[str, str] = {
    LLAMA_3: "llama-bpe",
    LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2",
}
"""How llama.cpp calls the pattern that a byte-level tokenizer splits texts by."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass
class GgufFile:
    """A GGUF file.

    Attributes:
        path: Where it is.
        dtype: Of its matrices; vectors are float32.
        doubts: What a reader should know of its tokenizer.
    """

    path: Path
    dtype: str
    doubts: list[str] = field(default_factory=list)

    def line(self) -> str:
        """What is said of it."""
        doubts = "".join(f"; {doubt}" for doubt in self.doubts)
        return f"{self.path}: GGUF, {self.dtype}{doubts}"


def require_gguf() -> None:
    """Refuse to write GGUF without the package.

    Raises:
        InputError: It is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError("--gguf needs the package gguf: pip install 'evomerge[gguf]'")


def write_gguf(model_dir: Path, path: Path) -> GgufFile:
    """Write a checkpoint as one GGUF file, unquantized; it appears whole.

    Args:
        model_dir: A checkpoint of a family in `ARCHITECTURES`.
        path: A new file.

    Raises:
        InputError: The family, its rotary scaling or a tensor is none that is written here, or
            the file is there.
    """
    require_gguf()
    import gguf

    if path.exists():
        raise InputError(f"{path} exists already; move it away")
    config: Any = read_config(model_dir)
    name = ARCHITECTURES.get(config.model_type)
    if name is None:
        raise InputError(
            f"--gguf: no models of type {config.model_type!r}; valid: {', '.join(ARCHITECTURES)}; "
            "llama.cpp's convert_hf_to_gguf.py knows more"
        )
    architecture = getattr(gguf.MODEL_ARCH, name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    written = GgufFile(path, str(config.dtype).removeprefix("torch."))
    with replacing(path) as temporary_path:
        # A temporary file, so that no more than a tensor is in memory.
        writer = gguf.GGUFWriter(
            temporary_path, gguf.MODEL_ARCH_NAMES[architecture], use_temp_file=True
        )
        writer.add_name(model_dir.name)
        _add_settings(writer, config)
        _add_tokenizer(writer, model_dir, config.vocab_size, written.doubts)
        for stored_name, tensor in stored_tensors(model_dir):
            target = names.get_name(stored_name, try_suffixes=(".weight", ".bias"))
            if target is None:
                raise InputError(f"--gguf: no place for the tensor {stored_name!r} in GGUF")
            _add_tensor(writer, target, _as_llama_cpp(stored_name, tensor, config))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return written


def _add_settings(writer: Any, config: Any) -> None:
    import gguf

    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if ARCHITECTURES[config.model_type] == "LLAMA":
        writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(_rotary_base(config))
    if config.model_type in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    types = {
        torch.float32: gguf.LlamaFileType.ALL_F32,
        torch.float16: gguf.LlamaFileType.MOSTLY_F16,
        torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
    }
    writer.add_file_type(types[config.dtype])


def _rotary_base(config: Any) -> float:
    """The base of rotary embeddings; of layers that attend to everything, where there are others.

    Raises:
        InputError: They are scaled.
    """
    rotary = config.rope_parameters
    rotary = rotary.get("full_attention", rotary)
    if rotary.get("rope_type", "default") != "default":
        raise InputError(
            f"--gguf: rotary embeddings scaled by {rotary['rope_type']!r} are not written; "
            "llama.cpp's convert_hf_to_gguf.py knows them"
        )
    return float(rotary["rope_theta"])


def _as_llama_cpp(name: str, tensor: Tensor, config: Any) -> Tensor:
    if ARCHITECTURES[config.model_type] == "LLAMA":
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, num_heads in heads.items():
            if f".{part}." in name:
                # [head, half, pair] becomes [head, pair, half].
                shape = (num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
                return tensor.reshape(shape).transpose(1, 2).reshape(tensor.shape)
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        return tensor.float() + 1.0
    return tensor


def _add_tensor(writer: Any, name: str, tensor: Tensor) -> None:
    import gguf

    array: NDArray[Any]
    if tensor.ndim == 1 or tensor.dtype == torch.float32:
        writer.add_tensor(name, tensor.float().contiguous().numpy())
    elif tensor.dtype == torch.float16:
        writer.add_tensor(name, tensor.contiguous().numpy())
    else:
        array = tensor.contiguous().view(torch.uint8).numpy()
        writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType.BF16)


def _add_tokenizer(writer: Any, model_dir: Path, size: int, doubts: list[str]) -> None:
    """Tokens, merges and special tokens; of a kind that llama.cpp does not know, none."""
    import gguf

    path = model_dir / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    model = data.get("model", {})
    if model.get("type") != "BPE":
        kind = model.get("type", "no tokenizer.json")
        doubts.append(f"without a tokenizer, because llama.cpp has none of this kind ({kind})")
        writer.add_tokenizer_model("none")
        return
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [int(gguf.TokenType.UNUSED)] * size
    for token, number in model["vocab"].items():
        tokens[number] = token
        is_byte = model.get("byte_fallback") and _BYTE.fullmatch(token)
        types[number] = int(gguf.TokenType.BYTE if is_byte else gguf.TokenType.NORMAL)
    for added in data.get("added_tokens", ()):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(_scores(tokens, merges))
    else:
        pre = _pre_tokenizer(data)
        if pre == "default":
            doubts.append("llama.cpp may split texts otherwise: the pattern has no name there")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
    if model.get("unk_token") in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = int(gguf.TokenType.UNKNOWN)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(model_dir, n_vocab=size)
    special.add_to_gguf(writer, quiet=True)


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Of each token, minus the rank of the first merge that makes it: the best is merged first."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges, start=1):
        ranks.setdefault("".join(merge.split(" ", 1)), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _pre_tokenizer(data: Mapping[str, Any]) -> str:
    """llama.cpp's name of how texts are split before merges."""
    outer = data.get("pre_tokenizer") or {}
    for each in outer.get("pretokenizers", [outer]):
        pattern = str((each.get("pattern") or {}).get("Regex", ""))
        if pattern in PRE_TOKENIZERS:
            return PRE_TOKENIZERS[pattern]
        if each.get("type") == "ByteLevel" and each.get("use_regex", True) and not pattern:
            return "gpt-2"
    return "default"
