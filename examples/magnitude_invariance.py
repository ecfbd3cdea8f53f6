"""Trains a binary network from rescaled latent recipes, and shows what the scale changes.

    python examples/magnitude_invariance.py --plot magnitude_invariance.png

The latent weights are trained by SGD with momentum, learning rate η and decoupled weight decay λ
from initial weights w₀, on scikit-learn's real digits. The first table compares, at every step, the
binary weights of networks trained from scaled η, λ and w₀, or without latent weights. The second
shows how the influence of w₀ dies out with α = ηλ: in latent weights that are fed the same
gradients, and in networks that each have their own.
"""

import argparse
import pathlib
import textwrap
import time
from collections.abc import Sequence
from typing import NamedTuple

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import larq as lq
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

UNITS, BATCH, MOMENTUM = 128, 64, 0.9
RATE, ALPHA = 0.5, 3e-3  # η and α = ηλ of the first table
ALPHAS = (0.0, 3e-3, 1e-2, 3e-2)  # of the second
SCALE = 4  # of w₀ there
SLOWER_ALPHA = 1e-2  # at which the picture also shows what scaling η alone does


class Recipe(NamedTuple):
    """How the binary weights of a run are trained."""

    rate: float
    decay: float
    scale: float = 1.0  # of w₀
    negated: int = 0  # so many of w₀ change their sign
    clip: float | None = 1.0  # |w| beyond which ste_sign passes no gradient
    filtered: bool = False  # by FilteredFlip, without latent weights
    floatx: str = "float32"


class Run(NamedTuple):
    """What came of it."""

    signs: np.ndarray  # packed bits, (steps + 1, weights / 8)
    start: np.ndarray  # the weights before the first step
    end: np.ndarray  # and after the last
    largest: float  # |w| of all steps
    accuracy: float  # on held-out digits


class Data(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    batches: np.ndarray  # indices, (steps, BATCH)


def load(steps: int, seed: int) -> Data:
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        images / 8 - 1, labels, test_size=1 / 3, random_state=seed, stratify=labels
    )
    batches = np.random.default_rng(seed).integers(0, len(x), (steps, BATCH))
    return Data(x, y, x_test, y_test, batches)


def build_model(clip: float | None) -> tf.keras.Model:
    layers = tf.keras.layers

    def binary() -> tf.keras.layers.Layer:
        quantizer = lq.quantizers.SteSign(clip_value=clip)
        return lq.layers.QuantDense(
            UNITS, use_bias=False, input_quantizer="ste_sign", kernel_quantizer=quantizer
        )

    return tf.keras.Sequential(
        [
            layers.Dense(UNITS, use_bias=False, input_shape=(64,)),
            layers.BatchNormalization(momentum=0.9),
            binary(),
            layers.BatchNormalization(momentum=0.9),
            binary(),
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(10),
        ]
    )


def is_binary(variable: tf.Variable) -> bool:
    return getattr(variable, "precision", None) == 1


def flat(variables: Sequence[tf.Variable]) -> tf.Tensor:
    return tf.concat([tf.reshape(getattr(v, "latent_variable", v), [-1]) for v in variables], 0)


def initialize(recipe: Recipe, seed: int) -> tf.keras.Model:
    """The same float32 weights for every recipe, but for what it says of w₀."""
    tf.keras.utils.set_random_seed(seed)
    tf.keras.backend.set_floatx("float32")
    start = build_model(recipe.clip).get_weights()
    tf.keras.backend.set_floatx(recipe.floatx)
    model = build_model(recipe.clip)
    for variable, value in zip(model.weights, start, strict=True):
        variable.assign(value.astype(recipe.floatx) * (recipe.scale if is_binary(variable) else 1))
    first = next(v for v in model.trainable_variables if is_binary(v)).latent_variable
    signs = np.ones(first.shape, recipe.floatx)
    signs.ravel()[: recipe.negated] = -1
    first.assign(first * signs)
    return model


def sgd(recipe: Recipe, variables: Sequence[tf.Variable]) -> tf.keras.optimizers.Optimizer:
    momentum, decay = np.float64([MOMENTUM, recipe.decay])  # Keras makes float32 of Python floats
    optimizer = tf.keras.optimizers.SGD(recipe.rate, momentum, weight_decay=decay or None)
    optimizer.build(variables)
    return optimizer


def filtered(
    recipe: Recipe, binary: Sequence[tf.Variable], real: Sequence[tf.Variable]
) -> lqf.optimizers.FilteredFlip:
    """The filter that the recipe is, in the state that its latent weights amount to."""
    arguments = {
        "learning_rate": recipe.rate,
        "momentum": MOMENTUM,
        "weight_decay": recipe.decay,
    }
    optimizer = lqf.optimizers.FilteredFlip(
        filter=lqf.recipes.from_sgd(**arguments), real_optimizer=tf.keras.optimizers.Adam(1e-3)
    )
    latent = [variable.latent_variable.numpy() for variable in binary]
    optimizer.build([*binary, *real])
    for variable, values in zip(binary, latent, strict=True):
        for slot, value in lqf.recipes.sgd_state(values, **arguments).items():
            optimizer.slots(variable)[slot].assign(value)
    return optimizer


def train(
    recipe: Recipe, data: Data, seed: int, followers: Sequence[Recipe] = (), name: str = ""
) -> list[Run]:
    """Trains a network; followers are latent weights that get its gradients instead of their own.

    The real weights are trained by Adam, in all runs alike. The network's run comes first.
    """
    model = initialize(recipe, seed)
    binary = [v for v in model.trainable_variables if is_binary(v)]
    real = [v for v in model.trainable_variables if not is_binary(v)]
    copies = [[tf.Variable(v.latent_variable * f.scale) for v in binary] for f in followers]
    groups = [binary, *copies]
    starts = [flat(group).numpy() for group in groups]
    signs = [[np.packbits(start < 0)] for start in starts]
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if recipe.filtered:
        optimizers = [filtered(recipe, binary, real)]
    else:
        adam = tf.keras.optimizers.Adam(1e-3)
        adam.build(real)
        optimizers = [sgd(recipe, binary), adam]
    behind = [sgd(f, copy) for f, copy in zip(followers, copies, strict=True)]

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        with tf.GradientTape() as tape:
            error = loss(y, model(x, training=True))
        gradients, others = tape.gradient(error, [binary, real])
        pairs = list(zip(gradients, binary, strict=True)), list(zip(others, real, strict=True))
        if recipe.filtered:
            optimizers[0].apply_gradients(pairs[0] + pairs[1])
        else:
            for optimizer, pair in zip(optimizers, pairs, strict=True):
                optimizer.apply_gradients(pair)
        for optimizer, copy in zip(behind, copies, strict=True):
            optimizer.apply_gradients(zip(gradients, copy, strict=True))
        weights = [flat(group) for group in groups]
        return [(w < 0, tf.reduce_max(tf.abs(w))) for w in weights]

    largest = np.zeros(len(groups))
    x = data.x.astype(recipe.floatx)
    for batch in tqdm(data.batches, desc=name, leave=False, ncols=80):
        for i, (negative, size) in enumerate(step(x[batch], data.y[batch])):
            signs[i].append(np.packbits(negative.numpy()))
            largest[i] = max(largest[i], size.numpy())
    logits = model(data.x_test.astype(recipe.floatx)).numpy()
    accuracy = float((logits.argmax(1) == data.y_test).mean())
    tf.keras.backend.set_floatx("float32")
    return [
        Run(np.stack(s), start, flat(group).numpy(), size, accuracy)
        for s, start, group, size in zip(signs, starts, groups, largest, strict=True)
    ]


def differing(one: Run, other: Run) -> np.ndarray:
    """The share of binary weights that differ after each step, the first being the start."""
    return np.array(
        [np.unpackbits(a ^ b).mean() for a, b in zip(one.signs, other.signs, strict=True)]
    )


E, D = RATE, ALPHA / RATE
FIRST, DOUBLE = "η, λ, w₀", "η, λ, w₀ in float64"
SLOWER, NEGATED = "η/4, λ, w₀", "η, λ, one of w₀ negated"
RECIPES = {  # and which of them to compare it with
    FIRST: (Recipe(E, D), None),
    "2η, λ/2, 2w₀": (Recipe(2 * E, D / 2, 2), FIRST),
    "η/4, 4λ, w₀/4": (Recipe(E / 4, 4 * D, 1 / 4), FIRST),
    "16η, λ/16, 16w₀": (Recipe(16 * E, D / 16, 16), FIRST),
    "16η, λ/16, 16w₀ without clip": (Recipe(16 * E, D / 16, 16, clip=None), FIRST),
    "0.3η, λ/0.3, 0.3w₀": (Recipe(0.3 * E, D / 0.3, 0.3), FIRST),
    "FilteredFlip, from_sgd(η, λ)": (Recipe(E, D, filtered=True), FIRST),
    DOUBLE: (Recipe(E, D, floatx="float64"), None),
    "0.3η, λ/0.3, 0.3w₀ in float64": (Recipe(0.3 * E, D / 0.3, 0.3, floatx="float64"), DOUBLE),
    "FilteredFlip in float64": (Recipe(E, D, filtered=True, floatx="float64"), DOUBLE),
    NEGATED: (Recipe(E, D, negated=1), FIRST),
    "η, λ, 4w₀": (Recipe(E, D, 4), FIRST),
    "η, λ/4, w₀": (Recipe(E, D / 4), FIRST),
    SLOWER: (Recipe(E / 4, D), FIRST),
    "η, λ/4, 4w₀": (Recipe(E, D / 4, 4), SLOWER),
}


def compare_recipes(data: Data, seed: int) -> dict[str, np.ndarray]:
    """Prints the first table; returns the shares of binary weights that differ, by recipe."""
    runs, shares = {}, {}
    print(f"{'':30} {'largest':>7} {'first step':>11} {'differ at':>10} {'test':>9}")
    print(f"{'recipe':30} {'|w|':>7} {'to differ':>11} {'the end':>10} {'accuracy':>9}")
    for name, (recipe, other) in RECIPES.items():
        (run,) = train(recipe, data, seed, name=name)
        runs[name], first, end = run, "", ""
        if other == SLOWER:
            tqdm.write(f"  compared with {SLOWER}:")
        if other:
            shares[name] = differing(run, runs[other])
            first, end = first_step(shares[name]), f"{shares[name][-1]:.2%}"
        size = f"{'±1':>7}" if recipe.filtered else f"{run.largest:7.2f}"
        tqdm.write(f"{name:30} {size} {first:>11} {end:>10} {run.accuracy:9.1%}")
    return shares


def first_step(shares: np.ndarray) -> str:
    return str((shares > 0).argmax()) if shares.any() else "never"


class Fading(NamedTuple):
    """What scaling w₀ alone does at one α, as shares of binary weights that differ by step."""

    fed: np.ndarray  # both fed the gradients of the network from w₀
    own: np.ndarray  # a network each
    slower: np.ndarray  # fed the same gradients, from w₀, with η/4


def compare_forgetting(data: Data, seed: int) -> dict[float, Fading]:
    """Prints the second table; returns its curves by α."""
    fadings = {}
    print("                    left of w₀     same gradients       own   η/4, same")
    print(" α = ηλ    1/α   (1−α)^t  measured    most  at end  gradients  gradients")
    for alpha in ALPHAS:
        base = Recipe(RATE, alpha / RATE)
        followers = base._replace(scale=SCALE), base._replace(rate=RATE / 4)
        run, fed, slower = train(base, data, seed, followers, f"α = {alpha:g}")
        (own,) = train(followers[0], data, seed, name=f"α = {alpha:g}, {SCALE}w₀")
        fading = Fading(*(differing(run, other) for other in (fed, own, slower)))
        left = np.linalg.norm(fed.end - run.end) / np.linalg.norm(fed.start - run.start)
        tqdm.write(
            f"{alpha:7g} {1 / alpha if alpha else np.inf:6.0f} "
            f"{(1 - alpha) ** len(data.batches):9.2g} {left:9.2g} {fading.fed.max():7.2%} "
            f"{fading.fed[-1]:7.2%} {fading.own[-1]:10.2%} {fading.slower[-1]:10.2%}"
        )
        fadings[alpha] = fading
    return fadings


def say(*sentences: str) -> None:
    print()
    for sentence in sentences:
        print(textwrap.fill(sentence, 80, initial_indent="- ", subsequent_indent="  "))
    print()


def plot(path: pathlib.Path, fadings: dict[float, Fading], shares: dict[str, np.ndarray]) -> None:
    """Both tables' shares over the steps."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = "Fed the same gradients", "Networks with gradients of their own"
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlabel="training step", yscale="log", ylim=(2e-3, 100))
        ax.set_title(title, fontsize="medium")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("binary weights that differ (%)")
    for alpha, fading in fadings.items():
        (line,) = axes[0].plot(percent(fading.fed), label=f"4w₀, α = {alpha:g}")
        axes[1].plot(percent(fading.own))
        draw_slope(axes[0], alpha, fading.fed, line.get_color())
    axes[0].plot([], [], "--", color="grey", label="slope of (1−α)^t")
    fading = fadings[SLOWER_ALPHA]
    label = f"η/4, α = {SLOWER_ALPHA:g} and {SLOWER_ALPHA / 4:g}"
    axes[0].plot(percent(fading.slower), "k:", label=label)
    axes[1].plot(percent(shares[NEGATED]), "k-.", label=f"one of w₀ negated, α = {ALPHA:g}")
    figure.legend(loc="outside lower center", ncols=3, fontsize="medium", frameon=False)
    figure.savefig(path, dpi=100)


def percent(shares: np.ndarray) -> np.ndarray:
    return np.where(shares > 0, 100 * shares, np.nan)  # a logarithmic axis has no 0


def draw_slope(ax: Axes, alpha: float, shares: np.ndarray, color: str) -> None:
    """(1−α)^t through the last share of 20 weights or more, where that is past the peak."""
    last = np.flatnonzero(shares >= 20 / (2 * UNITS**2)).max(initial=0)
    if shares[last] < 0.5 * shares.max():
        t = np.arange(shares.argmax(), len(shares))
        curve = shares[last] * (1 - alpha) ** (t - last)
        ax.plot(t, np.where(curve < 1, 100 * curve, np.nan), "--", color=color, alpha=0.6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--plot", type=pathlib.Path, default=pathlib.Path("magnitude_invariance.png")
    )
    args = parser.parse_args()

    start = time.perf_counter()
    data = load(args.steps, args.seed)
    print(
        f"{2 * UNITS**2:,} binary weights, {args.steps:,} steps; η = {E:g}, λ = {D:g}, momentum "
        f"{MOMENTUM:g}\n\n1. Networks compared with the one from {FIRST}\n"
    )
    shares = compare_recipes(data, args.seed)
    ever = {name: f"{(share > 0).sum()} of {args.steps:,}" for name, share in shares.items()}
    first = {name: first_step(share) for name, share in shares.items()}
    end = {name: f"{share[-1]:.0%}" for name, share in shares.items()}
    say(
        "η·k, λ/k, w₀·k train the same network: for k = 2 and 1/4, some weight differs at "
        f"{ever['2η, λ/2, 2w₀']} and {ever['η/4, 4λ, w₀/4']} steps.",
        "k = 16 takes latent weights beyond 1, where ste_sign passes no gradient. With this "
        f"clip, the first weight differs at step: {first['16η, λ/16, 16w₀']}. Without: "
        f"{first['16η, λ/16, 16w₀ without clip']}.",
        "k = 0.3 is no power of two and rounds otherwise; so does FilteredFlip. In float32, the "
        f"first weight differs at step: {first['0.3η, λ/0.3, 0.3w₀']} and "
        f"{first['FilteredFlip, from_sgd(η, λ)']}. In float64: "
        f"{first['0.3η, λ/0.3, 0.3w₀ in float64']} and {first['FilteredFlip in float64']}.",
        "Once a single weight differs, so do the gradients, and the networks part: negating one "
        f"of w₀ ends with {end[NEGATED]} of the weights differing, scaling all of w₀ by 4 with "
        f"{end['η, λ, 4w₀']}.",
        "η alone is the same as λ and w₀ together: from η, λ/4, 4w₀ and from η/4, λ, w₀, some "
        f"weight differs at {ever['η, λ/4, 4w₀']} steps.",
    )
    print(f"2. How 4w₀ differs from w₀ after {args.steps:,} steps\n")
    fadings = compare_forgetting(data, args.seed)
    say(
        "Fed the same gradients, the latent weights differ by 3w₀ times (1−α)^t, to float32's "
        "resolution: the filter forgets w₀ in a few times 1/α steps, or never when λ = 0.",
        "Networks with gradients of their own stay apart: the filters forget as fast, but what "
        "they filter differs by then.",
        "η alone changes α too, so that η/4 is another filter and goes on differing. When λ = 0, "
        "it is the same as 4w₀.",
    )
    plot(args.plot, fadings, shares)
    print(f"picture in {args.plot}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
