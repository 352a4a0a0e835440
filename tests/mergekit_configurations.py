"""mergekit configurations over a pool of four layers, by name: all are deterministic."""

from __future__ import annotations

from pathlib import Path

from adapters import save_adapter
from fixtures import make_pool
from mergekit_slices import SLICES


def make_named_pool(folder: Path, **changes) -> Path:
    """What the configurations name, beside them."""
    make_pool(folder / "pool", 3, num_hidden_layers=4, **changes)
    modules = ["q_proj", "up_proj", "lm_head"]
    save_adapter(folder / "pool/lora", folder / "pool/base", r=4, target_modules=modules)
    return folder


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
    "linear, adapters alone": """
merge_method: linear
models:
  - {model: pool/base+pool/lora, parameters: {weight: 0.6}}
  - {model: pool/base, parameters: {weight: 0.3}}
""",
    "task_arithmetic, an adapter and a whole model": """
merge_method: task_arithmetic
base_model: pool/base
models:
  - {model: pool/base+pool/lora, parameters: {weight: 0.6}}
  - {model: {model: {path: pool/expert0}}, parameters: {weight: 0.5}}
""",
    "slerp, from an adapter": """
merge_method: slerp
base_model: {model: pool/base, lora: {path: pool/lora}}
models:
  - model: pool/base+pool/lora
  - model: pool/expert1
parameters: {t: 0.3}
""",
    "passthrough, through an adapter": """
merge_method: passthrough
slices:
  - sources: [{model: pool/base+pool/lora, layer_range: [0, 2]}]
  - sources: [{model: pool/base, layer_range: [0, 4]}]
""",
    "linear, in a module": """
merge_method: linear
parameters: {weight: [{filter: mlp, value: 3}, {value: 1}]}
modules:
  default:
    parameters: {weight: [{filter: q_proj, value: [5, 2]}]}
    models:
      - {model: pool/expert0, parameters: {weight: [{filter: k_proj, value: 7}]}}
      - {model: pool/expert1}
""",
    "ties, slices in a module": """
merge_method: ties
base_model: pool/base
parameters: {weight: 0.7, density: 0.6}
modules:
  default:
    slices:
      - sources:
          - {model: pool/base, layer_range: [0, 3]}
          - {model: pool/expert0, layer_range: [0, 3]}
          - {model: pool/expert1, layer_range: [0, 3], parameters: {weight: 0.4}}
      - sources:
          - {model: pool/base, layer_range: [3, 4]}
          - {model: pool/expert1, layer_range: [3, 4]}
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
    "ties, one element of small tensors": """
merge_method: ties
base_model: pool/base
parameters: {density: 0.01, weight: 0.6}
models:
  - {model: pool/expert0}
  - {model: pool/expert1, parameters: {density: [0.05, 0.3], weight: -0.5}}
""",
    "ties, models that are dropped in some layers": """
merge_method: ties
base_model: pool/base
parameters: {weight: 0.6}
models:
  - {model: pool/expert0, parameters: {density: [0, 0.5, 0, 0.5], weight: 0.4}}
  - {model: pool/expert1, parameters: {density: [0, 0, 0.5, 0.5]}}
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
    "nuslerp": """
merge_method: nuslerp
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "nuslerp, around the base": """
merge_method: nuslerp
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "nuslerp, vector by vector": """
merge_method: nuslerp
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
parameters: {nuslerp_flatten: false}
""",
    "nuslerp, column by column around the base": """
merge_method: nuslerp
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
""",
    "multislerp": """
merge_method: multislerp
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
  - {model: pool/expert2, parameters: {weight: [{filter: mlp, value: 2}, {value: 0.1}]}}
""",
    "multislerp, around the base": """
merge_method: multislerp
base_model: pool/base
parameters: {normalize_weights: false}
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "karcher": """
merge_method: karcher
models:
  - {model: pool/expert0}
  - {model: pool/expert1}
  - {model: pool/expert2}
""",
    "karcher, few steps": """
merge_method: karcher
parameters: {max_iter: 1, tol: 1.0e-3}
models:
  - {model: pool/expert0}
  - {model: pool/expert1}
  - {model: pool/expert2}
""",
    "model_stock": """
merge_method: model_stock
base_model: pool/base
models:
  - {model: pool/expert0}
  - {model: pool/expert1}
  - {model: pool/expert2}
""",
    "model_stock, row by row": """
merge_method: model_stock
base_model: pool/base
parameters: {filter_wise: true}
models:
  - {model: pool/expert0}
  - {model: pool/expert1}
  - {model: pool/expert2}
""",
    "sce": """
merge_method: sce
base_model: pool/base
models:
  - {model: pool/expert0}
  - {model: pool/expert1}
  - {model: pool/expert2}
""",
    "sce, selected": """
merge_method: sce
base_model: pool/base
parameters: {select_topk: 0.4, int8_mask: true}
models:
  - {model: pool/expert0}
  - {model: pool/expert1}
  - {model: pool/expert2}
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9, density: 0.6, gamma: 0.001}}
""",
    "breadcrumbs_ties": """
merge_method: breadcrumbs_ties
base_model: pool/base
parameters: {density: 0.5, gamma: 0.05, lambda: 0.8}
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "breadcrumbs_ties, normalized": """
merge_method: breadcrumbs_ties
base_model: pool/base
parameters: {density: 0.5, gamma: 0.2, normalize: true}
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "dare_linear, nothing dropped": """
merge_method: dare_linear
base_model: pool/base
parameters: {normalize: true}
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "dare_ties, nothing dropped": """
merge_method: dare_ties
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "della, nothing dropped": """
merge_method: della
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "della, a model that is dropped": """
merge_method: della
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5, density: 0}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    "della_linear, nothing dropped": """
merge_method: della_linear
base_model: pool/base
models:
  - {model: pool/expert0, parameters: {weight: 0.5}}
  - {model: pool/expert1, parameters: {weight: 0.9}}
""",
    **SLICES,
}
