"""Compile every kernel for a Hopper GPU, as a launch there would, and print what came out.

Run by itself, as Triton either interprets or compiles in a process. Needs no GPU.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import torch
import triton
from triton._C.libtriton import native_specialize_impl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.compiler import ASTSource

from evomerge.kernels import gpu as kernels
from evomerge.kernels.quantiles import Bracket
from evomerge.kernels.support import NUM_FLAGS
from evomerge.merge import launches
from evomerge.methods import METHODS
from evomerge.methods.terms import TrimmedSum
from one_pass import CONFIGS, coefficients, operands

TARGET = GPUTarget("cuda", 90, 32)
BACKEND = CUDABackend(TARGET)
SIZE = 4096
"""A multiple of 16, as tensors that are worth a kernel are."""

found: dict[tuple[str, str], dict[str, Any]] = {}


class Compiled:
    """In the place of a kernel: compiles for the arguments that it is launched with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kernel = getattr(kernels, name)

    def __getitem__(self, grid) -> Compiled:
        return self

    def __call__(self, *args, **options) -> None:
        parameters = self.kernel.params
        compiling = {k: options.pop(k) for k in ("enable_fp_fusion",) if k in options}
        given = dict(zip(self.kernel.arg_names, args, strict=False)) | options
        constants, aligned = {}, {}

        def type_of(value, path):
            if isinstance(value, tuple):
                return tuple(type_of(inner, (*path, i)) for i, inner in enumerate(value))
            kind, about = native_specialize_impl(BACKEND, value, False, True, True)
            if kind == "constexpr":
                constants[path] = value
            elif about == "D":
                aligned[path] = [["tt.divisibility", 16]]
            return kind

        signature = {}
        for number, parameter in enumerate(parameters):
            value = given[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name] = "constexpr"
                constants[number,] = value
            elif parameter.do_not_specialize:
                kind, _ = native_specialize_impl(BACKEND, value, False, False, False)
                signature[parameter.name] = kind
            else:
                signature[parameter.name] = type_of(value, (number,))
        source = ASTSource(self.kernel, signature, constants, aligned)
        assembly = triton.compile(source, target=TARGET, options=compiling).asm["ptx"]
        found[self.name, str(signature)] = {
            "kernel": self.name,
            "loads": re.findall(r"ld\.global\S*", assembly),
            "stores": re.findall(r"st\.global\S*", assembly),
            "fused": re.findall(r"fma\.\S*|\S+\.ftz\S*", assembly),
        }


class Kernels:
    """In the place of the module."""

    def __getattr__(self, name: str) -> Compiled:
        return Compiled(name)


def main() -> None:
    launches.kernels = Kernels()
    flags = torch.zeros(NUM_FLAGS, dtype=torch.int32)
    for config in CONFIGS.values():
        whole, method = operands(size=SIZE), METHODS.make(config)
        terms = method.terms(whole, method.prepare(whole, 3), coefficients(config, 3))
        if isinstance(terms, TrimmedSum):
            # As if something had to be settled.
            terms = replace(terms, brackets=(Bracket(1e-3, 2e-3, 5),) * 3)
        launches.launch(terms, torch.empty(SIZE).bfloat16(), flags)
    kernels.fill_uniforms = Compiled("fill_uniforms")
    kernels.draw_uniforms(1 << 40, SIZE, torch.device("cpu"))
    print(json.dumps(list(found.values())))


main()
