"""A training under ParameterServerStrategy, all of its servers in this process.

    python parameter_servers.py WORKERS SERVERS

Prints JSON: what the training left, and what one device alone makes of the same batches.
"""

import json
import os
import socket
import sys

import larq_filters as lqf

import larq as lq
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

STEPS, BATCH = 90, 64


def start_servers(**tasks):
    sockets = {job: [socket.socket() for _ in range(number)] for job, number in tasks.items()}
    for some in sockets.values():
        for one in some:
            one.bind(("127.0.0.1", 0))
    cluster = tf.train.ClusterSpec(
        {
            job: [f"127.0.0.1:{one.getsockname()[1]}" for one in some]
            for job, some in sockets.items()
        }
    )
    for some in sockets.values():
        for one in some:
            one.close()
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
    servers = [
        tf.distribute.Server(cluster, job, index, config=config)
        for job, number in tasks.items()
        for index in range(number)
    ]
    return servers, tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")


def train(strategy):
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
        decay = tf.keras.optimizers.schedules.PolynomialDecay(2e-2, STEPS, 0.0)
        model.compile(
            lqf.optimizers.FilteredFlip(decay, real_optimizer="sgd"),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    batches = examples.repeat().batch(BATCH)
    history = model.fit(
        batches,
        epochs=3,
        steps_per_epoch=STEPS // 3,
        verbose=0,
        callbacks=lqf.callbacks.FlipRatio(),
    ).history
    return model, history


def binary_layers(model):
    """Weights and filter states of each binary layer, and where they are."""
    for layer in (2, 4):
        weights = model.layers[layer].trainable_variables[0]
        variables = [weights, *model.optimizer.slots(weights).values()]
        yield [v.numpy() for v in variables], sorted({v.device for v in variables})


def main():
    workers, servers = map(int, sys.argv[1:])
    alone, _ = train(tf.distribute.get_strategy())
    alone = list(binary_layers(alone))  # a cluster takes this process's own variables away
    running, resolver = start_servers(worker=workers, ps=servers)
    model, history = train(tf.distribute.ParameterServerStrategy(resolver))
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


main()
