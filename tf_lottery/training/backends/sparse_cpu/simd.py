"""A vector type for numba: one float32 per example, kept in registers.

Numba has no such type. Plain loops over examples keep their sums in memory,
because LLVM cannot tell that arrays do not overlap. A value of the type
`lanes` stays in registers.

Example, with LANES = 4 instead of 64: a unit with weights 2 and -1 reads rows
0 and 1 for the four examples of a batch::

    total = zeros()                                # [0, 0, 0, 0]
    total = add_scaled(total, 2, load(output, 0))  # + 2 * [1, 2, 3, 4]
    total = add_scaled(total, -1, load(output, 1)) # - 1 * [3, 3, 3, 3]
    store(output, 2, relu(total))                  # row 2 is [0, 1, 3, 5]

With 64 lanes and AVX2, `total` is eight registers of eight floats, and
`add_scaled` is eight multiplications and eight additions.

Every function of this module becomes instructions inside the kernel that uses
it; none is called at run time. In the helpers, `builder` is llvmlite's
`IRBuilder`. Fast-math flags are not allowed: every sum has one order and every
product is rounded, so any compilation on any CPU gives the same bits. They
would gain nothing, because the kernel waits for loads.
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
    """The numba type of LANES float32 in registers."""

    def __init__(self) -> None:
        super().__init__(name=f"lanes{LANES}")


lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    """Maps the type to one LLVM vector."""

    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _LANES)


def _intrinsic(emit: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """Returns the signature and the code generator of an intrinsic.

    Args:
        emit: From the LLVM builder and the arguments to the result; arrays
            are passed as structures with `data` and `shape`.
        result: Numba type of the result.
        *arguments: Numba types of the arguments.
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

    return result(*arguments), code


def _splat(number: float) -> ir.Constant:
    return ir.Constant(_LANES, [number] * LANES)


def _broadcast(builder: Any, number: Any) -> Any:
    vector = builder.insert_element(_splat(0.0), number, ir.Constant(_INT, 0))
    return _shuffle(builder, vector, vector, [0] * LANES)


def _shuffle(builder: Any, a: Any, b: Any, lanes_: Iterable[int]) -> Any:
    """Returns some lanes of `a` and `b`; those of `b` are numbered after."""
    chosen = list(lanes_)
    kind = ir.VectorType(_INT, len(chosen))
    return builder.shuffle_vector(a, b, ir.Constant(kind, chosen))


def _pointer(builder: Any, array: Any, index: Any, kind: ir.Type) -> Any:
    return builder.bitcast(builder.gep(array.data, [index]), kind.as_pointer())


def _row_pointer(builder: Any, array: Any, row: Any) -> Any:
    index = builder.mul(row, ir.Constant(_LONG, LANES))
    return _pointer(builder, array, index, _LANES)


@intrinsic
def load(context: Any, array: Any, row: Any) -> Any:
    """Returns a row of a float32 array `[rows, LANES]`."""

    def emit(builder: Any, array: Any, row: Any) -> Any:
        return builder.load(
            _row_pointer(builder, array, row), align=4, typ=_LANES
        )

    return _intrinsic(emit, lanes, array, types.int64)


@intrinsic
def store(context: Any, array: Any, row: Any, vector: Any) -> Any:
    """Writes a row of a float32 array `[rows, LANES]`."""

    def emit(builder: Any, array: Any, row: Any, vector: Any) -> None:
        builder.store(vector, _row_pointer(builder, array, row), align=4)

    return _intrinsic(emit, types.void, array, types.int64, lanes)


@intrinsic
def zeros(context: Any) -> Any:
    """Returns zeros."""
    return _intrinsic(lambda builder: _splat(0.0), lanes)


@intrinsic
def add(context: Any, a: Any, b: Any) -> Any:
    """Returns `a + b`."""
    return _intrinsic(lambda builder, a, b: builder.fadd(a, b), lanes, a, b)


@intrinsic
def subtract(context: Any, a: Any, b: Any) -> Any:
    """Returns `a - b`."""
    return _intrinsic(lambda builder, a, b: builder.fsub(a, b), lanes, a, b)


@intrinsic
def multiply(context: Any, a: Any, b: Any) -> Any:
    """Returns `a * b`."""
    return _intrinsic(lambda builder, a, b: builder.fmul(a, b), lanes, a, b)


@intrinsic
def divide(context: Any, a: Any, b: Any) -> Any:
    """Returns `a / b`."""
    return _intrinsic(lambda builder, a, b: builder.fdiv(a, b), lanes, a, b)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b), c)


@intrinsic
def add_scaled(context: Any, total: Any, factor: Any, vector: Any) -> Any:
    """Returns `total + factor * vector`."""

    def emit(builder: Any, total: Any, factor: Any, vector: Any) -> Any:
        return _multiply_add(
            builder, _broadcast(builder, factor), vector, total
        )

    return _intrinsic(emit, lanes, lanes, types.float32, lanes)


@intrinsic
def maximum(context: Any, a: Any, b: Any) -> Any:
    """Returns the larger of each pair; where one is nan, the other."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_unordered("<", a, b), b, a)

    return _intrinsic(emit, lanes, lanes, lanes)


@intrinsic
def relu(context: Any, vector: Any) -> Any:
    """Returns `max(vector, 0)`, and nan where it is nan."""

    def emit(builder: Any, vector: Any) -> Any:
        negative = builder.fcmp_ordered("<", vector, _splat(0.0))
        return builder.select(negative, _splat(0.0), vector)

    return _intrinsic(emit, lanes, lanes)


@intrinsic
def where_positive(context: Any, condition: Any, vector: Any) -> Any:
    """Returns the vector where the condition is above 0, else 0."""

    def emit(builder: Any, condition: Any, vector: Any) -> Any:
        positive = builder.fcmp_ordered(">", condition, _splat(0.0))
        return builder.select(positive, vector, _splat(0.0))

    return _intrinsic(emit, lanes, lanes, lanes)


@intrinsic
def exponential(context: Any, vector: Any) -> Any:
    """Returns e to the power of a vector whose entries are at most 0.

    A power of two times a polynomial (`expf` of Moshier's Cephes library;
    within 2 units in the last place). Below -87 it returns 0.
    """

    def emit(builder: Any, vector: Any) -> Any:
        low = builder.fcmp_ordered("<", vector, _splat(-87.0))
        # The conversion to int is undefined for nan and -inf.
        safe = builder.select(
            builder.fcmp_ordered(">=", vector, _splat(-87.0)),
            vector,
            _splat(-87.0),
        )
        whole = builder.fptosi(
            _multiply_add(
                builder, safe, _splat(1.44269504088896341), _splat(-0.5)
            ),
            _LANES_OF_INT,
        )
        n = builder.sitofp(whole, _LANES)
        rest = _multiply_add(builder, n, _splat(-0.693359375), vector)
        rest = _multiply_add(builder, n, _splat(2.12194440e-4), rest)
        value = _splat(1.9875691500e-4)
        for coefficient in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
            1.0,
            1.0,
        ):
            value = _multiply_add(builder, value, rest, _splat(coefficient))
        exponent = builder.shl(
            builder.add(whole, ir.Constant(_LANES_OF_INT, [127] * LANES)),
            ir.Constant(_LANES_OF_INT, [23] * LANES),
        )
        power = builder.fmul(value, builder.bitcast(exponent, _LANES))
        return builder.select(low, _splat(0.0), power)

    return _intrinsic(emit, lanes, lanes)


@intrinsic
def dot(context: Any, a: Any, b: Any) -> Any:
    """Returns the dot product, summed in the same order as in `add_dots`."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        total = _partial_dots(builder, a, b)
        for even in ([0, 2, 4, 6], [0, 2]):
            odd = [lane + 1 for lane in even]
            total = builder.fadd(
                _shuffle(builder, total, total, even),
                _shuffle(builder, total, total, odd),
            )
        low, high = (
            builder.extract_element(total, ir.Constant(_INT, i)) for i in (0, 1)
        )
        return builder.fadd(low, high)

    return _intrinsic(emit, types.float32, lanes, lanes)


@intrinsic
def add_dots(
    context: Any, sums: Any, at: Any, v: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """Adds the dot products of `v` with a, b, c and d to `sums[at : at + 4]`.

    Four at a time share the last additions, which are across lanes.
    """

    def emit(builder: Any, sums: Any, at: Any, v: Any, *others: Any) -> None:
        a, b, c, d = (_partial_dots(builder, v, other) for other in others)
        eight = _add_neighbors(
            builder,
            _add_neighbors(builder, a, b),
            _add_neighbors(builder, c, d),
        )
        four = builder.fadd(
            _shuffle(builder, eight, eight, range(4)),
            _shuffle(builder, eight, eight, range(4, 8)),
        )
        pointer = _pointer(builder, sums, at, four.type)
        before = builder.load(pointer, align=4, typ=four.type)
        builder.store(builder.fadd(before, four), pointer, align=4)

    return _intrinsic(emit, types.void, sums, types.int64, *[lanes] * 5)


def _partial_dots(builder: Any, a: Any, b: Any) -> Any:
    """Returns eight partial sums of `a * b`, each over every eighth lane."""
    total = None
    for start in range(0, LANES, _WIDTH):
        x, y = (
            _shuffle(builder, vector, vector, range(start, start + _WIDTH))
            for vector in (a, b)
        )
        if total is None:
            total = builder.fmul(x, y)
        else:
            total = _multiply_add(builder, x, y, total)
    return total


def _add_neighbors(builder: Any, a: Any, b: Any) -> Any:
    """Returns sums of neighboring lanes: two of `a`, two of `b`, repeated."""
    even = [0, 2, 8, 10, 4, 6, 12, 14]
    odd = [lane + 1 for lane in even]
    return builder.fadd(
        _shuffle(builder, a, b, even), _shuffle(builder, a, b, odd)
    )


@intrinsic
def copy_transposed(
    context: Any, x: Any, examples: Any, lane: Any, feature: Any, rows: Any
) -> Any:
    """Copies eight features of eight examples, each example to one lane.

    `rows[feature + i, lane + j] = x[examples[lane + j], feature + i]`.
    """

    def emit(
        builder: Any, x: Any, examples: Any, lane: Any, feature: Any, rows: Any
    ) -> None:
        features = builder.extract_value(x.shape, 1)
        block = []
        for j in range(_WIDTH):
            at = builder.add(lane, ir.Constant(_LONG, j))
            example = builder.load(
                _pointer(builder, examples, at, _LONG), typ=_LONG
            )
            start = builder.add(builder.mul(example, features), feature)
            pointer = _pointer(builder, x, start, _EIGHT)
            block.append(builder.load(pointer, align=4, typ=_EIGHT))
        for i, vector in enumerate(_transpose(builder, block)):
            row = builder.add(feature, ir.Constant(_LONG, i))
            start = builder.mul(row, ir.Constant(_LONG, LANES))
            pointer = _pointer(builder, rows, builder.add(start, lane), _EIGHT)
            builder.store(vector, pointer, align=4)

    return _intrinsic(
        emit, types.void, x, examples, types.int64, types.int64, rows
    )


def _transpose(builder: Any, block: list[Any]) -> list[Any]:
    """Returns the transpose of 8 x 8: swaps halves, quarters, then lanes."""
    for half in (4, 2, 1):
        first = [_WIDTH + k - half if k & half else k for k in range(_WIDTH)]
        second = [k + half for k in first]
        shuffled = list(block)
        for i in (i for i in range(_WIDTH) if not i & half):
            a, b = block[i], block[i + half]
            shuffled[i] = _shuffle(builder, a, b, first)
            shuffled[i + half] = _shuffle(builder, a, b, second)
        block = shuffled
    return block
