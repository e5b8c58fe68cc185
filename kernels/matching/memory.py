"""Typed reads and writes at addresses, for compiled code only.

numba counts references of arrays at every call of a helper, two locked instructions for each array,
which is more than the work of most helpers here; plain addresses pass for free. Whoever takes an
array's address keeps the array alive and stays inside it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Int = Any
"""int64 in compiled code; also an address."""
Word = Any
"""uint64 in compiled code."""
Array = Any
"""A contiguous NumPy array in compiled code."""

_WORD = ir.IntType(64)
_BYTE = ir.IntType(8)


def _pointer(builder: Any, base: Any, index: Any, bits: int) -> Any:
    pointer = builder.inttoptr(base, ir.IntType(bits).as_pointer())
    return builder.gep(pointer, [index])


def _reader(bits: int, signed: bool) -> Any:
    def read(typingctx: Any, base: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(builder, args[0], args[1], bits))
            if bits == 64:
                return value
            return builder.sext(value, _WORD) if signed else builder.zext(value, _WORD)

        result = types.uint64 if bits == 64 else types.int64
        return result(types.int64, types.int64), codegen

    return intrinsic(read)


def _writer(bits: int) -> Any:
    def write(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = args[2] if bits == 64 else builder.trunc(args[2], ir.IntType(bits))
            builder.store(value, _pointer(builder, args[0], args[1], bits))
            return context.get_dummy_value()

        kind = types.uint64 if bits == 64 else types.int64
        return types.none(types.int64, types.int64, kind), codegen

    return intrinsic(write)


get8 = _reader(8, signed=False)
"""Element `index` of a uint8 array at an address, as int64."""
get32 = _reader(32, signed=True)
"""Element `index` of an int32 array at an address, as int64."""
get16 = _reader(16, signed=False)
"""Element `index` of a uint16 array at an address, as int64."""
getu32 = _reader(32, signed=False)
"""Element `index` of a uint32 array at an address, as int64."""
get64 = _reader(64, signed=False)
"""Element `index` of a uint64 array at an address."""
put8 = _writer(8)
"""Set element `index` of a uint8 array at an address."""
put32 = _writer(32)
"""Set element `index` of an int32 array at an address."""
put64 = _writer(64)
"""Set element `index` of a uint64 array at an address."""


@intrinsic
def load64(typingctx: Any, address: Any) -> Any:
    """The 8 bytes at any address as a uint64 (little-endian machines)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _WORD.as_pointer()), align=1)

    return types.uint64(types.int64), codegen


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address; never faults."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), flag, flag, flag])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(
            function, [builder.inttoptr(args[0], _BYTE.as_pointer()), flag(0), flag(3), flag(1)]
        )
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@intrinsic
def trailing_zeros(typingctx: Any, value: Any) -> Any:
    """Zero bits below the lowest set bit of a uint64; 64 for zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen
