"""Large and small variables: the same steps, and how often each word passes through memory."""

import re

import larq_filters as lqf
from larq_filters.optimizers import _update
from larq_filters.optimizers._flip import Numbers

import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import assert_same, binary_variable, from_zero, train

F = lqf.filters
BLOCKED = (3, 3, 96, 192)  # 165,888 weights, 12 blocks
SHAPES = [(1,), (1001, 7), (65_535,), (65_536,), BLOCKED, (65_537,), (2, 120_011)]
FILTERS = {
    "EMA": (F.EMA(0.1), lambda: reference.EMA(0.1)),
    "CascadedEMA": (F.CascadedEMA(1e-2, 0.1), lambda: reference.CascadedEMA(1e-2, 0.1)),
    "IIR": (F.IIR([0.01], [1, -1.9, 0.91]), lambda: reference.IIR([0.01], [1, -1.9, 0.91])),
    "Adam": (
        F.Cascade(F.NormalizedEMA(0.1, 0.01, 1e-7, True), F.Integrator(0.01, 1.0)),
        lambda: reference.Cascade(
            reference.NormalizedEMA(0.1, 0.01, 1e-7, True), reference.Integrator(0.01, 1.0)
        ),
    ),
}


def draw(shape, steps=6):
    rng = np.random.default_rng(8)
    gradients = rng.normal(size=(steps, 1, *shape)).astype("float32")
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0), gradients


def test_which_sizes_go_block_by_block():
    sizes = [_update.block_size(int(np.prod(shape))) for shape in SHAPES]
    assert sizes == [None, None, None, 16_384, 13_824, None, None]
    assert _update.block_size(10**8) == 16_000
    assert _update.block_size(2**15) is None  # small, though it would divide
    assert _update.block_size(4_096 * 257) == 4_096  # the smallest; 257 is prime
    assert _update.block_size(10**6) == 8_000  # 15,625 would be no whole number of vectors


def test_the_largest_variables_are_shared_out_first():
    """In the order of their sizes, the last and largest would make one share twice the other."""
    shares = _update.share_out([500_000, 500_000, 1_000_000], 2)
    assert sorted(map(sorted, shares)) == [[0, 1], [2]]


@pytest.mark.parametrize("sizes", [[], [7], [5] * 60, [10**6, 1, 1, 1], range(1, 10**6, 99_991)])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_variables_are_shared_out(sizes, groups):
    shares = _update.share_out(sizes, groups)
    assert sorted(i for share in shares for i in share) == list(range(len(sizes)))
    assert len(shares) == min(groups, len(sizes)) and all(shares)
    work = [sum(sizes[i] + 5_000 for i in share) for share in shares]
    largest = max(sizes, default=0) + 5_000
    assert max(work, default=0) <= sum(work) / max(len(work), 1) + largest


@pytest.mark.parametrize(
    ("sizes", "compiled"), [((131_071,), False), ((131_072,), True), ((65_536, 65_536), True)]
)
def test_xla_compiles_what_is_worth_it(sizes, compiled):
    """From as many weights on as the docstring of FilteredFlip says."""
    optimizer, some = from_zero(), [binary_variable(np.ones(size)) for size in sizes]
    optimizer.apply_gradients([(tf.ones(weights.shape), weights) for weights in some])
    (function,) = optimizer._binaries.update._compiled.values()
    assert hasattr(function, "get_concrete_function") == compiled
    assert all((weights.numpy() == -1.0).all() for weights in some)


def test_variables_in_several_functions(monkeypatch):
    """Of several cores, as of one."""
    rng = np.random.default_rng(3)
    gradients = [[rng.normal(size=n).astype("f") for n in range(1, 8)] for _ in range(5)]
    runs = []
    for cores in (1, 3):
        monkeypatch.setattr(_update, "cores", lambda n=cores: n)
        monkeypatch.setattr(_update, "_SHARE", 1)
        variables = [binary_variable(np.ones(n)) for n in range(1, 8)]
        optimizer = from_zero(0.1, 0.5, jit_compile=True)
        optimizer.count_flips = True
        after = list(train(optimizer, variables, gradients))
        assert len(optimizer._binaries.update._compiled) == cores
        runs.append([*after[-1], *(optimizer.flips(v).numpy() for v in variables)])
    assert_same(*runs)
    assert sum(runs[0][7:]) > 0


def test_large_variables_share_a_function():
    """Compiled once for a shape and a filter, and each keeps its own state and count."""
    large = _update._LONE
    sizes = [large, large, large, 100, large, large]
    rng = np.random.default_rng(6)
    gradients = [[rng.integers(-8, 9, n).astype("f") for n in sizes] for _ in range(3)]
    runs = []
    for jit_compile in (True, False):
        variables = [binary_variable(np.ones(n)) for n in sizes]

        def is_last(variable, last=variables[4:]):
            return any(variable is one for one in last)

        filter = {is_last: F.EMA(0.25), "*": F.CascadedEMA(0.125, 0.5)}
        optimizer = from_zero(filter=filter, jit_compile=jit_compile)
        optimizer.count_flips = True
        after = list(train(optimizer, variables, gradients))[-1]
        state = [slot.numpy() for v in variables for slot in optimizer.slots(v).values()]
        runs.append([*after, *state, *(optimizer.flips(v).numpy() for v in variables)])
        shared = optimizer._binaries.update._shared.values()
        traces = [function.experimental_get_tracing_count() for function in shared]
        assert traces == ([1, 1] if jit_compile else [])
    assert_same(*runs)
    assert all(count > 0 for count in runs[0][-len(sizes) :])


@pytest.mark.parametrize(
    ("name", "shape"),
    [*(("CascadedEMA", shape) for shape in SHAPES), *((name, BLOCKED) for name in FILTERS)],
    ids=str,
)
def test_every_size_is_the_twin(name, shape):
    """Exact signs, but where rounding decides; there are few such places."""
    filter, make = FILTERS[name]
    initial, gradients = draw(shape)
    plain, expected, threshold = make(), initial.copy(), 1e-3
    unsure = np.zeros(shape, bool)
    optimizer = from_zero(filter=filter, threshold=threshold, jit_compile=True)
    steps = train(optimizer, [binary_variable(initial)], gradients)
    for g, (weights,) in zip(gradients[:, 0].astype("float64"), steps, strict=True):
        y = plain(g)
        unsure |= np.abs(np.abs(y) - threshold) < 1e-6
        expected = reference.flip(expected, y, threshold)
        np.testing.assert_array_equal(weights[~unsure], expected[~unsure])
    assert (expected != initial).any() and unsure.mean() < 0.01


@pytest.mark.parametrize("name", FILTERS)
def test_blocks_do_what_op_by_op_does(name):
    """Also to gradients that are not finite, to zeros, and in counting flips."""
    filter, _ = FILTERS[name]
    initial, gradients = draw(BLOCKED)
    rng = np.random.default_rng(9)
    for value in (0.0, np.nan, np.inf, -np.inf):
        gradients[rng.random(gradients.shape) < 0.05] = value
    runs = []
    for jit_compile in (True, False):
        weights = binary_variable(initial)
        optimizer = from_zero(filter=filter, threshold=1e-3, jit_compile=jit_compile)
        optimizer.count_flips = True
        after = [w for (w,) in train(optimizer, [weights], gradients)]
        flipped = sum(
            int((a != b).sum()) for a, b in zip([initial, *after[:-1]], after, strict=True)
        )
        assert int(optimizer.flips(weights)) == flipped > 0
        runs.append((after, [slot.numpy() for slot in optimizer.slots(weights).values()]))
    assert_same(runs[0][0], runs[1][0])
    for one, two in zip(runs[0][1], runs[1][1], strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6 * np.abs(two).max())


def test_within_a_step_that_xla_compiles_as_a_whole():
    """As `model.compile(jit_compile=True)` asks: variables of both kinds, updated in place."""
    rng = np.random.default_rng(4)
    initial = [np.where(rng.random(shape) < 0.5, -1.0, 1.0) for shape in (BLOCKED, (65_537,))]
    gradients = [[rng.normal(size=w.shape).astype("f") for w in initial] for _ in range(4)]
    runs = []
    for jit_compile in (True, False):
        optimizer = from_zero(0.1, 0.5, jit_compile=True)
        variables = [binary_variable(w) for w in initial]
        optimizer.build(variables)

        @tf.function(jit_compile=jit_compile)
        def step(*g, optimizer=optimizer, variables=variables):
            optimizer.apply_gradients(zip(g, variables, strict=True))

        for g in gradients:
            step(*g)
        runs.append([v.numpy() for v in variables])
    assert_same(*runs)
    assert all((a != b).any() for a, b in zip(runs[0], initial, strict=True))


# Memory


# Instructions that move nothing.
FREE = ("parameter", "get-tuple-element", "tuple", "while", "call", "constant", "bitcast")


def words_per_weight(hlo, size):
    """Words that a compiled step moves between memory and cache for each of `size` weights.

    Outside of loops, every instruction reads its operands from memory and writes its results
    there. A loop over blocks reads each of its arrays once and writes some of them once: what is
    of a block's size stays in the cache.
    """
    hlo = re.sub(r"/\*.*?\*/", "", hlo)
    computations = dict(re.findall(r"^(?:ENTRY )?%([\w.\-]+) \(.*?\{\n(.*?)^\}", hlo, re.M | re.S))
    entry = re.search(r"^ENTRY %([\w.\-]+)", hlo, re.M)[1]
    moved = 0
    for name in [entry, *re.findall(r" while\(.*body=%([\w.\-]+)", hlo)]:
        lines = instructions(computations[name])
        elements = {result: number_of_elements(line) for result, line in lines}
        arrays = set()
        for result, line in lines:
            kind = re.search(r" ([a-z\-]+)\(", line)[1]
            read = [elements[n] for n in re.findall(r"%([\w.\-#]+)", line) if n in elements]
            called = re.search(r"calls=%([\w.\-]+)", line)
            if kind == "get-tuple-element" and elements[result] == size:
                arrays.add(re.search(r"index=(\d+)", line)[1])
            if kind in FREE:
                continue
            if name == entry:
                if kind == "slice" or (called and " slice(" in computations[called[1]]):
                    read = [elements[result]]
                moved += elements[result] + sum(read)
            elif elements[result] == size:  # writes a block into an array, and touches no more
                assert re.search(r"ROOT .* dynamic-update-slice\(", computations[called[1]])
                moved += size
        if name != entry:
            moved += size * len(arrays)
    return moved / size


def instructions(computation):
    """Pairs of a result and what computes it."""
    lines = re.findall(r"^ +(?:ROOT )?%([\w.\-]+) = (.*)$", computation, re.M)
    for result, line in lines:  # XLA after TensorFlow 2.22 writes %tuple#1 in other instructions
        shapes = re.sub(r"\{[\d,]*\}", "", line)
        for index in sorted(set(re.findall(rf"%{re.escape(result)}#(\d+)", computation))):
            shape = re.findall(r"\w+\[[\d,]*\]", shapes)[int(index)]
            lines.append((f"{result}#{index}", f"{shape} get-tuple-element(), index={index}"))
    return lines


def number_of_elements(line):
    shape = re.match(r"\w+\[([\d,]*)\]", line)
    return int(np.prod([int(n) for n in shape[1].split(",") if n])) if shape else 0


def compiled(filter, size):
    weights = binary_variable(np.ones(size))
    optimizer = from_zero(filter=filter, jit_compile=True)
    gradient = tf.zeros(size)
    optimizer.apply_gradients([(gradient, weights)])
    (step,) = optimizer._binaries.update._shared.values()
    now = {name: tf.convert_to_tensor(c) for name, c in optimizer.coefficients.items()}
    arguments = weights.latent_variable, optimizer.slots(weights), gradient
    arguments += Numbers(now, now), tf.constant(1, tf.int64), False
    return step.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="of the code for CPUs")
@pytest.mark.parametrize(("name", "least"), [("EMA", 5), ("CascadedEMA", 7), ("IIR", 7)])
def test_each_word_passes_through_memory_once(name, least):
    """Gradient, states and weight are read, states and weight are written."""
    size = 2**22
    assert least <= words_per_weight(compiled(FILTERS[name][0], size), size) < least + 0.1


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="of the code for CPUs")
def test_the_count_sees_more_passes(monkeypatch):
    monkeypatch.setattr(_update, "block_size", lambda elements: None)
    assert words_per_weight(compiled(FILTERS["CascadedEMA"][0], 2**22), 2**22) >= 13
