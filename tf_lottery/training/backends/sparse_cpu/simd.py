"""This module knows vectors of one number per example, as numba compiles them.

Numba has no such type, and plain loops over examples leave their sums in
memory, because LLVM cannot tell that arrays do not overlap. A value of the type
`lanes` stays in registers.

Every function here becomes instructions inside the kernel that uses it; none is
ever called. No part of fast math is allowed: every sum has one order and every
product is rounded, so that any compilation on any CPU gives the same bits. It
would buy nothing, as the kernel waits for loads.
"""

from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from tf_lottery.training.backends.sparse_cpu.kernel_types import LANES

_WIDTH = 8
_INT, _LONG, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_EIGHT = ir.VectorType(_FLOAT, _WIDTH)
_LANES = ir.VectorType(_FLOAT, LANES)
_LANES_OF_INT = ir.VectorType(_INT, LANES)


class _Lanes(types.Type):
    """Numba's name for LANES float32 in registers."""

    def __init__(self) -> None:
        super().__init__(name=f"lanes{LANES}")


lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    """Says that LLVM holds them as one vector."""

    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _LANES)


def _inlined(emit: Callable[..., Any], result: Any, *taken: Any) -> Any:
    """Returns what an intrinsic returns: its signature and its code.

    Args:
        emit: From the LLVM builder and the arguments to the result; arrays
            arrive as structures with `data` and `shape`.
        result: Numba type of the result.
        *taken: Numba types of the arguments.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [
            context.make_array(kind)(context, builder, value)
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args, args, strict=True)
        ]
        value = emit(builder, *values)
        return context.get_dummy_value() if value is None else value

    return result(*taken), code


def _all(number: float) -> ir.Constant:
    return ir.Constant(_LANES, [number] * LANES)


def _spread(builder: Any, number: Any) -> Any:
    vector = builder.insert_element(_all(0.0), number, ir.Constant(_INT, 0))
    return _pick(builder, vector, vector, [0] * LANES)


def _pick(builder: Any, a: Any, b: Any, which: Iterable[int]) -> Any:
    chosen = list(which)
    kind = ir.VectorType(_INT, len(chosen))
    return builder.shuffle_vector(a, b, ir.Constant(kind, chosen))


def _at(builder: Any, array: Any, index: Any, kind: ir.Type) -> Any:
    return builder.bitcast(builder.gep(array.data, [index]), kind.as_pointer())


def _row(builder: Any, array: Any, row: Any) -> Any:
    index = builder.mul(row, ir.Constant(_LONG, LANES))
    return _at(builder, array, index, _LANES)


@intrinsic
def load(context: Any, array: Any, row: Any) -> Any:
    """Returns a row of a float32 array `[rows, LANES]`."""

    def emit(builder: Any, array: Any, row: Any) -> Any:
        return builder.load(_row(builder, array, row), align=4, typ=_LANES)

    return _inlined(emit, lanes, array, types.int64)


@intrinsic
def store(context: Any, array: Any, row: Any, vector: Any) -> Any:
    """Writes a row of a float32 array `[rows, LANES]`."""

    def emit(builder: Any, array: Any, row: Any, vector: Any) -> None:
        builder.store(vector, _row(builder, array, row), align=4)

    return _inlined(emit, types.void, array, types.int64, lanes)


@intrinsic
def zeros(context: Any) -> Any:
    """Returns zeros."""
    return _inlined(lambda builder: _all(0.0), lanes)


@intrinsic
def plus(context: Any, a: Any, b: Any) -> Any:
    """Returns `a + b`."""
    return _inlined(lambda builder, a, b: builder.fadd(a, b), lanes, a, b)


@intrinsic
def minus(context: Any, a: Any, b: Any) -> Any:
    """Returns `a - b`."""
    return _inlined(lambda builder, a, b: builder.fsub(a, b), lanes, a, b)


@intrinsic
def times(context: Any, a: Any, b: Any) -> Any:
    """Returns `a * b`."""
    return _inlined(lambda builder, a, b: builder.fmul(a, b), lanes, a, b)


@intrinsic
def over(context: Any, a: Any, b: Any) -> Any:
    """Returns `a / b`."""
    return _inlined(lambda builder, a, b: builder.fdiv(a, b), lanes, a, b)


def _times_plus(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b), c)


@intrinsic
def plus_scaled(context: Any, total: Any, factor: Any, vector: Any) -> Any:
    """Returns `total + factor * vector`."""

    def emit(builder: Any, total: Any, factor: Any, vector: Any) -> Any:
        return _times_plus(builder, _spread(builder, factor), vector, total)

    return _inlined(emit, lanes, lanes, types.float32, lanes)


@intrinsic
def maximum(context: Any, a: Any, b: Any) -> Any:
    """Returns the larger; b where a is nan, a where b is."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_unordered("<", a, b), b, a)

    return _inlined(emit, lanes, lanes, lanes)


@intrinsic
def rectified(context: Any, vector: Any) -> Any:
    """Returns `max(vector, 0)`, and nan where it is nan."""

    def emit(builder: Any, vector: Any) -> Any:
        negative = builder.fcmp_ordered("<", vector, _all(0.0))
        return builder.select(negative, _all(0.0), vector)

    return _inlined(emit, lanes, lanes)


@intrinsic
def where_positive(context: Any, condition: Any, vector: Any) -> Any:
    """Returns the vector, and 0 where the condition is not above 0."""

    def emit(builder: Any, condition: Any, vector: Any) -> Any:
        positive = builder.fcmp_ordered(">", condition, _all(0.0))
        return builder.select(positive, vector, _all(0.0))

    return _inlined(emit, lanes, lanes, lanes)


@intrinsic
def exponential(context: Any, vector: Any) -> Any:
    """Returns e to the power of the vector, which must not be above 0.

    Two to a whole power, times a polynomial (`expf` of Moshier's Cephes
    library; within 2 units in the last place). Below -87 it returns 0.
    """

    def emit(builder: Any, vector: Any) -> Any:
        low = builder.fcmp_ordered("<", vector, _all(-87.0))
        # Else the conversion to int is undefined for nan and for -inf.
        safe = builder.select(
            builder.fcmp_ordered(">=", vector, _all(-87.0)), vector, _all(-87.0)
        )
        whole = builder.fptosi(
            _times_plus(builder, safe, _all(1.44269504088896341), _all(-0.5)),
            _LANES_OF_INT,
        )
        n = builder.sitofp(whole, _LANES)
        rest = _times_plus(builder, n, _all(-0.693359375), vector)
        rest = _times_plus(builder, n, _all(2.12194440e-4), rest)
        value = _all(1.9875691500e-4)
        for coefficient in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
            1.0,
            1.0,
        ):
            value = _times_plus(builder, value, rest, _all(coefficient))
        exponent = builder.shl(
            builder.add(whole, ir.Constant(_LANES_OF_INT, [127] * LANES)),
            ir.Constant(_LANES_OF_INT, [23] * LANES),
        )
        power = builder.fmul(value, builder.bitcast(exponent, _LANES))
        return builder.select(low, _all(0.0), power)

    return _inlined(emit, lanes, lanes)


@intrinsic
def dot(context: Any, a: Any, b: Any) -> Any:
    """Returns the dot product, summed in the order of `add_dots`."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        total = _products(builder, a, b)
        for even in ([0, 2, 4, 6], [0, 2]):
            odd = [lane + 1 for lane in even]
            total = builder.fadd(
                _pick(builder, total, total, even),
                _pick(builder, total, total, odd),
            )
        low, high = (
            builder.extract_element(total, ir.Constant(_INT, i)) for i in (0, 1)
        )
        return builder.fadd(low, high)

    return _inlined(emit, types.float32, lanes, lanes)


@intrinsic
def add_dots(
    context: Any, sums: Any, at: Any, v: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """Adds the dot products of `v` with a, b, c and d to `sums[at : at + 4]`.

    Four at a time share their last additions, which go across lanes.
    """

    def emit(builder: Any, sums: Any, at: Any, v: Any, *others: Any) -> None:
        a, b, c, d = (_products(builder, v, other) for other in others)
        eight = _neighbours(
            builder, _neighbours(builder, a, b), _neighbours(builder, c, d)
        )
        four = builder.fadd(
            _pick(builder, eight, eight, range(4)),
            _pick(builder, eight, eight, range(4, 8)),
        )
        place = _at(builder, sums, at, four.type)
        before = builder.load(place, align=4, typ=four.type)
        builder.store(builder.fadd(before, four), place, align=4)

    return _inlined(emit, types.void, sums, types.int64, *[lanes] * 5)


def _products(builder: Any, a: Any, b: Any) -> Any:
    """Returns eight sums of products, each over every eighth lane."""
    total = None
    for start in range(0, LANES, _WIDTH):
        x, y = (
            _pick(builder, vector, vector, range(start, start + _WIDTH))
            for vector in (a, b)
        )
        if total is None:
            total = builder.fmul(x, y)
        else:
            total = _times_plus(builder, x, y, total)
    return total


def _neighbours(builder: Any, a: Any, b: Any) -> Any:
    """Returns the sums of neighbours in a and in b, two of each by turns."""
    even = [0, 2, 8, 10, 4, 6, 12, 14]
    odd = [lane + 1 for lane in even]
    return builder.fadd(_pick(builder, a, b, even), _pick(builder, a, b, odd))


@intrinsic
def copy_turned(
    context: Any, x: Any, examples: Any, lane: Any, feature: Any, rows: Any
) -> Any:
    """Copies eight features of eight examples, to one lane an example.

    `rows[feature + i, lane + j] = x[examples[lane + j], feature + i]`.
    """

    def emit(
        builder: Any, x: Any, examples: Any, lane: Any, feature: Any, rows: Any
    ) -> None:
        features = builder.extract_value(x.shape, 1)
        block = []
        for j in range(_WIDTH):
            at = builder.add(lane, ir.Constant(_LONG, j))
            example = builder.load(_at(builder, examples, at, _LONG), typ=_LONG)
            start = builder.add(builder.mul(example, features), feature)
            place = _at(builder, x, start, _EIGHT)
            block.append(builder.load(place, align=4, typ=_EIGHT))
        for i, vector in enumerate(_transposed(builder, block)):
            row = builder.add(feature, ir.Constant(_LONG, i))
            start = builder.mul(row, ir.Constant(_LONG, LANES))
            place = _at(builder, rows, builder.add(start, lane), _EIGHT)
            builder.store(vector, place, align=4)

    return _inlined(
        emit, types.void, x, examples, types.int64, types.int64, rows
    )


def _transposed(builder: Any, block: list[Any]) -> list[Any]:
    """Returns the columns: halves change places, then quarters, then ones."""
    for half in (4, 2, 1):
        first = [_WIDTH + k - half if k & half else k for k in range(_WIDTH)]
        second = [k + half for k in first]
        turned = list(block)
        for i in (i for i in range(_WIDTH) if not i & half):
            a, b = block[i], block[i + half]
            turned[i] = _pick(builder, a, b, first)
            turned[i + half] = _pick(builder, a, b, second)
        block = turned
    return block
