"""Numbers as they lie in memory, inside compiled loops: bfloat16, float16 and float32.

Numba knows no bfloat16 and, on a CPU, no float16: arrays of them are handed over as uint16 and
int16, which tells them apart. Arithmetic is float32; rounding is to the nearest, ties to even.
Everything here compiles to a few vector instructions without branches, or the loops around it
would not be vectorized; Numba's own integers would be widened to 64 bits.
"""

from __future__ import annotations

from typing import Any

import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from evomerge.kernels import LEAST_INFINITE

_I1, _I16, _I32 = ir.IntType(1), ir.IntType(16), ir.IntType(32)
_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
_SIGN, _MAGNITUDE = 0x80000000, 0x7FFFFFFF
_STORED = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}

Elements = NDArray[Any]


def elements(tensor: Tensor) -> Elements:
    """A flat tensor's memory as an array that the loops understand; no copy."""
    if tensor.dtype == torch.float32:
        return tensor.numpy()
    return tensor.view(_STORED[tensor.dtype]).numpy()


def is_known(tensor: Tensor) -> bool:
    """Whether `elements` takes it."""
    return tensor.dtype == torch.float32 or tensor.dtype in _STORED


def fits(greatest_bits: int, dtype: torch.dtype) -> bool:
    """Whether what `greatest` found of float32 numbers is finite when it is rounded to a type."""
    # NaN is behind infinity.
    return greatest_bits < LEAST_INFINITE[dtype]


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_I32, value)


@intrinsic
def load(_context: Any, value: Any) -> Any:
    """The number that an element means, float32."""

    def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (given,) = arguments
        if signature.args[0] == types.uint16:
            return builder.bitcast(builder.shl(builder.zext(given, _I32), _constant(16)), _FLOAT)
        if signature.args[0] == types.int16:
            return builder.fpext(builder.bitcast(given, _HALF), _FLOAT)
        return given

    return types.float32(value), generate


@intrinsic
def rounded(_context: Any, like: Any, value: Any) -> Any:
    """A float32 number rounded to the type of the element `like`, as that type's element."""

    def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, given = arguments
        if signature.return_type == types.uint16:
            bits = builder.bitcast(given, _I32)
            odd = builder.and_(builder.lshr(bits, _constant(16)), _constant(1))
            bits = builder.add(builder.add(bits, _constant(0x7FFF)), odd)
            return builder.trunc(builder.lshr(bits, _constant(16)), _I16)
        if signature.return_type == types.int16:
            return builder.bitcast(builder.fptrunc(given, _HALF), _I16)
        return given

    return like(like, types.float32), generate


@intrinsic
def greatest(_context: Any, bits: Any, value: Any) -> Any:
    """The larger of `bits`, a uint32, and the bits of a float32 number's magnitude.

    Magnitudes are ordered as their bits are, infinity behind every number and NaN behind it.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        seen, given = arguments
        magnitude = builder.and_(builder.bitcast(given, _I32), _constant(_MAGNITUDE))
        return builder.select(builder.icmp_unsigned(">", magnitude, seen), magnitude, seen)

    return types.uint32(types.uint32, types.float32), generate


@intrinsic
def plus(_context: Any, count: Any, condition: Any) -> Any:
    """`count`, a uint32, and one more where the condition holds."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        before, holds = arguments
        return builder.add(before, builder.zext(_bit(builder, holds), _I32))

    return types.uint32(types.uint32, types.boolean), generate


@intrinsic
def sign(_context: Any, value: Any) -> Any:
    """The sign bit of a float32 number, alone in a uint32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        (given,) = arguments
        return builder.and_(builder.bitcast(given, _I32), _constant(_SIGN))

    return types.uint32(types.float32), generate


@intrinsic
def turned(_context: Any, value: Any, sign: Any) -> Any:
    """A float32 number, negated where `sign` has its bit."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        given, bit = arguments
        return builder.bitcast(builder.xor(builder.bitcast(given, _I32), bit), _FLOAT)

    return types.float32(types.float32, types.uint32), generate


@intrinsic
def select(_context: Any, condition: Any, then: Any, otherwise: Any) -> Any:
    """One of two float32 numbers; both are computed."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        holds, first, second = arguments
        return builder.select(_bit(builder, holds), first, second)

    return types.float32(types.boolean, types.float32, types.float32), generate


def _bit(builder: Any, condition: Any) -> Any:
    return condition if condition.type == _I1 else builder.trunc(condition, _I1)
