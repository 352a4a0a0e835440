"""GPUs to torch, of this machine's memory: whoever mixes them, or with the CPU, is told.

Importing it registers the devices "emulated:0", "emulated:1" and so on in the process. Their
tensors wrap tensors of the CPU, where everything is computed. They know no streams and run no
kernels of ours.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE_NAME = "emulated"

_COPIES = {"aten::copy_", "aten::_copy_from"}
"""A GPU copies from and to the CPU and other GPUs."""

_MAY_MIX = {*_COPIES, "aten::index"}
"""It takes indices from the CPU, too."""


class DeviceTensor(torch.Tensor):
    """A tensor on one of the devices.

    Attributes:
        held: Its numbers, on the CPU.
        index: Which device's it is; to torch's own code all are the first one's.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor, index: int) -> DeviceTensor:
        tensor = torch._C._acc.create_empty_tensor(held.shape, held.dtype)
        tensor.__class__ = cls
        tensor.held, tensor.index = held, index
        return tensor

    @property
    def device(self) -> torch.device:
        """Which of them."""
        return torch.device(DEVICE_NAME, self.index)

    def to(self, *given: Any, **named: Any) -> torch.Tensor:
        """As torch's, which would not tell one device from another."""
        device, dtype, _, _ = torch._C._nn._parse_to(*given, **named)
        dtype = dtype or self.dtype
        if device is None or device == self.device:
            return self if dtype == self.dtype else DeviceTensor(self.held.to(dtype), self.index)
        held = self.held.to(dtype).clone()
        return held if device.type == "cpu" else DeviceTensor(held, device.index or 0)

    @property
    def data(self) -> DeviceTensor:
        """Torch would return one that holds nothing."""
        return self

    @data.setter
    def data(self, other: DeviceTensor) -> None:
        self.held, self.index = other.held, other.index

    def view(self, *shape: Any) -> torch.Tensor:
        """As above, for views in another type."""
        if isinstance(shape[0], torch.dtype):
            return DeviceTensor(self.held.view(shape[0]), self.index)
        return torch.Tensor.view(self, *shape)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, DeviceTensor) else value


def _compute(operator: Any, *args: Any, **options: Any) -> Any:
    name = operator.name().partition(".")[0]
    tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, torch.Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
    if here and name not in _MAY_MIX and any(tensor.dim() for tensor in elsewhere):
        raise RuntimeError(f"{operator.name()} is given tensors of two devices")
    # Torch makes tensors of numbers, on the first device.
    indices = {tensor.index for tensor in here if tensor.dim()}
    if name == "aten::_local_scalar_dense":
        return args[0].held.item()
    if name == "aten::_copy_from":
        source, target = args[:2]
        _held(target).copy_(_held(source))
        return target
    wanted = options.get("device")
    index = max(indices, default=0)
    if name == "aten::index":
        # Torch makes them of lists, on the first device too.
        indices = {index}
    if len(indices) > 1 and name not in _COPIES:
        raise RuntimeError(f"{operator.name()} is given tensors of devices {sorted(indices)}")
    if wanted is not None:
        options["device"] = torch.device("cpu")
        index = torch.device(wanted).index or 0
    args, options = tree_map(_held, (args, options))
    if name in ("aten::view", "aten::_unsafe_view"):
        # Torch does not know how the numbers lie.
        found = args[0].reshape(*args[1:])
    else:
        found = operator(*args, **options)
    if wanted is not None and torch.device(wanted).type == "cpu":
        return found.clone()
    # What is changed in place is given back itself.
    given = {id(tensor.held): tensor for tensor in here}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return given[id(value)] if id(value) in given else DeviceTensor(value, index)

    return tree_map(wrapped, found)


def _register() -> tuple[torch.library.Library, ...]:
    _setup_privateuseone_for_python_backend(DEVICE_NAME)
    module = getattr(torch, DEVICE_NAME)
    type(module).get_amp_supported_dtype = lambda _: [torch.float16, torch.bfloat16]
    others = torch.library.Library("_", "IMPL")
    others.fallback(_compute, dispatch_key="PrivateUse1")
    # Operators that torch would put together from others, which resize their results.
    composite = torch.library.Library("aten", "IMPL")
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in torch._C._dispatch_get_all_op_names():
        space, _, rest = name.partition("::")
        base, _, overload = rest.partition(".")
        explicit = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
        if space != "aten" or not any(has_kernel(name, key) for key in explicit):
            continue
        if rest in ("copy_", "empty.memory_format", "empty_strided"):
            continue
        operator = getattr(getattr(torch.ops.aten, base, None), overload or "default", None)
        if operator is not None and not has_kernel(name, "CompositeImplicitAutograd"):
            composite.impl(rest, functools.partial(_compute, operator), "PrivateUse1")
    # A GPU has one kernel for it; what torch puts together makes a mask on the first device.
    attention = torch.ops.aten.scaled_dot_product_attention.default
    name = attention.name().removeprefix("aten::")
    composite.impl(name, functools.partial(_compute, attention), "PrivateUse1")
    return others, composite


LIBRARIES = _register()
"""As long as they live, so does the device."""
