"""Under tf.distribute, in this process: two logical CPUs, and what is refused.

How one device and several are compared: every sum in `exact.network` is exact in float32, so in
whichever order the gradients are added, nothing may differ in any bit. In a network of real numbers
a step from the same state may differ by rounding, and in binary weights only where the filter's
output is within that of the threshold.
"""

import itertools

import larq_filters as lqf

import exact
import larq as lq
import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import assert_one_sentence, assert_same, binary_variable, from_zero, slow_but

F = lqf.filters
keras = tf.keras
STEPS, BATCH = exact.STEPS, exact.BATCH

OPTIMIZERS = {
    "CascadedEMA": lambda: from_zero(alpha=0.1, gamma=0.3),
    "scheduled": lambda: from_zero(keras.optimizers.schedules.PolynomialDecay(0.2, STEPS)),
    "op by op": lambda: from_zero(alpha=0.1, gamma=0.3, jit_compile=False),
    "bfloat16": lambda: from_zero(alpha=0.1, gamma=0.3, state_dtype="bfloat16", seed=3),
    "NormalizedEMA": lambda: from_zero(filter=F.NormalizedEMA(0.1, 0.2, epsilon=3.0)),
    "bias correction": lambda: from_zero(
        filter=F.NormalizedEMA(0.1, 0.2, epsilon=3.0, bias_correction=True)
    ),
    "bias correction, bfloat16": lambda: from_zero(
        filter=F.NormalizedEMA(0.1, 0.2, epsilon=3.0, bias_correction=True),
        state_dtype="bfloat16",
        seed=3,
    ),
    "bop": lambda: lqf.recipes.bop(threshold=2.0, gamma=0.1),
    "bop2ndorder": lambda: lqf.recipes.bop2ndorder(threshold=0.1, gamma=0.1, sigma=0.2),
    "diode": lambda: lqf.recipes.diode(0.9, 0.7),
    "clipnorm": lambda: from_zero(alpha=0.1, gamma=0.3, clipnorm=2.0),
    "global_clipnorm": lambda: from_zero(alpha=0.1, gamma=0.3, global_clipnorm=2.0),
    "clipvalue": lambda: from_zero(alpha=0.1, gamma=0.3, clipvalue=1.5),
}


def everything(model, optimizer):
    """Per replica, the binary weights and all that the optimizer keeps."""
    weights = [weight.latent_variable for weight in model.trainable_variables]
    local = tf.distribute.get_strategy().experimental_local_results
    variables = [*weights, *(getattr(v, "bits", v) for v in optimizer.variables)]  # of bfloat16
    values = [local(variable) for variable in variables]
    return [[v.numpy() for v in replica] for replica in zip(*values, strict=True)]


def fit(strategy, make_optimizer):
    """The state of every replica after every step."""
    states = []

    def keep(batch, logs):
        states.append(everything(keeper.model, keeper.model.optimizer))

    keeper = keras.callbacks.LambdaCallback(on_batch_end=keep)
    with strategy.scope():
        exact.fit(make_optimizer(), [keeper])
    assert len(states) == STEPS
    return states


@pytest.fixture(
    scope="module",
    params=slow_but(["bias correction, bfloat16"], OPTIMIZERS),
)
def one_device(request):
    """The name of an optimizer, and what it does on one device."""
    states = fit(tf.distribute.get_strategy(), OPTIMIZERS[request.param])
    weights = [state[0][0] for state in states]
    flips = [(a != b).sum() for a, b in zip(weights[:-1], weights[1:], strict=True)]
    assert np.count_nonzero(flips) >= 3  # or there is nothing to compare
    return request.param, states


def assert_all_replicas(states, expected, replicas):
    for state, (one,) in zip(states, expected, strict=True):
        assert len(state) == replicas
        for replica in state:
            assert_same(replica, one)


def test_replicas_are_at_every_step_what_one_device_is(one_device, mirrored):
    name, expected = one_device
    assert_all_replicas(fit(mirrored, OPTIMIZERS[name]), expected, replicas=2)


def test_one_device_strategy():
    make = OPTIMIZERS["CascadedEMA"]
    expected = fit(tf.distribute.get_strategy(), make)
    assert_all_replicas(fit(tf.distribute.OneDeviceStrategy("CPU:1"), make), expected, 1)


def by_default(gradients, variables, optimizer):
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def reduced_by_hand(argument):
    def apply(gradients, variables, optimizer):
        gradients = tf.distribute.get_replica_context().all_reduce("sum", gradients)
        optimizer.apply_gradients(zip(gradients, variables, strict=True), **argument)

    return apply


REDUCED = {
    "by default": by_default,
    "skip": reduced_by_hand({"skip_gradients_aggregation": True}),
    "experimental": reduced_by_hand({"experimental_aggregate_gradients": False}),
}


@pytest.mark.parametrize(
    ("parts", "reduced"),
    slow_but(
        [(4, "by default"), (1, "skip"), (1, "experimental")],
        list(itertools.product((1, 4), REDUCED)),
    ),
)
def test_custom_loops_reduce_once_and_filter_the_mean(parts, reduced, mirrored):
    """Against NumPy: the mean over the global batch; neither a sum over replicas nor one twice.

    At once, or accumulated over parts of a batch.
    """
    apply = REDUCED[reduced]
    with mirrored.scope():
        model, optimizer = exact.network(), from_zero(filter=F.EMA(0.25), threshold=1.0)
        optimizer.build(model.trainable_variables)
        sums = [
            tf.Variable(
                tf.zeros(v.shape),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for v in model.trainable_variables
        ]

    @tf.function
    def add(x, y):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(exact.loss(y, model(x, training=True))) / BATCH
        for total, g in zip(sums, tape.gradient(value, model.trainable_variables), strict=True):
            total.assign_add(g)

    @tf.function
    def step():
        apply([tf.identity(total) for total in sums], model.trainable_variables, optimizer)
        for total in sums:
            total.assign(tf.zeros(total.shape))

    theta = [np.where(w < 0, -1.0, 1.0) for w in model.get_weights()]
    filters = [reference.EMA(0.25), reference.EMA(0.25)]
    for x, y in zip(*exact.batches(), strict=True):
        for part in np.split(np.arange(BATCH), parts):
            halves = np.split(part, 2)
            mirrored.run(add, [per_replica(mirrored, [a[h] for h in halves]) for a in (x, y)])
        mirrored.run(step)
        error = (x @ theta[0] @ theta[1] - y) / BATCH
        gradients = [x.T @ error @ theta[1].T, (x @ theta[0]).T @ error]
        for k, (filter, g) in enumerate(zip(filters, gradients, strict=True)):
            theta[k] = reference.flip(theta[k], filter(g), threshold=1.0)
            for replica in range(2):
                state = everything_of(mirrored, optimizer.slots(model.trainable_variables[k])["y"])
                np.testing.assert_allclose(state[replica], filter.y, rtol=1e-5, atol=1e-5)
        assert_same(theta, model.get_weights())
    assert all(np.abs(filter.y).max() > 2.0 for filter in filters)  # at which twice is not once


def per_replica(strategy, values):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(values[context.replica_id_in_sync_group])
    )


def everything_of(strategy, variable):
    return [v.numpy() for v in strategy.experimental_local_results(variable)]


@pytest.mark.parametrize("made", slow_but(["inside"], ["inside", "outside"]))
def test_real_numbers_follow_one_device_within_rounding(made, digits, mirrored):
    """At every step; also with an optimizer that was made outside of the strategy's scope.

    Each step of the two devices starts from the state of the one, or a bit that rounding turned
    would make another network.
    """
    batches = [tuple(a[i : i + 64] for a in digits) for i in range(0, 20 * 64, 64)]
    decay = keras.optimizers.schedules.PolynomialDecay

    def run(strategy, starts=None):
        def make():
            sgd = keras.optimizers.SGD(decay(1e-2, 20, 0.0), momentum=0.9)
            return from_zero(alpha=decay(0.05, 20, 0.0), real_optimizer=sgd)

        keras.utils.set_random_seed(1)
        optimizer, states = make(), []
        with strategy.scope():
            optimizer = make() if made == "inside" else optimizer
            model = keras.Sequential(
                [
                    lq.layers.QuantConv2D(
                        8, 3, input_shape=(8, 8, 1), kernel_quantizer=lq.quantizers.NoOp(1)
                    ),
                    keras.layers.Flatten(),
                    lq.layers.QuantDense(10),
                ]
            )
            model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            optimizer.build(model.trainable_variables)
        kernel, *others = model.trainable_variables
        variables = [
            *(kernel.latent_variable, optimizer.slots(kernel)["y"], optimizer.slots(kernel)["m"]),
            *(*others, *optimizer.real_optimizer.momentums),
        ]
        for batch, start in zip(batches, starts or [[]] * len(batches), strict=True):
            with strategy.scope():
                for variable, value in zip(variables, start, strict=bool(start)):
                    variable.assign(value[0])
            before = [everything_of(strategy, variable) for variable in variables]
            model.train_on_batch(*batch)
            states.append((before, [everything_of(strategy, variable) for variable in variables]))
        return states

    one = run(tf.distribute.get_strategy())
    two = run(mirrored, [before for before, _ in one])
    flipped = 0
    for ((start, *_), one_device), (_, two_devices) in zip(one, two, strict=True):
        for replicas in two_devices:
            assert_same(replicas[:1], replicas[1:])
        (theta, *real), (other, *other_real) = (
            [v[0] for v in s] for s in (one_device, two_devices)
        )
        for a, b in zip(real, other_real, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())
        sure = np.abs(real[0]) > 1e-5 * np.abs(real[0]).max()  # what the filter puts out
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(other[sure], theta[sure])
        flipped += (theta != start[0]).sum()
    assert flipped > 20


# Refused


def test_central_storage_is_refused():
    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], "CPU:0")
    with strategy.scope():
        model = exact.network()
        optimizer = from_zero()
        assert_one_sentence(
            lambda: optimizer.build(model.trainable_variables),
            ValueError,
            "under CentralStorageStrategy, larq's binary variables cannot be updated: use "
            "tf.distribute.MirroredStrategy",
        )


@pytest.mark.parametrize(
    "kind", [tf.distribute.TPUStrategy, tf.distribute.experimental.TPUStrategy]
)
def test_tpus_are_refused(kind, monkeypatch):
    """Without a TPU there is no such strategy, so this is an empty object of its class."""
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: object.__new__(kind))
    assert_one_sentence(
        lambda: from_zero().build([binary_variable([1.0])]),
        ValueError,
        "FilteredFlip has never been run: use tf.distribute.MirroredStrategy or "
        "MultiWorkerMirroredStrategy",
    )
