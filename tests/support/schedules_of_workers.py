"""What a schedule of α comes to under ParameterServerStrategy, with one worker in this process.

    python schedules_of_workers.py

α decays from 1 to 0 in 8 steps. Prints JSON: by filters and by what happens after the second step,
the α of every filter after every step.
"""

import json
import os
import tempfile

import larq_filters as lqf

import larq as lq
import parameter_servers
import tensorflow as tf
from helpers import free_addresses

DECAY = tf.keras.optimizers.schedules.PolynomialDecay(1.0, 8, 0.0)
FILTERS = {"one": {"alpha": DECAY, "gamma": None}}
FILTERS["by layer"] = {"filter": dict.fromkeys(("first", "second"), lqf.filters.EMA(DECAY))}


def late_write(optimizer):
    """Another worker, in the midst of an earlier step, which asks nobody."""
    for variable in optimizer.coefficients.values():
        if "alpha" in variable.name:
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=tf.constant(0.9375))


def set_by_user(optimizer):
    optimizer.learning_rate = 0.375


def decrease(optimizer):
    optimizer.learning_rate.assign_sub(0.5)


def set_when_ended(optimizer):
    optimizer.iterations.assign(8)
    optimizer.learning_rate = 0.25


class Training:
    """Two layers, of four binary weights each, and gradients of one."""

    def __init__(self, coordinator, arguments):
        self.coordinator, strategy = coordinator, coordinator.strategy
        with strategy.scope():
            binary = {"kernel_quantizer": lq.quantizers.NoOp(precision=1), "use_bias": False}
            names = ("first", "second")
            model = tf.keras.Sequential([lq.layers.QuantDense(2, name=n, **binary) for n in names])
            model.build((None, 2))
            kernels = model.trainable_weights
            self.optimizer = lqf.optimizers.FilteredFlip(**arguments)
            self.optimizer.build(kernels)

        @tf.function
        def step():
            pairs = [(tf.ones((2, 2)), kernel) for kernel in kernels]
            strategy.run(lambda: self.optimizer.apply_gradients(pairs))

        self._step = step

    def step(self):
        """One step; returns the α of every filter, of those without layers, too."""
        self.coordinator.schedule(self._step)
        self.coordinator.join()
        coefficients = self.optimizer.coefficients.items()
        return [float(value.numpy()) for name, value in coefficients if "alpha" in name]


def main():
    cluster = free_addresses(worker=1, ps=1)
    _running = parameter_servers.start_servers(cluster, [("worker", 0), ("ps", 0)])
    coordinator = tf.distribute.coordinator.ClusterCoordinator(parameter_servers.connect(cluster))
    found = {}
    for name, arguments in FILTERS.items():
        found[name] = {}
        for happens in (late_write, set_by_user, decrease, set_when_ended):
            training = Training(coordinator, arguments)
            seen = [training.step() for _ in range(2)]
            happens(training.optimizer)
            found[name][happens.__name__] = seen + [training.step() for _ in range(2)]
        one, other = (Training(coordinator, arguments) for _ in range(2))
        seen = [one.step() for _ in range(2)]
        set_by_user(one.optimizer)
        with tempfile.TemporaryDirectory() as folder:
            path = tf.train.Checkpoint(optimizer=one.optimizer).write(f"{folder}/checkpoint")
            tf.train.Checkpoint(optimizer=other.optimizer).read(path)
        found[name]["restored"] = seen + [other.step() for _ in range(2)]
    print(json.dumps(found), flush=True)
    os._exit(0)  # servers cannot be stopped


if __name__ == "__main__":
    main()
