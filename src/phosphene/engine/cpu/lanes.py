"""Vectors of float32 in LLVM's language: what `vectors` and `products` put their operations together of.

LLVM finds vectors in plain loops by itself, but not where many arrays are read and written at once, since it cannot
tell that they do not overlap; and it does not keep a block of a matrix product in the registers.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.ir import Constant, IRBuilder, Value
from numba.core import cgutils
from numba.core.registry import cpu_target

HAS_AVX512 = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2]

LANES = 16 if HAS_AVX512 else 8
"""Numbers of a vector."""

FLOAT, INDEX, BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(8)
VECTOR, BYTES = ir.VectorType(FLOAT, LANES), ir.VectorType(BYTE, LANES)
NOTHING = Constant(VECTOR, [0.0] * LANES)


def clamp(builder: IRBuilder, value: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """Return a clamped vector, and a byte for each of its numbers that was let through."""
    raised = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
    lowered = builder.select(builder.fcmp_ordered(">", raised, high), high, raised)
    return lowered, builder.zext(builder.and_(above, below), BYTES)


def constant(number: float) -> Value:
    """Return a vector filled with a number that is known when it is compiled."""
    return Constant(VECTOR, [float(np.float32(number))] * LANES)


def fused(builder: IRBuilder, factor: Value, other: Value, total: Value) -> Value:
    """Return `factor` times `other` plus `total`, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [factor, other, total])


def spread(builder: IRBuilder, number: Value) -> Value:
    """Fill a vector with one number."""
    unknown = Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(unknown, number, Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, unknown, Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def address_of(context: Any, builder: IRBuilder, kind: Any, array: Value, at: Value) -> Value:
    """Return the address of a place of an array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def address_if_any(context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int) -> Value:
    """Return the address of a place of an array, or none if the array is empty."""
    made = context.make_array(signature.args[array])(context, builder, arguments[array])
    place = builder.gep(made.data, [arguments[at]])
    none = builder.inttoptr(Constant(INDEX, 0), place.type)
    return builder.select(builder.icmp_signed("==", made.nitems, Constant(INDEX, 0)), none, place)


def addresses_of(
    context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int, step: Value, count: int
) -> list[Value]:
    """Return the addresses of `count` places of an array, a step apart, given which arguments say where."""
    first = address_of(context, builder, signature.args[array], arguments[array], arguments[at])
    return steps(builder, first, step, count)


def steps(builder: IRBuilder, first: Value, step: Value, count: int) -> list[Value]:
    """Return `count` addresses, `step` numbers apart."""
    return [builder.gep(first, [builder.mul(step, Constant(INDEX, k))]) for k in range(count)]


def onward(builder: IRBuilder, place: Value, vectors: int) -> Value:
    """Return the address some vectors behind another."""
    return builder.gep(place, [Constant(INDEX, vectors * LANES)])


def load_from(builder: IRBuilder, place: Value, kind: ir.VectorType) -> Value:
    """Read a vector, which need not be aligned."""
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 1
    return loaded


def store_at(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector, which need not be aligned."""
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)


def store_past_caches(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector that is not read again soon, and leave the caches to others. It has to be aligned.

    A thread that did calls `wait_for_stores` at its end.
    """
    stored = builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=4 * LANES)
    stored.set_metadata("nontemporal", builder.module.add_metadata([Constant(ir.IntType(32), 1)]))


def store_past_caches_if_aligned(builder: IRBuilder, place: Value, value: Value) -> None:
    """As `store_past_caches`, or `store_at` where it is not aligned."""
    last = builder.and_(builder.ptrtoint(place, INDEX), Constant(INDEX, 4 * LANES - 1))
    with builder.if_else(builder.icmp_unsigned("==", last, Constant(INDEX, 0))) as (aligned, other):
        with aligned:
            store_past_caches(builder, place, value)
        with other:
            store_at(builder, place, value)
