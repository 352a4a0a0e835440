"""Every decoder family of transformers: does it open, merge, come back, and run in any order?

For each model type that has a causal language model class, a base and two experts are made, small
and random, of the class's default configuration (where that makes no model, with settings that do).
Counted are families

- families: that could be made small;
- open: whose pool opens;
- linear_exact: whose average of two experts is, bit for bit, that of what transformers loads;
- reload: whose export transformers loads whole, with the tensors that were built;
- logits_equal: whose export, loaded again, has the logits of the model that would be scored;
- paths: whose layers run in any order, by the proof that `evomerge check` makes.

Multimodal models are not tried, and listed apart. `--page FILE` writes docs/families.md.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import describe_machine, make_parser, print_table, size_of, write_figures

SIZES = {
    "quick": ("llama", "gpt2", "mixtral", "falcon", "mamba", "opt"),
    "bar": None,
    "full": None,
}
"""Model types; None: all."""

OF_TEXT = frozenset({"text_config", "attn_config", "ffn_config"})
"""Parts of a configuration that are of the text model; DBRX and MPT have some for their layers."""

SETTINGS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "cohere_compass_text": {
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 10,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 50000.0}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    "dbrx": {
        "d_model": 6144,
        "n_heads": 48,
        "n_layers": 40,
        "max_seq_len": 32768,
        "vocab_size": 100352,
        "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "rope_theta": 500000},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
    },
    "deepseek_v2": {
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "num_experts_per_tok": 6,
        "q_lora_rank": None,
        "topk_method": "greedy",
    },
    "dots1": {
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 1408,
        "n_group": 1,
        "n_routed_experts": 128,
        "n_shared_experts": 2,
        "norm_topk_prob": True,
        "num_experts_per_tok": 6,
        "topk_group": 1,
    },
    "granitemoehybrid": {
        "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4,
        "num_hidden_layers": 40,
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "num_local_experts": 64,
        "num_experts_per_tok": 6,
        "mamba_n_heads": 48,
        "mamba_d_head": 64,
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 64, "moe_topk": 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 8, "num_hidden_layers": 24},
    "mamba2": {"hidden_size": 2048, "num_heads": 64, "head_dim": 64, "n_groups": 1},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8, "num_attention_heads": 24, "hidden_size": 3072},
    "qwen4_exp_text": {
        "indexer_n_heads": 16,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 64,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
"""Of families whose class has no defaults for them."""

COUNTED = ("open", "linear_exact", "reload", "logits_equal", "paths")
MEMBERS = ("base", "expert0", "expert1")


@dataclass
class Found:
    """What became of a family.

    Attributes:
        model_type: As config.json names it.
        is_multimodal: Whether it has other parts than text, and is not tried.
        is_made: Whether it could be made small.
        passed: Of the questions above.
        failed: Why not, by question.
        num_layers: Of the small model.
        components: How many tensors there are of each kind, in the layers.
    """

    model_type: str
    is_multimodal: bool = False
    is_made: bool = False
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    num_layers: int = 0
    components: dict[str, int] = field(default_factory=dict)


def main() -> None:
    """Try every family."""
    parser = make_parser((__doc__ or "").split("\n\n")[0])
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a page of all families")
    arguments = parser.parse_args()
    wanted = SIZES[size_of(arguments)] or all_types()
    rows = []
    for found in tried(wanted):
        rows.append(found)
        failed = "; ".join(f"{key}: {reason}" for key, reason in found.failed.items())
        print(f"{len(rows)}/{len(wanted)} {found.model_type}: {failed or 'all'}", flush=True)
    made = [found for found in rows if found.is_made]
    counts = {key: sum(key in found.passed for found in made) for key in COUNTED}
    cells = [[key, str(count)] for key, count in {"families": len(made), **counts}.items()]
    print_table("Families of decoders", ["", "families"], cells)
    if arguments.page is not None:
        arguments.page.write_text(page(rows), encoding="utf-8")
    figures = {
        "families": len(made),
        **counts,
        "multimodal": [found.model_type for found in rows if found.is_multimodal],
        "failed": {found.model_type: found.failed for found in rows if found.failed},
        "machine": describe_machine(),
    }
    write_figures(figures, arguments.json)


def all_types() -> tuple[str, ...]:
    """Model types with a causal language model class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tried(model_types: Sequence[str]) -> Iterator[Found]:
    """What became of each, one after another in processes of their own."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn) as pool:
        for model_type, text in zip(model_types, pool.map(try_family, model_types), strict=True):
            yield Found(**json.loads(text)) if text else Found(model_type)


def try_family(model_type: str) -> str:
    """A family's `Found`, in JSON."""
    import logging

    logging.disable()
    found = Found(model_type)
    with tempfile.TemporaryDirectory() as name:
        # Classes fail in ways of their own.
        try:
            _try(found, Path(name))
        except Exception as error:  # noqa: BLE001
            question = next(key for key in COUNTED if key not in found.passed)
            said = str(error).splitlines()[0].replace(f"{name}/", "")[:300]
            found.failed[question] = f"{type(error).__name__}: {said}"
    gc.collect()
    return json.dumps(asdict(found))


def _try(found: Found, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from evomerge.merge import Engine
    from evomerge.models import export_checkpoint
    from evomerge.models.candidates import Candidates
    from evomerge.models.kinds import told
    from evomerge.models.path_proof import why_fixed
    from evomerge.models.resident import ResidentModel
    from evomerge.models.small import small_model
    from evomerge.pool import PoolConfig, config_of_checkpoint, open_pool
    from evomerge.space import recipes

    torch.set_num_threads(1)
    config = CONFIG_MAPPING[found.model_type](**SETTINGS.get(found.model_type, {}))
    if not OF_TEXT.issuperset(getattr(config, "sub_configs", {})):
        found.is_multimodal = True
        return
    for seed, name in enumerate(MEMBERS):
        model = small_model(config, seed)
        if model is None:
            found.failed["made"] = "no small model can be made of its configuration"
            return
        model.save_pretrained(folder / name)
    found.is_made = True
    experts = tuple(str(folder / name) for name in MEMBERS[1:])
    pool = open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)
    found.passed.append("open")
    found.num_layers = pool.layout.num_layers
    inside = (place for place in pool.layout.places.values() if place.layer is not None)
    found.components = dict(Counter(place.component for place in inside))

    first, second = (
        AutoModelForCausalLM.from_pretrained(folder / name).state_dict() for name in MEMBERS[1:]
    )
    recipe = recipes.uniform(pool)
    built = dict(Engine(pool).tensors(recipe))
    if all(torch.equal(tensor, (first[n] + second[n]) / 2) for n, tensor in built.items()):
        found.passed.append("linear_exact")
    else:
        found.failed["linear_exact"] = "the average differs"

    export_checkpoint(pool, recipe, folder / "out", "")
    model, info = AutoModelForCausalLM.from_pretrained(folder / "out", output_loading_info=True)
    loaded = model.state_dict()
    lost = [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]]
    if not lost and all(torch.equal(loaded[n], tensor) for n, tensor in built.items()):
        found.passed.append("reload")
    else:
        found.failed["reload"] = f"{lost or 'tensors differ'}"

    cpu = torch.device("cpu")
    resident = ResidentModel(pool, cpu)
    Candidates(pool, cpu, resident).load(recipe)
    # A file's map may lie at any address, and sums are rounded by alignment; and torch multiplies
    # in another order where a gradient is wanted.
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    ids = torch.arange(2, 50)[None]
    with torch.no_grad():
        ours, theirs = (each.eval()(ids).logits for each in (resident.model, model))
    if torch.equal(ours, theirs):
        found.passed.append("logits_equal")
    else:
        found.failed["logits_equal"] = f"by {float((ours - theirs).abs().max()):.2g}"

    base = config_of_checkpoint(pool.base)
    reason = why_fixed(type(base), told(base), reloaded)
    if reason is None:
        found.passed.append("paths")
    else:
        found.failed["paths"] = reason


HEAD_PATH = Path(__file__).parent.parent / "docs/families_head.md"

LINE = (
    "Not in the table are model types with other parts than text: {names}. Such a model is refused "
    "unless transformers has one class for all its tensors.\n"
)

UNMADE = "Nor are those of which no small model could be made: {names}.\n"


def reloaded(folders: Sequence[Path], scratch: Path) -> str | None:
    """See `evomerge.models.path_proof.reloaded`.

    A process forks for each, which has imported nothing but torch and transformers: the imports
    would take most of the time.
    """
    global _server
    if _server is None:
        environment = {**os.environ, "PYTHONPATH": ""}
        _server = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    assert _server.stdin is not None and _server.stdout is not None
    asked = {"folders": [str(folder) for folder in folders], "scratch": str(scratch)}
    from evomerge.models.path_proof import RELOAD

    _server.stdin.write(json.dumps({**asked, "code": RELOAD}) + "\n")
    _server.stdin.flush()
    answer = json.loads(_server.stdout.readline())
    return None if answer == "" else str(answer)


_server: subprocess.Popen[str] | None = None

SERVE = """
import json, os, sys, traceback
import torch, transformers, transformers.models.auto.modeling_auto

sys.modules["evomerge"] = None
torch.set_num_threads(1)
for line in sys.stdin:
    asked = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            sys.argv = ["reload", *asked["folders"]]
            from transformers import dynamic_module_utils
            dynamic_module_utils.HF_MODULES_CACHE = asked["scratch"] + "/modules"
            os.chdir(asked["scratch"])
            exec(asked["code"], {"__name__": "__main__"})
        except SystemExit as error:
            said = str(error.code)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"[:200]
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    said = b""
    while part := os.read(reading, 65536):
        said += part
    os.close(reading)
    os.waitpid(child, 0)
    print(json.dumps(said.decode()), flush=True)
"""


def page(rows: Sequence[Found]) -> str:
    """docs/families.md."""
    import transformers

    lines = ["| model type | merge | kinds in layers | paths |", "| --- | --- | --- | --- |"]
    notes = []
    for found in sorted(rows, key=lambda each: each.model_type):
        if not found.is_made:
            continue
        merges = all(key in found.passed for key in COUNTED[:-1])
        kinds = ", ".join(found.components) or "none"
        marks = ["yes" if each else "no" for each in (merges, "paths" in found.passed)]
        lines.append(f"| `{found.model_type}` | {marks[0]} | {kinds} | {marks[1]} |")
        for question, reason in found.failed.items():
            notes.append(f"- `{found.model_type}`, {question}: {reason}")
    aside = ", ".join(f"`{each.model_type}`" for each in rows if each.is_multimodal)
    reasons = "## What failed, and why\n\n" + "\n".join(notes) + "\n\n" if notes else ""
    head = HEAD_PATH.read_text(encoding="utf-8").format(version=transformers.__version__)
    unmade = [f"`{each.model_type}`" for each in rows if not (each.is_made or each.is_multimodal)]
    ends = LINE.format(names=aside) + "\n" + UNMADE.format(names=", ".join(unmade))
    return head + "\n".join(lines) + "\n\n" + reasons + ends


if __name__ == "__main__":
    main()
