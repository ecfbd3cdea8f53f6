"""Ideas beside the default on a task of a minute: what is tried before it costs hours elsewhere.

    python benchmarks/quick_search.py                     # what has no result yet
    python benchmarks/quick_search.py balanced --seeds 3
    python benchmarks/quick_search.py --report            # of what there is

The task is `words` of untuned.py, a convolutional network that tells the language of a word. Most
know their end: α decays as a square and the learning rate of Adam for real weights linearly. Those
that keep averages are looked at with these in place. Batch norm is recalibrated. A finished run is
not done again.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import larq_filters as lqf
from larq_filters import filters

import larq as lq
import tensorflow as tf
import untuned
from support import machine, regret, results, tasks
from support.candidates import Adam, Schedule

NAME, EPOCHS = "quick_search", (5, 25)
STEPS = 274  # of an epoch
ALPHA, GAMMA, RATE = 1e-2, 0.1, 1e-2
Decay = tf.keras.optimizers.schedules.PolynomialDecay


def alpha(steps: int, alpha: float = ALPHA) -> Schedule:
    return Decay(alpha, steps, 0.0, power=2.0)


def default(steps: int) -> filters.Filter:
    return filters.CascadedEMA(alpha(steps), GAMMA)


def normalized(inner: filters.Filter) -> filters.Filter:
    """Behind a filter that divides gradients by their own root mean square."""
    return filters.Cascade(filters.NormalizedEMA(1.0, 1e-2, bias_correction=True), inner)


def noise(alpha: Any) -> tf.Tensor:
    """The standard deviation of what CascadedEMA makes of noise of deviation 1."""
    return tf.sqrt(alpha * GAMMA / (2.0 * (alpha + GAMMA) + 1e-12))


class Noise(Schedule):
    """That deviation times z, as α decays."""

    def __init__(self, z: float, steps: int) -> None:
        self.z, self.alpha = z, alpha(steps)

    def __call__(self, step: Any) -> tf.Tensor:
        return self.z * noise(self.alpha(step))

    def get_config(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Own(filters.Filter):
    """CascadedEMA, as what others of this file are made of."""

    alpha: Any
    slots, tunable = ("m", "y"), ("alpha",)

    def step(self, state: Any, x: Any, coefficients: Any) -> tuple[dict[str, Any], Any]:
        m = state["m"] + GAMMA * (x - state["m"])
        y = state["y"] + coefficients["alpha"] * (m - state["y"])
        return {"m": m, "y": y}, y


class Centered(Own):
    """The gradients of a filter's weights have the mean 0."""

    def step(self, state: Any, x: Any, coefficients: Any) -> tuple[dict[str, Any], Any]:
        x = x - tf.reduce_mean(x, axis=list(range(x.shape.rank - 1)), keepdims=True)
        return super().step(state, x, coefficients)


class Balanced(Own):
    """As many weights of a filter are +1 as are −1: y is compared with its median."""

    def step(self, state: Any, x: Any, coefficients: Any) -> tuple[dict[str, Any], Any]:
        state, y = super().step(state, x, coefficients)
        if y.shape.rank < 2:  # the start by inertia, of flat weights
            return state, y
        rows = tf.sort(tf.reshape(y, [-1, y.shape[-1]]), axis=0)
        half = rows.shape[0] // 2
        return state, y - 0.5 * (rows[half - 1] + rows[half])


class Remembering(Own):
    """With the last sign of what was put out, as s, and a count of steps or flips, as n."""

    slots = ("m", "y", "s", "n")


class Stubborn(Remembering):
    """The threshold grows with a bit's flips, up to the deviation of the output's noise."""

    def step(self, state: Any, x: Any, coefficients: Any) -> tuple[dict[str, Any], Any]:
        new, y = super().step(state, x, coefficients)
        n, s = state["n"], state["s"]
        y = tf.where(tf.abs(y) > noise(coefficients["alpha"]) * n / (n + 10.0), y, 0.0)
        flips = tf.cast((tf.sign(y) != s) & (y != 0), y.dtype)
        return {**new, "n": n + flips, "s": tf.where(y != 0, tf.sign(y), s)}, y


class Forgetful(Remembering):
    """α is up to three times as large for a bit that has not flipped for 2/α steps."""

    def step(self, state: Any, x: Any, coefficients: Any) -> tuple[dict[str, Any], Any]:
        own = coefficients["alpha"] * (1.0 + tf.minimum(state["n"] * coefficients["alpha"], 2.0))
        new, y = super().step(state, x, {"alpha": tf.minimum(own, 1.0)})
        same = tf.cast(tf.sign(y) == state["s"], y.dtype)
        return {**new, "n": (state["n"] + 1.0) * same, "s": tf.sign(y)}, y


class Voted(Own):
    """The weight in training is the sign of an average of the bits that CascadedEMA asks for.

    As averages have c/(t + c) for the newest, but batch norm and gradients see them.
    """

    slots, tunable = ("m", "y", "x"), ("alpha", "newest")

    def __init__(self, c: int) -> None:
        decay = tf.keras.optimizers.schedules.InverseTimeDecay
        object.__setattr__(self, "alpha", decay(ALPHA, 200, 1.0))  # FilteredFlip's without an end
        object.__setattr__(self, "newest", decay(1.0, c, 1.0))

    def step(self, state: Any, x: Any, coefficients: Any) -> tuple[dict[str, Any], Any]:
        new, y = super().step(state, x, coefficients)
        votes = state["x"] + coefficients["newest"] * (tf.sign(y) - state["x"])
        return {**new, "x": votes}, votes


@tf.custom_gradient
def reste(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """The sign of an activation, with the gradient of |x|^½ (ReSTE, o = 2), cut off at 0.1, 1.5."""
    slope = 0.5 / tf.sqrt(tf.maximum(tf.abs(x), 0.1))
    return lq.math.sign(x), lambda dy: tf.where(tf.abs(x) < 1.5, slope * dy, 0.0)


@dataclasses.dataclass(frozen=True)
class Idea:
    """What differs from the default.

    Attributes:
        filter: From the number of steps.
        arguments: Of FilteredFlip in place of a filter, from the number of steps.
        activations: The quantizer of the inputs of binary layers.
        knows_end: Or one training is looked at after each length.
    """

    what: str
    filter: Callable[[int], filters.Filter] = default
    arguments: Callable[[int], dict[str, Any]] = lambda steps: {}
    activations: Any = "ste_sign"
    knows_end: bool = True


def endless(what: str, **arguments: Any) -> Idea:
    """Of FilteredFlip's own schedules, but for the arguments."""
    schedule = lqf.optimizers.InverseSquareRootDecay(RATE, 390)  # its own without an end

    def own(steps: int) -> dict[str, Any]:
        return {"filter": None, "real_optimizer": Adam(schedule), **arguments}

    return Idea(what, arguments=own, knows_end=False)


def flip_ratio(ratio: float, **more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda steps: {"flip_ratio": ratio, "decay_steps": steps, "filter": None, **more}


BY_SIZE = {  # the first binary layer has 64 channels, the other one more
    (lambda v: v.shape[-1] == 64): filters.CascadedEMA(ALPHA, GAMMA),
    "*": filters.CascadedEMA(ALPHA, GAMMA),
}
IDEAS = {
    "default": Idea("the default, which knows its end"),
    "approx_sign": Idea("activations by `approx_sign`", activations="approx_sign"),
    "swish_sign": Idea("activations by `swish_sign`", activations="swish_sign"),
    "reste": Idea("activations by ReSTE, o = 2", activations=reste),
    "frozen": Idea("no bit flips in the last tenth", lambda n: default(round(0.9 * n))),
    "centered": Idea("gradients of each filter with mean 0", lambda n: Centered(alpha(n))),
    "balanced": Idea("as many +1 as −1 in each filter", lambda n: Balanced(alpha(n))),
    "flip_ratio 1 %": Idea("`flip_ratio=0.01`", arguments=flip_ratio(1e-2)),
    "flip_ratio 0.3 %": Idea("`flip_ratio=0.003`", arguments=flip_ratio(3e-3)),
    "flip_ratio 1 %, by layer": Idea(
        "`flip_ratio=0.01`, α for each layer", arguments=flip_ratio(1e-2, filter=BY_SIZE)
    ),
    "normalized": Idea("gradients divided by their rms", lambda n: normalized(default(n))),
    "z 0.3": Idea(
        "the same, threshold 0.3 deviations of the noise of y",
        lambda n: normalized(default(n)),
        lambda n: {"threshold": Noise(0.3, n)},
    ),
    "z 1": Idea(
        "the same, threshold 1 deviation",
        lambda n: normalized(default(n)),
        lambda n: {"threshold": Noise(1.0, n)},
    ),
    "stubborn": Idea(
        "the same, threshold grows with a bit's flips, to 1 deviation",
        lambda n: normalized(Stubborn(alpha(n))),
    ),
    "no end": endless("without an end, averages with c = 16", average=16),
    **{f"no end, {c}": endless(f"the same, c = {c}", average=c) for c in (4, 64)},
    "restarts": endless(
        "the same, c = 16, warm restarts of α after 1, 3, 7, 15 ... epochs",
        average=16,
        alpha=tf.keras.optimizers.schedules.CosineDecayRestarts(ALPHA, STEPS),
    ),
    "voted": endless(
        "without an end, weights are the sign of such averages, c = 16", filter=Voted(16)
    ),
    "forgetful": Idea("α up to 3 times as large for silent bits", lambda n: Forgetful(alpha(n))),
}


def train(idea: Idea, seed: int, epochs: tuple[int, ...]) -> dict[str, Any]:
    def make(steps: int) -> tf.keras.optimizers.Optimizer:
        real = Adam(Decay(RATE, steps, 0.0))
        arguments = {"filter": idea.filter(steps), "real_optimizer": real, **idea.arguments(steps)}
        return lqf.optimizers.FilteredFlip(**arguments)

    words = tasks.TASKS["words"]

    def network(seed: int, **kernel: Any) -> tf.keras.Model:
        return words.network(seed, input_quantizer=idea.activations, **kernel)

    task = dataclasses.replace(words, network=network)
    return untuned.train(task, untuned.Entry(make), seed, epochs)


def show(lengths: Sequence[int]) -> None:
    print(f"{'test accuracy, %, after epochs':34}" + "".join(f"{n:>14}" for n in lengths))
    known = regret.accuracies({"runs": results.runs(NAME)})
    for name in IDEAS:
        rows = [[*known.get((name, n), {}).values()] for n in lengths]
        if any(rows):
            print(f"{name:34}" + "".join(f"{results.mean(row) if row else '':>14}" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ideas", nargs="*", metavar="IDEA", help=f"of {', '.join(IDEAS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    for name in args.ideas:
        if name not in IDEAS:
            parser.error(f"there is no idea {name!r}: choose from {'; '.join(IDEAS)}")
    for seed in range(0 if args.report else args.seeds):
        for name in args.ideas or IDEAS:
            lengths = tuple(args.epochs)
            for epochs in [(n,) for n in lengths] if IDEAS[name].knows_end else [lengths]:
                run = f"{name} | {'_'.join(map(str, epochs))} epochs | seed {seed}"
                if run not in results.runs(NAME):
                    print(run, flush=True)
                    result = train(IDEAS[name], seed, epochs)
                    what = {name: idea.what for name, idea in IDEAS.items()}
                    result["machine"] = machine.describe()
                    runs = {**results.runs(NAME), run: result}
                    machine.write(NAME, {"what": what, "runs": runs})
    show(args.epochs)


if __name__ == "__main__":
    main()
