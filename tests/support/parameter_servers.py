"""A training under ParameterServerStrategy, all of its servers in this process.

    python parameter_servers.py WORKERS SERVERS [FLIP_RATIO]

With FLIP_RATIO, the optimizer keeps to it, and the training is longer. Prints JSON: what the
training left, and what one device alone makes of the same batches.
"""

import json
import os
import sys

import larq_filters as lqf

import larq as lq
import numpy as np
import tensorflow as tf
from helpers import free_addresses
from sklearn.datasets import load_digits

EPOCHS, STEPS, BATCH = 3, 30, 64  # steps in an epoch


def start_servers(cluster, tasks):
    """Of a cluster, some tasks: pairs of a job and an index."""
    cluster = tf.train.ClusterSpec(cluster)
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
    return [tf.distribute.Server(cluster, job, index, config=config) for job, index in tasks]


def connect(cluster):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), rpc_layer="grpc"
    )
    return tf.distribute.ParameterServerStrategy(resolver)


def train(strategy, epochs=EPOCHS, make_callbacks=lambda model: [], flip_ratio=None):
    x, y = load_digits(return_X_y=True)
    examples = tf.data.Dataset.from_tensor_slices(((x / 8 - 1).astype("float32"), y))
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": lq.quantizers.NoOp(precision=1)}
    tf.keras.utils.set_random_seed(1)
    with strategy.scope():
        layers = [
            lq.layers.QuantDense(64, input_shape=(64,)),
            tf.keras.layers.BatchNormalization(),
            lq.layers.QuantDense(64, use_bias=False, **binary),
            tf.keras.layers.BatchNormalization(),
            lq.layers.QuantDense(32, use_bias=False, **binary),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dense(10),
        ]
        model = tf.keras.Sequential(layers)
        decay = tf.keras.optimizers.schedules.PolynomialDecay(2e-2, epochs * STEPS, 0.0)
        alpha = decay if flip_ratio is None else None
        model.compile(
            lqf.optimizers.FilteredFlip(alpha, flip_ratio=flip_ratio, real_optimizer="sgd"),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    batches = examples.repeat().batch(BATCH)
    history = model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[lqf.callbacks.FlipRatio(), *make_callbacks(model)],
    ).history
    return model, history


def binary_layers(model):
    """Weights and filter states of each binary layer, and where they are."""
    for layer in (2, 4):
        weights = model.layers[layer].trainable_variables[0]
        variables = [weights, *model.optimizer.slots(weights).values()]
        yield [v.numpy() for v in variables], sorted({v.device for v in variables})


def main():
    workers, servers = map(int, sys.argv[1:3])
    options = {"epochs": 12, "flip_ratio": float(sys.argv[3])} if sys.argv[3:] else {}
    alone, _ = train(tf.distribute.get_strategy(), **options)
    alone = list(binary_layers(alone))  # a cluster takes this process's own variables away
    cluster = free_addresses(worker=workers, ps=servers)
    tasks = [(job, i) for job, addresses in cluster.items() for i in range(len(addresses))]
    _running = start_servers(cluster, tasks)
    model, history = train(connect(cluster), **options)
    layers = [
        {
            "values": np.unique(found[0]).tolist(),
            "same_as_one_device": all(map(np.array_equal, found, expected)),
            "devices": devices,
        }
        for (found, devices), (expected, _) in zip(binary_layers(model), alone, strict=True)
    ]
    result = {
        "steps": int(model.optimizer.iterations.numpy()),
        "alpha": float(model.optimizer.alpha.numpy()),
        "accuracy": history["accuracy"],
        "flip_ratio": history["flip_ratio"],
        "layers": layers,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # servers cannot be stopped


if __name__ == "__main__":
    main()
