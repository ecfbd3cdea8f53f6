"""What the events in the life of a model leave of its binary weights.

    python benchmarks/life_events.py
    python benchmarks/life_events.py --optimizers CascadedEMA "latent Adam" --ways compiled

A small network is trained on scikit-learn's digits for two epochs. Then something happens to it:
better weights are restored, it is compiled again, a head is exchanged. It measures the share of its
binary weights that the next step changes, beside what latent weights trained by Adam lose in the
same event. Each is measured eagerly, in a graph, and mirrored on two devices. Writes
results/life_events.json; 15 minutes on 2 cores.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import larq_filters as lqf
from larq_filters import filters, recipes

import larq as lq
import tensorflow as tf
from support import digits, machine

keras = tf.keras
Adam = keras.optimizers.Adam
Make = Callable[..., Any]  # from a rate for the binary weights to an optimizer
LATENT = "latent Adam"


def flip(filter: Callable[[float], filters.Filter]) -> Make:
    return lambda rate, **kw: lqf.optimizers.FilteredFlip(
        filter=filter(rate), real_optimizer=Adam(1e-2), **kw
    )


OPTIMIZERS: dict[str, Make] = {
    LATENT: lambda rate, **_: Adam(rate),
    "EMA": flip(filters.EMA),
    "CascadedEMA": flip(lambda rate: filters.CascadedEMA(rate, 0.1)),
    "IIR": flip(lambda rate: filters.IIR.from_sos(filters.CascadedEMA(rate, 0.1).sos)),
    "NormalizedEMA": flip(lambda rate: filters.NormalizedEMA(rate, rate)),
    "Diode": flip(lambda rate: recipes.diode(0.9, 1 - rate).filter),
    "Bop": lambda rate, **kw: recipes.bop(
        1e-8, rate, real_optimizer=Adam(1e-2), **{"inertia": None, **kw}
    ),
}
HEADS = {LATENT: "latent", "CascadedEMA": "cascade", "NormalizedEMA": "normal."}
WAYS = {"eager": {"run_eagerly": True}, "compiled": {}, "mirrored": {}}
RATE, LOWER, FINE = 1e-2, 1e-3, 1e-4


class Life:
    """A model that was trained with an optimizer, in one way, and what may happen to it."""

    def __init__(self, name: str, way: str) -> None:
        self.make, self.options = OPTIMIZERS[name], WAYS[way]
        devices = tf.config.list_logical_devices("CPU")
        mirrored = tf.distribute.MirroredStrategy(devices)
        self.strategy = mirrored if way == "mirrored" else tf.distribute.get_strategy()
        self.train, _ = digits.data()
        with self.strategy.scope():
            self.model = self.compiled(digits.network(1), self.make(RATE))
        self.fit(self.model, epochs=1)
        self.earlier = self.model.get_weights()
        self.fit(self.model, epochs=1)
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.model.save(self.folder / "model.keras")
        self.weights = self.model.get_weights()

    def compiled(self, model: keras.Model, optimizer: Any) -> keras.Model:
        return digits.compile(model, optimizer, **self.options)

    def fit(self, model: keras.Model, epochs: int, images: int | None = None) -> None:
        x, y = (array[:images] for array in self.train)
        model.fit(x, y, digits.BATCH, epochs=epochs, shuffle=False, verbose=0)

    def fresh(self, rate: float) -> keras.Model:
        """Another model of the same architecture, with an optimizer that is new."""
        return self.compiled(digits.network(2), self.make(rate))

    def trained(self, rate: float) -> keras.Model:
        model = self.fresh(rate)
        model.set_weights(self.weights)
        return model

    # Events: each returns a model whose next step is looked at

    def resume(self) -> keras.Model:
        model = keras.models.load_model(self.folder / "model.keras")
        model.run_eagerly = self.options.get("run_eagerly", False)  # which is not saved
        return model

    def restore_best(self) -> keras.Model:
        model = self.resume()
        model.set_weights(self.earlier)
        return model

    def swap_and_back(self) -> keras.Model:
        model = self.resume()
        model.set_weights(self.earlier)
        model.evaluate(*(array[:64] for array in self.train), verbose=0)
        model.set_weights(self.weights)
        return model

    def recompile(self) -> keras.Model:
        return self.trained(LOWER)

    def fine_tune(self) -> keras.Model:
        return self.trained(FINE)

    def new_head(self) -> keras.Model:
        model = self.fresh(LOWER)
        for name in ("first", "conv", "dense"):
            model.get_layer(name).set_weights(self.model.get_layer(name).get_weights())
        return model

    def unfreeze(self) -> keras.Model:
        model = self.trained(LOWER)
        model.get_layer("conv").trainable = False
        self.compiled(model, self.make(LOWER))
        self.fit(model, epochs=1, images=64)
        model.get_layer("conv").trainable = True
        return self.compiled(model, self.make(LOWER))

    def two_step(self) -> keras.Model:
        real = digits.network(1, kernel_quantizer=lq.quantizers.NoOp(precision=32))
        self.fit(self.compiled(real, Adam(1e-2)), epochs=1)
        # These are no bits, and random weights would look the same: inertia is asked for.
        optimizer = self.make(LOWER, inertia=0.1)
        model = self.compiled(digits.network(2), optimizer)
        model.set_weights(real.get_weights())
        return model

    def to_latent_free(self) -> keras.Model:
        model = lqf.conversion.to_latent_free(self.model)
        return self.compiled(model, self.make(LOWER))

    def load_weights_h5(self) -> keras.Model:
        return self._load_weights("weights.h5")

    def load_weights_checkpoint(self) -> keras.Model:
        return self._load_weights("weights")

    def load_weights_v3(self) -> keras.Model:
        return self._load_weights("weights.weights.h5")

    def _load_weights(self, name: str) -> keras.Model:
        self.model.set_weights(self.weights)
        self.model.save_weights(self.folder / name)
        model = self.fresh(LOWER)
        model.load_weights(self.folder / name)  # of a checkpoint, with the optimizer's state
        return model

    def lost(self, event: str) -> float:
        """The share of bits that the next step changes."""
        with self.strategy.scope():
            model = getattr(self, event)()
        before = digits.bits(model)
        self.fit(model, epochs=1, images=digits.BATCH)
        return float((digits.bits(model) != before).mean())


EVENTS = (
    "resume",
    "restore_best",
    "swap_and_back",
    "recompile",
    "fine_tune",
    "new_head",
    "unfreeze",
    "two_step",
    "to_latent_free",
    "load_weights_h5",
    "load_weights_v3",
    "load_weights_checkpoint",
)


def show(table: dict[str, dict[str, dict[str, float]]]) -> None:
    for way, columns in table.items():
        names = [name for name in OPTIMIZERS if name in columns]
        heads = "".join(f"{HEADS.get(name, name):>8}" for name in names)
        print(f"\n{f'{way}: bits lost, %':24}{heads}")
        for event in EVENTS:
            if event in next(iter(columns.values())):
                shares = (f"{100 * columns[name][event]:8.2f}" for name in names)
                print(f"{event.replace('_', ' '):24}" + "".join(shares))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=EVENTS)
    args = parser.parse_args()

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for way in args.ways:
        for name in args.optimizers:
            life = Life(name, way)
            lost = {event: life.lost(event) for event in args.events}
            table.setdefault(way, {})[name] = lost
            machine.write("life_events", {"lost": table})
            worst = max(lost, key=lambda event: lost[event])
            print(f"{way}, {name}: at most {lost[worst]:.2%} ({worst})", flush=True)
    show(table)


if __name__ == "__main__":
    main()
