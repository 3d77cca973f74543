"""Vectors of float32: loads, stores and arithmetic, for kernels that Numba compiles.

LLVM finds vectors in plain loops by itself, but not where many arrays are read and written at once, since it cannot
tell that they do not overlap; and it does not keep a block of a matrix product in the registers. So here are, first,
functions that write LLVM's instructions for one vector, and then what kernels call.

Arrays are flat. Wherever a place in one is asked for, it is the index of the first number of a vector. Only `pointer`
and `offset` say what an address points to: LLVM has forgotten it, and llvmlite is about to.
"""

from typing import Any, NamedTuple, no_type_check

import numpy as np
from llvmlite import ir
from llvmlite.ir import Constant, IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

from phosphene.engine.cpu.kernel import Bools, Floats

HAS_AVX512 = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2]

LANES = 16 if HAS_AVX512 else 8
"""Numbers of a vector."""

FLOAT, INDEX, BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(8)
VECTOR, BYTES = ir.VectorType(FLOAT, LANES), ir.VectorType(BYTE, LANES)
ZERO = Constant(VECTOR, [0.0] * LANES)


class Epilogue(NamedTuple):
    """What is done to each result while it is in a register: out = clamp(result + bias + addend), and its mask.

    `addend`, `out` and `mask` lie alike. An empty `addend` adds nothing, and an empty `mask` means that nothing is
    clamped.
    """

    bias: Floats
    addend: Floats
    low: float
    high: float
    out: Floats
    mask: Bools


class Places(NamedTuple):
    """An epilogue's arrays as addresses, from some place on; there is none of what is empty."""

    bias: Value
    addend: Value
    low: Value
    high: Value
    out: Value
    mask: Value


class VectorType(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, VECTOR)


vector = VectorType()


def constant(number: float) -> Value:
    """Return a vector filled with a number that is known when it is compiled."""
    return Constant(VECTOR, [float(np.float32(number))] * LANES)


def index(number: int) -> Value:
    """Return a whole number that is known when it is compiled."""
    return Constant(INDEX, number)


def spread(builder: IRBuilder, number: Value) -> Value:
    """Fill a vector with one number."""
    unknown = Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(unknown, number, Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, unknown, Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def fused(builder: IRBuilder, factor: Value, other: Value, total: Value) -> Value:
    """Return `factor` times `other` plus `total`, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [factor, other, total])


def clamp_vector(builder: IRBuilder, value: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """Return a clamped vector, and a byte for each of its numbers that was let through."""
    raised = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
    lowered = builder.select(builder.fcmp_ordered(">", raised, high), high, raised)
    return lowered, builder.zext(builder.and_(above, below), BYTES)


def pointer(builder: IRBuilder, place: Value, kind: ir.Type) -> Value:
    """Return an address, or a number that is one, as the address of a kind of value."""
    to = kind.as_pointer()
    return builder.inttoptr(place, to) if place.type == INDEX else builder.bitcast(place, to)


def offset(builder: IRBuilder, place: Value, numbers: Value, kind: ir.Type = FLOAT) -> Value:
    """Return the address some numbers, of a kind, behind another."""
    return builder.gep(place, [numbers], source_etype=kind)


def onward(builder: IRBuilder, place: Value, vectors: int, kind: ir.Type = FLOAT) -> Value:
    """Return the address some vectors behind another."""
    return offset(builder, place, index(vectors * LANES), kind)


def steps(builder: IRBuilder, first: Value, step: Value, count: int, kind: ir.Type = FLOAT) -> list[Value]:
    """Return `count` addresses of numbers, `step` apart."""
    return [offset(builder, first, builder.mul(step, index(k)), kind) for k in range(count)]


def is_any(builder: IRBuilder, place: Value) -> Value:
    """Whether an address is one of something."""
    return builder.icmp_unsigned("!=", builder.ptrtoint(place, INDEX), index(0))


def load_number(builder: IRBuilder, place: Value, kind: ir.Type = FLOAT) -> Value:
    """Read a number."""
    return builder.load(place, typ=kind)


def load_from(builder: IRBuilder, place: Value, kind: ir.VectorType = VECTOR) -> Value:
    """Read a vector, which need not be aligned."""
    return builder.load(pointer(builder, place, kind), align=1, typ=kind)


def store_at(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector, which need not be aligned."""
    builder.store(value, pointer(builder, place, value.type), align=1)


def store_past_caches(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector that is not read again soon, and leave the caches to others. It has to be aligned.

    A thread that did calls `wait_for_stores` at its end.
    """
    stored = builder.store(value, pointer(builder, place, value.type), align=4 * LANES)
    stored.set_metadata("nontemporal", builder.module.add_metadata([Constant(ir.IntType(32), 1)]))


def store_past_caches_if_aligned(builder: IRBuilder, place: Value, value: Value) -> None:
    """As `store_past_caches`, or `store_at` where it is not aligned."""
    last = builder.and_(builder.ptrtoint(place, INDEX), index(4 * LANES - 1))
    with builder.if_else(builder.icmp_unsigned("==", last, index(0))) as (aligned, other):
        with aligned:
            store_past_caches(builder, place, value)
        with other:
            store_at(builder, place, value)


def address_of(context: Any, builder: IRBuilder, kind: Any, array: Value, at: Value) -> Value:
    """Return the address of a place of an array, or none if the array is empty."""
    made = context.make_array(kind)(context, builder, array)
    place = offset(builder, made.data, at, context.get_data_type(kind.dtype))
    none = builder.inttoptr(index(0), place.type)
    return builder.select(builder.icmp_signed("==", made.nitems, index(0)), none, place)


def fields_of(builder: IRBuilder, kind: Any, value: Value) -> tuple[Any, Any]:
    """Return the values and the types of a named tuple, each by name."""
    made = kind.instance_class
    return made(*cgutils.unpack_tuple(builder, value)), made(*kind.types)


def places_of(context: Any, builder: IRBuilder, kind: Any, epilogue: Value, column: Value, at: Value) -> Places:
    """Return where an epilogue's arrays are: its bias from `column` on, and the others from `at` on."""
    values, kinds = fields_of(builder, kind, epilogue)

    def address(name: str, place: Value) -> Value:
        return address_of(context, builder, getattr(kinds, name), getattr(values, name), place)

    return Places(
        address("bias", column), address("addend", at), values.low, values.high, address("out", at),
        pointer(builder, address("mask", at), BYTE),
    )  # fmt: skip


@intrinsic
@no_type_check
def load(typing_context, array, at):
    """Return a vector."""

    def generate(context, builder, signature, arguments):
        return load_from(builder, address_of(context, builder, signature.args[0], *arguments))

    return vector(array, types.intp), generate


@intrinsic
@no_type_check
def load_masked(typing_context, array, at, mask, mask_at):
    """Return a vector with zeros where `mask` is false; an empty one lets all through."""

    def generate(context, builder, signature, arguments):
        loaded = load_from(builder, address_of(context, builder, signature.args[0], *arguments[:2]))
        through = pointer(builder, address_of(context, builder, signature.args[2], *arguments[2:]), BYTE)
        value = cgutils.alloca_once_value(builder, loaded)
        with builder.if_then(is_any(builder, through)):
            builder.store(masked_vector(builder, loaded, through), value)
        return builder.load(value)

    return vector(array, types.intp, mask, types.intp), generate


def masked_vector(builder: IRBuilder, value: Value, mask: Value) -> Value:
    """Return a vector with zeros where the mask at an address is false."""
    through = builder.icmp_unsigned("!=", load_from(builder, mask, BYTES), Constant(BYTES, [0] * LANES))
    return builder.select(through, value, ZERO)


@intrinsic
@no_type_check
def store(typing_context, array, at, value):
    """Write a vector."""

    def generate(context, builder, signature, arguments):
        store_at(builder, address_of(context, builder, signature.args[0], *arguments[:2]), arguments[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
@no_type_check
def store_result(typing_context, value, epilogue, column, at):
    """Write a vector of results by way of the epilogue, for the filters from `column` on."""

    def generate(context, builder, signature, arguments):
        value, epilogue, column, at = arguments
        places = places_of(context, builder, signature.args[1], epilogue, column, at)
        total = cgutils.alloca_once_value(builder, builder.fadd(value, load_from(builder, places.bias)))
        with builder.if_then(is_any(builder, places.addend)):
            builder.store(builder.fadd(builder.load(total), load_from(builder, places.addend)), total)
        with builder.if_then(is_any(builder, places.mask)):
            low, high = spread(builder, places.low), spread(builder, places.high)
            clamped, through = clamp_vector(builder, builder.load(total), low, high)
            builder.store(clamped, total)
            store_at(builder, places.mask, through)
        store_past_caches_if_aligned(builder, places.out, builder.load(total))
        return context.get_dummy_value()

    return types.void(value, epilogue, types.intp, types.intp), generate


@intrinsic
@no_type_check
def wait_for_stores(typing_context):
    """Let all that was written past the caches be there for other threads, before they are told that it is."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
@no_type_check
def nonzero(typing_context, value):
    """Return which numbers of a vector are not zero, a bit each."""

    def generate(context, builder, signature, arguments):
        found = builder.fcmp_unordered("!=", arguments[0], ZERO)
        return builder.zext(builder.bitcast(found, ir.IntType(LANES)), INDEX)

    return types.uint64(value), generate


@intrinsic
@no_type_check
def count_ones(typing_context, bits):
    """Return how many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.intp(types.uint64), generate
