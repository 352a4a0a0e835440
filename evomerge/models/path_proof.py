"""Whether a model's layers run in any order: tried, and not looked up.

A path stands for a stack of its layers: a model of the same class that has a copy of each hop's
layer at its place. On a small random model of the same kind, paths must give the stack's logits bit
for bit, write with the cache what they write without, and come out of an export as they went in.
The model itself is tried once where it is run, without a copy of it.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evomerge.errors import InputError
from evomerge.models.export import export_checkpoint
from evomerge.models.kinds import config_of_told, told
from evomerge.models.modeling_path import PLACES, PathLayers
from evomerge.models.small import WINDOW, small_model
from evomerge.pool import Pool, blocks_prefix, config_of_checkpoint, has_model_code
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.child import run_apart
from evomerge.pool.config_fields import fields_of_order
from evomerge.pool.families import TESTED
from evomerge.pool.layout import layout_of
from evomerge.pool.names import use_model_names
from evomerge.recipe import Hop, LayerPath, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Reload = Callable[[Sequence[Path], Path], str | None]
"""See `reloaded`."""

SEED = 0

NUM_NEW = 4
"""Tokens that the small model writes."""

RELOAD = """
import sys
sys.modules["evomerge"] = None
import torch
from transformers import AutoModelForCausalLM
torch.set_grad_enabled(False)
for folder in sys.argv[1:]:
    given = torch.load(folder + ".pt")
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    # As here: torch multiplies in another order where a gradient is wanted.
    model.requires_grad_(False)
    # A file's map may lie at any address, and sums are rounded by alignment.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    if not torch.equal(model(input_ids=given["ids"], use_cache=False).logits, given["logits"]):
        sys.exit("it gives other logits")
"""
"""Loads exports without this project."""


def prove_paths(pool: Pool) -> None:
    """Refuse a pool whose models' layers cannot be run in another order.

    Raises:
        InputError: They cannot; it says what differed.
    """
    pool.require_layers()
    config = config_of_checkpoint(pool.base)
    config_class: Any = type(config)
    if pool.base.trusted and has_model_code(config):
        reason: str | None = "its class is code of its own folder, of which no small model is made"
    else:
        reason = why_fixed(config_class, told(config))
    if reason is not None:
        raise fixed(pool, reason)


def fixed(pool: Pool, reason: str) -> InputError:
    """What is said of a model whose layers stay where they are."""
    model_type = pool.base.config.get("model_type")
    return InputError(
        f"{pool.base.model_dir}: layers of model_type {model_type!r} cannot be reordered: {reason}"
    )


def differs_itself(
    model: PreTrainedModel, prefix: str, hops: Sequence[nn.Module], follow: Callable[..., None]
) -> str | None:
    """What differs where layers are run as a path, in order and with two swapped.

    Args:
        model: It has `PathLayers`.
        prefix: Their name.
        hops: Layers, none of them twice.
        follow: Runs those at these places as a path.

    Returns:
        None where nothing does.
    """
    path: Any = model.get_submodule(prefix)
    ids = torch.arange(2, 2 + 2 * WINDOW, device=model.device)[None]
    ids = ids % model.config.get_text_config(decoder=True).vocab_size
    order = list(range(len(hops)))
    for what, tried in (("in order", order), ("two swapped", [*order[:2][::-1], *order[2:]])):
        follow(tried)
        ours = _logits(model, ids)
        _put(model, prefix, nn.ModuleList([hops[place] for place in tried]))
        try:
            theirs = _logits(model, ids)
        finally:
            _put(model, prefix, path)
        # Sums of a GPU may be taken in another order each time.
        share = 0.0 if model.device.type == "cpu" else 1e-2
        most = float(theirs.nan_to_num().abs().max()) * share
        if not torch.allclose(ours, theirs, rtol=0.0, atol=most, equal_nan=True):
            return f"a path of its layers, {what}, gives other logits than these layers"
    return None


@lru_cache(maxsize=256)
def why_fixed(
    config_class: type[PreTrainedConfig], as_told: str, reload: Reload | None = None
) -> str | None:
    """Why layers of such a model cannot be reordered; None where they can.

    Args:
        config_class: The class of its configuration.
        as_told: The configuration, by `told`.
        reload: Loads exports again; by default `reloaded`.
    """
    config = config_of_told(config_class, as_told)
    with _quiet_transformers():
        small = small_model(config, SEED)
        if small is None:
            return "no small model of its kind can be made to try it"
        if not blocks_prefix(small):
            return "a small model of its kind has no list of layers"
        # What fails in a class that was not made for it fails in many ways.
        try:
            return _Trial(small, reload or reloaded).differs()
        except Exception as error:  # noqa: BLE001
            return f"it was tried on a small model, which failed: {type(error).__name__}: {error}"


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Let transformers say nothing of a small model that nobody asked for."""
    from transformers.utils import logging

    level, shows = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows:
            logging.enable_progress_bar()


class _Trial:
    """Paths on a small model.

    Args:
        model: Changed in place.
        reload: Loads exports again.
    """

    def __init__(self, model: PreTrainedModel, reload: Reload) -> None:
        self.model = model
        self.reload = reload
        self.prefix = blocks_prefix(model).removesuffix(".")
        self.own = list(model.get_submodule(self.prefix).children())
        self.plain = copy.deepcopy(model)
        draw = torch.Generator().manual_seed(SEED)
        most = model.config.get_text_config(decoder=True).vocab_size
        self.ids = torch.randint(2, most, (2, 2 * WINDOW), generator=draw)

    def differs(self) -> str | None:
        """What differs; None where nothing does."""
        num_layers = len(self.own)
        in_order = list(range(num_layers))
        expected = _logits(self.plain, self.ids)
        layers = PathLayers(self.own)
        has_cache = False
        _put(self.model, self.prefix, layers)
        orders = {
            "in order": in_order,
            "with two layers swapped": [*in_order[:2][::-1], *in_order[2:]],
            "with layers run twice": [0, *in_order, num_layers - 1],
            "backwards": in_order[::-1],
        }
        for what, order in orders.items():
            layers.follow([(self.own[layer], 1.0) for layer in order])
            self._set_order(self.model, order)
            stacked = self._stack(order)
            ours, theirs = _logits(self.model, self.ids), _logits(stacked, self.ids)
            if order == in_order and not torch.equal(ours, expected):
                return f"its own layers as a path give other logits{_apart(ours, expected)}"
            if not torch.equal(ours, theirs):
                return f"a path {what} gives other logits than a stack{_apart(ours, theirs)}"
            unmoved = _logits(self._stack(order, keeps_places=True), self.ids)
            if not torch.equal(unmoved, theirs):
                return f"a layer computes by its place{_apart(unmoved, theirs)}"
            if order == in_order:
                has_cache = _writes_alike(stacked, self.ids)
            elif has_cache and not _writes_alike(self.model, self.ids):
                return f"a path {what} writes with the cache what it does not write without"
        if self.model.config.model_type in TESTED:
            return None
        return self._is_lost(orders)

    def _stack(self, order: Sequence[int], *, keeps_places: bool = False) -> PreTrainedModel:
        """The model with copies of these layers, each told its place."""
        stacked = copy.deepcopy(self.plain)
        own = list(stacked.get_submodule(self.prefix).children())
        copies = nn.ModuleList(copy.deepcopy(own[layer]) for layer in order)
        # Copies read the configuration of the model that they are in.
        for place, layer in enumerate(copies):
            module: Any
            for module in layer.modules():
                for name in PLACES if not keeps_places else ():
                    if hasattr(module, name):
                        setattr(module, name, place)
                if hasattr(module, "config"):
                    module.config = stacked.config
        _put(stacked, self.prefix, copies)
        self._set_order(stacked, order)
        return stacked

    def _set_order(self, model: PreTrainedModel, order: Sequence[int]) -> None:
        for name, value in fields_of_order(self.plain.config, order).items():
            setattr(model.config, name, value)

    def _is_lost(self, orders: dict[str, list[int]]) -> str | None:
        """What differs in exports of these orders that are loaded again."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.plain.save_pretrained(folder / "base")
            base = open_checkpoint("base", folder / "base", str(folder / "base"))
            use_model_names(base, self.plain)
            pool = Pool(base, (), layout_of(self.plain), "float32")
            written = []
            for number, (what, order) in enumerate(orders.items()):
                hops = tuple(Hop(model="base", layer=layer) for layer in order)
                path = LayerPath(outer="base", hops=hops)
                recipe = Recipe(members=pool.members, dtype="float32", path=path)
                out_dir = folder / str(number)
                try:
                    export_checkpoint(pool, recipe, out_dir, "")
                except InputError as error:
                    return f"a path {what} cannot be exported: {str(error).splitlines()[0]}"
                logits = _logits(self._stack(order), self.ids)
                torch.save({"ids": self.ids, "logits": logits}, f"{out_dir}.pt")
                written.append(out_dir)
            lost = self.reload(written, folder)
            return None if lost is None else f"an export of a path, loaded again: {lost}"


def reloaded(folders: Sequence[Path], scratch: Path) -> str | None:
    """Load exports in a process of its own, which does not have this project.

    Args:
        folders: Of the exports; beside each lies a file of token ids and logits.
        scratch: For modules that are loaded.

    Returns:
        What differed or failed; None where nothing did.
    """
    modules = str(scratch / "modules")
    return run_apart(["-c", RELOAD, *map(str, folders)], scratch, HF_MODULES_CACHE=modules)


def _put(model: PreTrainedModel, prefix: str, layers: nn.ModuleList) -> None:
    owner_name, _, name = prefix.rpartition(".")
    setattr(model.get_submodule(owner_name), name, layers)


@torch.inference_mode()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    run: Any = model
    logits: Tensor = run(input_ids=ids, use_cache=False).logits
    return logits


def _writes_alike(model: PreTrainedModel, ids: Tensor) -> bool:
    """Whether greedy texts are the same with the cache and without; not so where it writes none."""
    writer: Any = model
    try:
        with torch.inference_mode():
            written: Tensor = writer.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NUM_NEW,
                min_new_tokens=NUM_NEW,
                do_sample=False,
            )
    # A class that cannot write says so in many ways.
    except Exception:  # noqa: BLE001
        return False
    expected = ids
    for _ in range(NUM_NEW):
        token = _logits(model, expected)[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, token], dim=1)
    return torch.equal(written, expected)


def _apart(ours: Tensor, theirs: Tensor) -> str:
    """How far logits lie apart, in words."""
    if ours.shape != theirs.shape:
        return f" (shape {list(ours.shape)} and {list(theirs.shape)})"
    return f" (by up to {float((ours - theirs).abs().max()):.2g})"
