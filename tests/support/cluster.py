"""A process of a cluster with parameter servers: some of the servers, or the coordinator.

    python cluster.py FOLDER JOB INDEX [JOB INDEX ...]
    python cluster.py FOLDER

FOLDER/cluster.json says where all are. The coordinator backs up in FOLDER every epoch, and prints
what it begins with, and what each epoch ends with: steps, and a fingerprint of all variables. While
there is a file FOLDER/hold, it waits after the epoch of its own whose number is in it.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import sys
import threading
import time

import larq_filters as lqf  # noqa: F401  (before TensorFlow's Keras is touched: selects Keras 2)

import parameter_servers
import tensorflow as tf

EPOCHS = 12


def hold(epochs):
    with contextlib.suppress(FileNotFoundError):  # it may be gone at any moment
        while epochs >= int((folder / "hold").read_text()):
            time.sleep(0.05)


def make_callbacks(model):
    ended = itertools.count(1)

    def note(what):
        digest = hashlib.sha256()
        for variable in [*model.weights, *model.optimizer.variables]:
            digest.update(variable.numpy().tobytes())
        print(what, model.optimizer.iterations.numpy(), digest.hexdigest(), flush=True)

    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
    on = tf.keras.callbacks.LambdaCallback
    return [
        on(on_epoch_end=lambda epoch, logs: note("end")),  # before it is backed up
        on(on_epoch_end=lambda epoch, logs: hold(next(ended))),
        tf.keras.callbacks.BackupAndRestore(str(folder / "backup"), delete_checkpoint=False),
        on(on_train_begin=lambda logs: note("begin")),  # after it was restored
    ]


folder, tasks = pathlib.Path(sys.argv[1]), sys.argv[2:]
cluster = json.loads((folder / "cluster.json").read_text())
if tasks:
    servers = parameter_servers.start_servers(
        cluster, zip(tasks[::2], map(int, tasks[1::2]), strict=True)
    )
    threading.Event().wait()
else:
    parameter_servers.train(parameter_servers.connect(cluster), EPOCHS, make_callbacks)
    os._exit(0)
