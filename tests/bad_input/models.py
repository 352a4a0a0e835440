"""Mistakes in models."""

from __future__ import annotations

import torch

from bad_input.mistakes import (
    EXPERT,
    HEAD,
    INDEX,
    WEIGHTS,
    Case,
    both,
    config,
    garbage_header,
    other_architecture,
    other_config,
    other_shape,
    other_tokenizer,
    pickle_only,
    sharded,
    tensors,
    truncated,
    truncated_shard,
)

CASES = {
    "missing model": Case(
        config(pool={"experts": ["pool/expert0", "./pool/expert9"]}),
        ("'./pool/expert9' is missing", "pool/expert9"),
    ),
    "missing model like a hub id": Case(
        config(pool={"experts": ["pool/expert0", "pool/expert9"]}),
        ("'pool/expert9'", "no such folder", "hub"),
    ),
    "a file as a model": Case(
        config(pool={"experts": ["pool/expert0", "pool/expert1/model.safetensors"]}),
        ("'pool/expert1/model.safetensors'", "is a file", "a model's folder", "`evomerge build"),
    ),
    "one name twice": Case(
        config(pool={"experts": ["pool/expert0", "pool/expert0"]}),
        ("two models are called 'expert0'", "name:"),
    ),
    "a name that is a path": Case(
        config(pool={"experts": [{"source": "pool/expert1", "name": "../../x"}]}),
        ("'../../x'", "name:", "letters, digits"),
    ),
    "an expert called base": Case(
        config(pool={"experts": ["pool/expert0", {"source": "pool/expert1", "name": "base"}]}),
        ("two models are called 'base'",),
    ),
    "other shape": Case(
        other_shape,
        ("'expert1'", "'model.layers.0.mlp.gate_proj.weight'", "[32, 16]", "[24, 16]"),
    ),
    "another rotary base": Case(
        other_config(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
        ("'expert1'", "rope_parameters", "500000.0", "10000.0", "ignore_config"),
    ),
    "an ignored field that is none": Case(
        config(pool={"ignore_config": ["rope_theta"]}),
        ("pool.ignore_config", "'rope_theta'", "rope_parameters"),
    ),
    "other architecture": Case(
        other_architecture, ("'expert1'", "model_type mistral", "llama", "share an architecture")
    ),
    "garbage header": Case(
        garbage_header, ("'expert1'", WEIGHTS, "not a whole safetensors file", "again")
    ),
    "truncated": Case(truncated, ("'expert1'", WEIGHTS, "not a whole safetensors file", "again")),
    "empty weights": Case(
        lambda folder: (folder / WEIGHTS).write_bytes(b""), ("'expert1'", WEIGHTS, "safetensors")
    ),
    "pickle only": Case(
        pickle_only,
        ("'expert1'", "pytorch_model.bin", "never loaded", "expected model.safetensors"),
    ),
    "no weights": Case(
        lambda folder: (folder / WEIGHTS).unlink(), ("'expert1'", "no safetensors", EXPERT)
    ),
    "no model config": Case(
        lambda folder: (folder / EXPERT / "config.json").unlink(), ("'expert1'", "config.json")
    ),
    "no base config": Case(
        lambda folder: (folder / "pool/base/config.json").unlink(), ("base", "config.json")
    ),
    "unknown architecture": Case(
        lambda folder: [
            path.write_text(path.read_text().replace('"llama"', '"nollama"'))
            for path in folder.glob("pool/*/config.json")
        ],
        ("base", "nollama"),
    ),
    "missing tensor": Case(
        tensors(lambda state: state.pop(HEAD)), ("'expert1'", "no tensor", f"'{HEAD}'")
    ),
    "extra tensor": Case(
        tensors(lambda state: state.update(extra=torch.ones(2))), ("'expert1'", "extra", "1 in all")
    ),
    "quantized tensor": Case(
        tensors(lambda state: state.update({HEAD: state[HEAD].to(torch.int8)})),
        ("'expert1'", f"'{HEAD}'", "I8", "BF16, F16, F32", "dequantize"),
    ),
    "float8": Case(
        tensors(lambda state: state.update({HEAD: state[HEAD].to(torch.float8_e4m3fn)})),
        ("'expert1'", f"'{HEAD}'", WEIGHTS, "F8_E4M3", "BF16, F16, F32", "dequantize"),
    ),
    "packed integers": Case(
        tensors(lambda state: state.update({"lm_head.qweight": torch.ones(2, dtype=torch.int32)})),
        ("'expert1'", "'lm_head.qweight'", WEIGHTS, "I32", "dequantize"),
    ),
    "NaN": Case(
        tensors(lambda state: state[HEAD][3].fill_(torch.nan)),
        ("'expert1'", f"'{HEAD}'", WEIGHTS, "NaN or infinity", "allow_nonfinite"),
    ),
    "infinity": Case(
        tensors(lambda state: state[HEAD][3].fill_(-torch.inf)),
        ("'expert1'", f"'{HEAD}'", WEIGHTS, "NaN or infinity", "allow_nonfinite"),
    ),
    "a truncated shard": Case(
        both(sharded(lambda name: name), truncated_shard),
        ("'expert1'", "b.safetensors", "not a whole safetensors file", "again"),
    ),
    "index names a missing shard": Case(
        sharded(lambda name: name.replace("b.", "c.")), ("'expert1'", "c.safetensors is missing")
    ),
    "index names a tensor absent from its shard": Case(
        sharded(lambda name: name, drop=HEAD),
        ("'expert1'", f"'{HEAD}'", "a.safetensors", "no such tensor"),
    ),
    "index leaves its folder": Case(
        sharded(lambda name: f"../base/{name}"), ("'expert1'", "outside", "../base/")
    ),
    "index names no files": Case(
        both(sharded(lambda name: name), lambda folder: (folder / INDEX).write_text("{}")),
        ("'expert1'", "index.json", "weight_map"),
    ),
    "index of numbers": Case(
        both(
            sharded(lambda name: name),
            lambda folder: (folder / INDEX).write_text('{"weight_map": {"lm_head.weight": 3}}'),
        ),
        ("'expert1'", "index.json", "outside", "3"),
    ),
    "index is no JSON": Case(
        both(sharded(lambda name: name), lambda folder: (folder / INDEX).write_text("{")),
        ("'expert1'", "index.json"),
    ),
    "other tokenizer": Case(
        other_tokenizer,
        ("tokenizers differ", "'a'", "id 2 in 'base'", "3 in 'expert1'"),
    ),
}
