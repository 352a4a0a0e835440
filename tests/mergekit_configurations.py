"""mergekit configurations over a pool of four layers, by name: all are deterministic."""

from __future__ import annotations

CONFIGURATIONS = {
    "linear": """
merge_method: linear
models:
  - {model: pool/expert0, parameters: {weight: 0.3}}
  - {model: pool/expert1, parameters: {weight: 0.8}}
""",
    "linear, not normalized, the base among the models": """
merge_method: linear
base_model: pool/base
parameters: {normalize: false}
models:
  - {model: pool/expert0, parameters: {weight: 0.3}}
  - {model: pool/base, parameters: {weight: 0.5}}
""",
    "linear, an unlisted base is a model too": """
merge_method: linear
base_model: pool/base
parameters: {weight: 0.5}
models:
  - {model: pool/expert0, parameters: {weight: 1.5}}
  - {model: pool/expert1}
""",
    "linear, gradients and filters": """
merge_method: linear
parameters: {weight: 0.25}
models:
  - model: pool/expert0
    parameters:
      weight:
        - {filter: self_attn, value: [0.0, 1.0, 0.5]}
        - {filter: up_proj, value: 2}
        - {value: [1, 2]}
  - model: pool/expert1
    parameters: {weight: [{filter: q_proj, value: [0.5, 0.25, 0.5, 1, 1]}]}
""",
    "linear, a filter decides about normalizing": """
merge_method: linear
parameters: {normalize: [{filter: mlp, value: false}, {value: true}]}
models:
  - {model: pool/expert0, parameters: {weight: 2}}
  - {model: pool/expert1, parameters: {weight: 0.5}}
""",
    "slerp": """
merge_method: slerp
base_model: pool/expert1
models:
  - model: pool/expert0
  - model: pool/expert1
parameters: {t: 0.3}
""",
    "slerp, by layers and components": """
merge_method: slerp
base_model: pool/expert0
slices:
  - sources:
      - {model: pool/expert0, layer_range: [0, 4]}
      - {model: pool/expert1, layer_range: [0, 4]}
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}
""",
    "slerp, a base for each slice": """
merge_method: slerp
slices:
  - sources:
      - {model: pool/expert0, layer_range: [0, 2]}
      - {model: pool/expert1, layer_range: [0, 2]}
    base_model: pool/expert1
    parameters: {t: 0.2}
  - sources:
      - {model: pool/expert0, layer_range: [2, 4]}
      - {model: pool/expert1, layer_range: [2, 4]}
    base_model: pool/expert0
    parameters: {t: [0.3, 0.6]}
""",
    "task_arithmetic": """
merge_method: task_arithmetic
base_model: pool/base
models:
  - {model: pool/base}
  - {model: pool/expert0, parameters: {weight: [0, 1]}}
  - {model: pool/expert1, parameters: {weight: [{filter: mlp, value: [1, 0]}, {value: -0.2}]}}
parameters: {lambda: 0.7}
""",
    "task_arithmetic, normalized": """
merge_method: task_arithmetic
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.7}}
parameters: {normalize: true, lambda: 1.2, int8_mask: true}
""",
    "task_arithmetic, other layers": """
merge_method: task_arithmetic
base_model: pool/base
slices:
  - sources:
      - {model: pool/base, layer_range: [1, 3]}
      - {model: pool/expert0, layer_range: [1, 3], parameters: {weight: [0.5, 1]}}
""",
    "ties": """
merge_method: ties
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5, density: 0.4}}
  - {model: pool/expert1, parameters: {weight: 0.7, density: [0.3, 0.9]}}
  - {model: pool/expert2, parameters: {weight: 0.2}}
parameters: {lambda: 0.9}
""",
    "ties, rescaled, not normalized": """
merge_method: ties
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5, density: 0.4}}
  - {model: pool/expert1, parameters: {weight: -0.7, density: 0.6}}
parameters: {rescale: true, normalize: false}
""",
    "passthrough": """
merge_method: passthrough
models:
  - model: pool/expert0
""",
    "passthrough, a stack": """
merge_method: passthrough
slices:
  - sources: [{model: pool/expert0, layer_range: [0, 3]}]
  - sources: [{model: pool/expert1, layer_range: [2, 4]}]
""",
    "passthrough, some layers": """
merge_method: passthrough
slices:
  - sources: [{model: pool/expert0, layer_range: [3, 4]}]
  - sources: [{model: pool/expert0, layer_range: [0, 1]}]
""",
    "passthrough, scaled": """
merge_method: passthrough
slices:
  - sources: [{model: pool/expert0, layer_range: [0, 2]}]
  - sources:
      - model: pool/expert0
        layer_range: [2, 3]
        parameters: {scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}]}
  - sources:
      - {model: pool/expert0, layer_range: [3, 4], parameters: {scale: 0.5}}
""",
    "passthrough, a scaled copy of a layer": """
merge_method: passthrough
slices:
  - sources: [{model: pool/expert0, layer_range: [0, 3]}]
  - sources:
      - model: pool/expert0
        layer_range: [2, 4]
        parameters: {scale: [{filter: o_proj, value: 0.0}, {filter: layers.2.mlp, value: 0.5}]}
""",
}
