"""Configurations whose slices take layers from other places than they go to, by name."""

SLICES = {
    "task_arithmetic, other layers": """
merge_method: task_arithmetic
base_model: pool/base
slices:
  - sources:
      - {model: pool/base, layer_range: [1, 3]}
      - {model: pool/expert0, layer_range: [1, 3], parameters: {weight: [0.5, 1]}}
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
    "linear, layers of different numbers": """
merge_method: linear
slices:
  - sources:
      - {model: pool/expert0, layer_range: [0, 3], parameters: {weight: 0.75}}
      - {model: pool/expert1, layer_range: [1, 4], parameters: {weight: 0.25}}
  - sources:
      - {model: pool/expert0, layer_range: [0, 3], parameters: {weight: 0.25}}
      - {model: pool/expert1, layer_range: [1, 4], parameters: {weight: 0.75}}
""",
    "ties, layers of the base under layers of other numbers": """
merge_method: ties
base_model: pool/base
slices:
  - sources:
      - {model: pool/base, layer_range: [0, 2]}
      - model: pool/expert0
        layer_range: [1, 3]
        parameters: {weight: [0.5, 1], density: [{filter: layers.1.mlp, value: 0.2}, {value: 0.6}]}
      - {model: pool/expert1, layer_range: [2, 4], parameters: {weight: 0.4, density: 0.5}}
  - sources:
      - {model: pool/base, layer_range: [3, 4]}
      - {model: pool/expert2, layer_range: [0, 1], parameters: {weight: 0.6, density: 0.7}}
""",
    "slerp, a layer in two ways": """
merge_method: slerp
base_model: pool/expert0
slices:
  - sources:
      - {model: pool/expert0, layer_range: [0, 3]}
      - {model: pool/expert1, layer_range: [0, 3]}
    parameters: {t: 0.3}
  - sources:
      - {model: pool/expert0, layer_range: [1, 4]}
      - {model: pool/expert1, layer_range: [1, 4]}
    parameters: {t: 0.7}
""",
    "slerp, filters know a layer by its number in the result": """
merge_method: slerp
base_model: pool/expert0
slices:
  - sources:
      - {model: pool/expert0, layer_range: [1, 4]}
      - {model: pool/expert1, layer_range: [1, 4]}
    parameters:
      t: [{filter: layers.2.mlp, value: 0.9}, {filter: layers.3., value: 1}, {value: 0.2}]
""",
}

STACKED = (
    "linear, layers of different numbers",
    "ties, layers of the base under layers of other numbers",
    "slerp, a layer in two ways",
)
"""Those that stack layers of models first."""
