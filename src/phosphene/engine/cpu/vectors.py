"""SIMD vectors of float32: loads, stores and arithmetic, for kernels that Numba compiles.

LLVM vectorises plain loops by itself. It does not where a loop reads and writes many arrays, since they might overlap,
and it does not keep a block of a matrix product in registers. So first come functions that emit LLVM's instructions for
one vector, and then the intrinsics that kernels call.

Arrays are flat, and a vector's place in one, `at`, is the index of its first element. Only `pointer` and `offset` know
what type an address points to: LLVM's pointers are opaque, and llvmlite's soon will be.
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
"""Floats in a vector."""

FLOAT, INDEX, BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(8)
VECTOR, BYTES = ir.VectorType(FLOAT, LANES), ir.VectorType(BYTE, LANES)
ZERO = Constant(VECTOR, [0.0] * LANES)


class Epilogue(NamedTuple):
    """What is done to each result while it is in a register: out = clamp(result + bias + addend), and the clamp's mask.

    `bias` is [filters]; `addend`, `out` and `mask` have the same layout. If `addend` is empty, nothing is added; if
    `mask` is empty, nothing is clamped.
    """

    bias: Floats
    addend: Floats
    low: float
    high: float
    out: Floats
    mask: Bools


class EpiloguePointers(NamedTuple):
    """An epilogue for one block: addresses into its arrays, null where an array is empty."""

    bias: Value
    addend: Value
    low: Value
    high: Value
    out: Value
    mask: Value


class VectorType(types.Type):
    """Numba's type for a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, VECTOR)


vector = VectorType()


def constant(number: float) -> Value:
    """Return a vector filled with a compile-time constant."""
    return Constant(VECTOR, [float(np.float32(number))] * LANES)


def index(number: int) -> Value:
    """Return a compile-time constant as a 64-bit integer."""
    return Constant(INDEX, number)


def broadcast(builder: IRBuilder, number: Value) -> Value:
    """Return a vector filled with one float."""
    undefined = Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def fma(builder: IRBuilder, factor: Value, other: Value, total: Value) -> Value:
    """Return factor * other + total, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(function, [factor, other, total])


def clamp_vector(builder: IRBuilder, value: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """Return the clamped vector, and its mask: a byte each, 1 where low < value < high."""
    raised = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
    lowered = builder.select(builder.fcmp_ordered(">", raised, high), high, raised)
    return lowered, builder.zext(builder.and_(above, below), BYTES)


def pointer(builder: IRBuilder, address: Value, kind: ir.Type) -> Value:
    """Cast an address, a pointer or an integer, to a pointer to `kind`."""
    to = kind.as_pointer()
    return builder.inttoptr(address, to) if address.type == INDEX else builder.bitcast(address, to)


def offset(builder: IRBuilder, address: Value, count: Value, kind: ir.Type = FLOAT) -> Value:
    """Return the address `count` elements of `kind` further on."""
    return builder.gep(address, [count], source_etype=kind)


def vector_offset(builder: IRBuilder, address: Value, vectors: int, kind: ir.Type = FLOAT) -> Value:
    """Return the address `vectors` vectors further on."""
    return offset(builder, address, index(vectors * LANES), kind)


def strided(builder: IRBuilder, first: Value, step: Value, count: int, kind: ir.Type = FLOAT) -> list[Value]:
    """Return `count` addresses, `step` elements apart, from `first` on."""
    return [offset(builder, first, builder.mul(step, index(k)), kind) for k in range(count)]


def is_not_null(builder: IRBuilder, address: Value) -> Value:
    """Whether an address is not null."""
    return builder.icmp_unsigned("!=", builder.ptrtoint(address, INDEX), index(0))


def load_scalar(builder: IRBuilder, address: Value, kind: ir.Type = FLOAT) -> Value:
    """Load one element."""
    return builder.load(address, typ=kind)


def load_vector(builder: IRBuilder, address: Value, kind: ir.VectorType = VECTOR) -> Value:
    """Load a vector, which need not be aligned."""
    return builder.load(pointer(builder, address, kind), align=1, typ=kind)


def store_vector(builder: IRBuilder, address: Value, value: Value) -> None:
    """Store a vector, which need not be aligned."""
    builder.store(value, pointer(builder, address, value.type), align=1)


def store_nontemporal(builder: IRBuilder, address: Value, value: Value) -> None:
    """Store a vector that is not read again soon, past the caches. It has to be aligned.

    The thread has to call `wait_for_stores` at its end.
    """
    stored = builder.store(value, pointer(builder, address, value.type), align=4 * LANES)
    stored.set_metadata("nontemporal", builder.module.add_metadata([Constant(ir.IntType(32), 1)]))


def store_nontemporal_if_aligned(builder: IRBuilder, address: Value, value: Value) -> None:
    """As `store_nontemporal` where the address is aligned, else as `store_vector`."""
    misalignment = builder.and_(builder.ptrtoint(address, INDEX), index(4 * LANES - 1))
    with builder.if_else(builder.icmp_unsigned("==", misalignment, index(0))) as (aligned, unaligned):
        with aligned:
            store_nontemporal(builder, address, value)
        with unaligned:
            store_vector(builder, address, value)


def address_of(context: Any, builder: IRBuilder, kind: Any, array: Value, at: Value) -> Value:
    """Return the address of element `at` of an array of Numba's type `kind`, or null if the array is empty."""
    struct = context.make_array(kind)(context, builder, array)
    address = offset(builder, struct.data, at, context.get_data_type(kind.dtype))
    null = builder.inttoptr(index(0), address.type)
    return builder.select(builder.icmp_signed("==", struct.nitems, index(0)), null, address)


def fields_of(builder: IRBuilder, kind: Any, value: Value) -> tuple[Any, Any]:
    """Return the fields of a named tuple, and their types, as named tuples of the same class."""
    fields = kind.instance_class
    return fields(*cgutils.unpack_tuple(builder, value)), fields(*kind.types)


def epilogue_pointers(
    context: Any, builder: IRBuilder, kind: Any, epilogue: Value, column: Value, at: Value
) -> EpiloguePointers:
    """Return the addresses of an epilogue's arrays: its bias from `column` on, and the others from `at` on."""
    values, kinds = fields_of(builder, kind, epilogue)

    def address(name: str, first: Value) -> Value:
        return address_of(context, builder, getattr(kinds, name), getattr(values, name), first)

    return EpiloguePointers(
        address("bias", column), address("addend", at), values.low, values.high, address("out", at),
        pointer(builder, address("mask", at), BYTE),
    )  # fmt: skip


@intrinsic
@no_type_check
def load(typing_context, array, at):
    """Load a vector."""

    def generate(context, builder, signature, arguments):
        return load_vector(builder, address_of(context, builder, signature.args[0], *arguments))

    return vector(array, types.intp), generate


@intrinsic
@no_type_check
def load_masked(typing_context, array, at, mask, mask_at):
    """Load a vector, with zeros where `mask` is false. An empty mask is true everywhere."""

    def generate(context, builder, signature, arguments):
        loaded = load_vector(builder, address_of(context, builder, signature.args[0], *arguments[:2]))
        through = pointer(builder, address_of(context, builder, signature.args[2], *arguments[2:]), BYTE)
        value = cgutils.alloca_once_value(builder, loaded)
        with builder.if_then(is_not_null(builder, through)):
            builder.store(masked_vector(builder, loaded, through), value)
        return builder.load(value)

    return vector(array, types.intp, mask, types.intp), generate


def masked_vector(builder: IRBuilder, value: Value, mask: Value) -> Value:
    """Return `value` with zeros where the mask, a byte each at an address, is false."""
    through = builder.icmp_unsigned("!=", load_vector(builder, mask, BYTES), Constant(BYTES, [0] * LANES))
    return builder.select(through, value, ZERO)


@intrinsic
@no_type_check
def store(typing_context, array, at, value):
    """Store a vector."""

    def generate(context, builder, signature, arguments):
        store_vector(builder, address_of(context, builder, signature.args[0], *arguments[:2]), arguments[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
@no_type_check
def store_result(typing_context, value, epilogue, column, at):
    """Apply the epilogue to a vector of results, for the filters from `column` on, and store it `at`."""

    def generate(context, builder, signature, arguments):
        value, epilogue, column, at = arguments
        pointers = epilogue_pointers(context, builder, signature.args[1], epilogue, column, at)
        total = cgutils.alloca_once_value(builder, builder.fadd(value, load_vector(builder, pointers.bias)))
        with builder.if_then(is_not_null(builder, pointers.addend)):
            builder.store(builder.fadd(builder.load(total), load_vector(builder, pointers.addend)), total)
        with builder.if_then(is_not_null(builder, pointers.mask)):
            low, high = broadcast(builder, pointers.low), broadcast(builder, pointers.high)
            clamped, through = clamp_vector(builder, builder.load(total), low, high)
            builder.store(clamped, total)
            store_vector(builder, pointers.mask, through)
        store_nontemporal_if_aligned(builder, pointers.out, builder.load(total))
        return context.get_dummy_value()

    return types.void(value, epilogue, types.intp, types.intp), generate


@intrinsic
@no_type_check
def wait_for_stores(typing_context):
    """Emit a fence: nontemporal stores become visible to other threads before anything that is stored later."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
@no_type_check
def nonzero(typing_context, value):
    """Return which elements of a vector are not zero, a bit each."""

    def generate(context, builder, signature, arguments):
        flags = builder.fcmp_unordered("!=", arguments[0], ZERO)
        return builder.zext(builder.bitcast(flags, ir.IntType(LANES)), INDEX)

    return types.uint64(value), generate


@intrinsic
@no_type_check
def count_ones(typing_context, bits):
    """Return how many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.intp(types.uint64), generate
