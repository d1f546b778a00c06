"""Vector code of superpixel pooling: eight channels of eight neighbouring voxels at a time.

Source: voxseg's own design; the op is that of Schuurmans, Berman, Blaschko, *Efficient semantic
image segmentation with superpixel pooling*, 2018, arXiv:1806.02705.

Channels first, a voxel's channels lie far apart, so a compiler cannot vectorise over them and the
tables of running results are updated number by number. Here eight vectors of eight neighbouring
voxels, one per channel, are transposed in registers; then a table row of eight channels is updated
at once. Written as LLVM's portable vectors, which become what the processor has (AVX-512, AVX2,
NEON); Python never calls these, only Numba kernels do.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # it has no types
from numba import types
from numba.extending import intrinsic

# Numba passes the typing context, the caller the rest.
_inline: Callable[[Callable[..., Any]], Callable[..., None]] = intrinsic

BLOCK = 8  # channels of a table row, and voxels of a block

_INT = ir.IntType(32)
_OFFSET = ir.IntType(64)
# Shuffles of two vectors that interleave single lanes, pairs and halves without crossing more of
# a register than they must: one instruction each on x86.
_STAGES = (
    ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)),
    ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)


_ORDER = (0, 2, 1, 3, 4, 6, 5, 7)  # in which the stages leave the vectors


@_inline
def add_block(typing: Any, x: Any, at: Any, labels: Any, voxel: Any, table: Any) -> Any:
    """Add features of 8 channels and 8 voxels to the rows of their superpixels.

    Args:
        typing: Numba's typing context.
        x: features' memory, flat.
        at: offset of the first voxel's first channel, distance between channels, the highest
            channel that exists (it stands in for those beyond), K.
        labels: int32 of one image.
        voxel: index of the first voxel.
        table: float64, two rows of 8 for each of K superpixels and for voxels without one. Even
            and odd voxels have a row each, since a row just written is slow to read again.
    """
    signature = types.void(x, at, labels, voxel, table)

    def generate(context: Any, builder: Any, _: Any, args: Any) -> Any:
        vectors = _voxels(context, builder, signature.args, args)
        rows = _rows(context, builder, signature.args, args)
        for i, (features, row) in enumerate(zip(vectors, rows, strict=True)):
            row_of_two = builder.add(builder.shl(row, _OFFSET(1)), _OFFSET(i % 2))
            _add(builder, features, _row_pointer(context, builder, table, args[4], row_of_two))
        return context.get_dummy_value()

    return signature, generate


@_inline
def add_row(typing: Any, x: Any, offset: Any, table: Any, row: Any) -> Any:
    """Add 8 channels that lie side by side to a table's row.

    Args:
        typing: Numba's typing context.
        x: features' memory, flat.
        offset: of the first channel.
        table: float64, rows of 8.
        row: number of the row.
    """
    signature = types.void(x, offset, table, types.intp)

    def generate(context: Any, builder: Any, _: Any, args: Any) -> Any:
        data = context.make_array(x)(context, builder, args[0]).data
        features = _load(builder, builder.gep(data, [args[1]]))
        _add(builder, features, _row_pointer(context, builder, table, args[2], args[3]))
        return context.get_dummy_value()

    return signature, generate


@_inline
def max_block(typing: Any, x: Any, at: Any, labels: Any, voxel: Any, value: Any, place: Any) -> Any:
    """Update maxima and winners with features of 8 channels and 8 voxels.

    Args:
        typing: Numba's typing context.
        x: features' memory, flat.
        at: as for ``add_block``.
        labels: int32 of one image.
        voxel: index of the first voxel.
        value: maxima so far, a row of 8 per superpixel, NaN where nothing was seen.
        place: winners so far, rows as in ``value``, -1 where nothing was seen.
    """
    signature = types.void(x, at, labels, voxel, value, place)

    def generate(context: Any, builder: Any, _: Any, args: Any) -> Any:
        vectors = _voxels(context, builder, signature.args, args)
        rows = _rows(context, builder, signature.args, args)
        for i, (features, row) in enumerate(zip(vectors, rows, strict=True)):
            pointers = (
                _row_pointer(context, builder, value, args[4], row),
                _row_pointer(context, builder, place, args[5], row),
            )
            _update(builder, features, builder.add(args[3], _OFFSET(i)), *pointers)
        return context.get_dummy_value()

    return signature, generate


@_inline
def max_row(typing: Any, x: Any, offset: Any, voxel: Any, value: Any, place: Any, row: Any) -> Any:
    """Update maxima and winners with 8 channels that lie side by side.

    Args:
        typing: Numba's typing context.
        x: features' memory, flat.
        offset: of the first channel.
        voxel: its index.
        value: as for ``max_block``.
        place: as for ``max_block``.
        row: number of the row.
    """
    signature = types.void(x, offset, voxel, value, place, types.intp)

    def generate(context: Any, builder: Any, _: Any, args: Any) -> Any:
        data = context.make_array(x)(context, builder, args[0]).data
        features = _load(builder, builder.gep(data, [args[1]]))
        pointers = (
            _row_pointer(context, builder, value, args[3], args[5]),
            _row_pointer(context, builder, place, args[4], args[5]),
        )
        _update(builder, features, args[2], *pointers)
        return context.get_dummy_value()

    return signature, generate


@_inline
def spread_block(typing: Any, table: Any, at: Any, labels: Any, voxel: Any, out: Any) -> Any:
    """Write the values of their superpixels to 8 channels of 8 voxels.

    Args:
        typing: Numba's typing context.
        table: a row of 8 channels for each of K superpixels and for voxels without one.
        at: as for ``add_block``, in ``out``; channels beyond the highest are not written.
        labels: int32 of one image.
        voxel: index of the first voxel.
        out: the result's memory, flat.
    """
    signature = types.void(table, at, labels, voxel, out)

    def generate(context: Any, builder: Any, _: Any, args: Any) -> Any:
        rows = _rows(context, builder, signature.args, args)
        pointers = [_row_pointer(context, builder, table, args[0], row) for row in rows]
        voxels = [builder.load(pointer, align=2) for pointer in pointers]
        data = context.make_array(out)(context, builder, args[4]).data
        base, step, last, _count = (builder.extract_value(args[1], i) for i in range(4))
        for channel, values in enumerate(_transpose(builder, voxels)):
            with builder.if_then(builder.icmp_signed("<=", _OFFSET(channel), last), likely=True):
                offset = builder.add(base, builder.mul(_OFFSET(channel), step))
                target = builder.gep(data, [offset])
                builder.store(values, builder.bitcast(target, values.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return signature, generate


def _add(builder: Any, features: Any, pointer: Any) -> None:
    """Add a vector of features to a row of float64."""
    double = ir.VectorType(ir.DoubleType(), BLOCK)
    wide = features if features.type == double else builder.fpext(features, double)
    builder.store(builder.fadd(builder.load(pointer, align=8), wide), pointer, align=8)


def _update(builder: Any, features: Any, voxel: Any, values: Any, places: Any) -> None:
    """Update a row of maxima and of winners with one voxel's features."""
    seen = builder.load(values, align=4)
    # Larger, or NaN on either side: rare after a superpixel's first few voxels.
    candidate = builder.fcmp_unordered(">", features, seen)
    bits = builder.bitcast(candidate, ir.IntType(BLOCK))
    some = builder.icmp_unsigned("!=", bits, ir.IntType(BLOCK)(0))
    with builder.if_then(some, likely=False):
        before = builder.load(places, align=4)
        # NaN that was seen stays; NaN that stands for nothing gives way, even to -inf.
        is_number = builder.fcmp_ordered("ord", seen, seen)
        is_empty = builder.icmp_signed("<", before, ir.Constant(before.type, None))
        take = builder.and_(candidate, builder.or_(is_number, is_empty))
        if before.type.element.width < _OFFSET.width:
            voxel = builder.trunc(voxel, before.type.element)
        builder.store(builder.select(take, features, seen), values, align=4)
        builder.store(builder.select(take, _splat(builder, voxel), before), places, align=4)


def _voxels(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Load 8 channels of 8 voxels; return one vector of 8 channels for each voxel."""
    data = context.make_array(signature[0])(context, builder, args[0]).data
    base, step, last, _ = (builder.extract_value(args[1], i) for i in range(4))
    channels = []
    for channel in range(BLOCK):
        exists = builder.icmp_signed("<=", _OFFSET(channel), last)
        repeat = builder.select(exists, _OFFSET(channel), last)
        offset = builder.add(base, builder.mul(repeat, step))
        channels.append(_load(builder, builder.gep(data, [offset])))
    return _transpose(builder, channels)


def _transpose(builder: Any, vectors: list[Any]) -> list[Any]:
    """Transpose 8 vectors of 8."""
    for stage, distance in zip(_STAGES, (1, 2, 4), strict=True):
        mixed = list(vectors)
        for first in range(BLOCK):
            second = first + distance
            if first & distance:
                continue
            for target, lanes in zip((first, second), stage, strict=True):
                mask = ir.Constant(ir.VectorType(_INT, BLOCK), list(lanes))
                mixed[target] = builder.shuffle_vector(vectors[first], vectors[second], mask)
        vectors = mixed
    return [vectors[i] for i in _ORDER]


def _rows(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Load 8 labels and turn each into a table row: K for those outside [0, K)."""
    data = context.make_array(signature[2])(context, builder, args[2]).data
    labels = _load(builder, builder.gep(data, [args[3]]))
    count = _splat(builder, builder.trunc(builder.extract_value(args[1], 3), _INT))
    # Read as unsigned, negative labels are larger than any K.
    inside = builder.icmp_unsigned("<", labels, count)
    rows = builder.select(inside, labels, count)
    return [builder.zext(builder.extract_element(rows, _INT(i)), _OFFSET) for i in range(BLOCK)]


def _row_pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Point to a table's row as a vector."""
    data = context.make_array(array_type)(context, builder, array).data
    start = builder.gep(data, [builder.shl(row, _OFFSET(BLOCK.bit_length() - 1))])
    return builder.bitcast(start, ir.VectorType(data.type.pointee, BLOCK).as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    """Load 8 neighbours, aligned no better than one of them."""
    vector = ir.VectorType(pointer.type.pointee, BLOCK)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def _splat(builder: Any, number: Any) -> Any:
    """Repeat a number 8 times."""
    vector = ir.VectorType(number.type, BLOCK)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, _INT(0))
    zeros = ir.Constant(ir.VectorType(_INT, BLOCK), None)
    return builder.shuffle_vector(one, one, zeros)
