r"""Hyperparameter search: KerasTuner's tuners for Keras 2 models, and search spaces.

`RandomSearch`, `BayesianOptimization`, `Hyperband`, `GridSearch`, `HyperModel`, `HyperParameters`
and `Objective` are KerasTuner's own. Take them from here, because KerasTuner works with Keras 3
only unless this module is imported first.

>>> def build(hp):
...     model = tf.keras.Sequential([
...         lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(4,)),
...         tf.keras.layers.Dense(2),
...     ])
...     model.compile(lqf.tuning.filtered_flip(hp, steps=1000), "mse", metrics=["mae"])
...     return model
>>> tuner = lqf.tuning.RandomSearch(
...     build, "val_loss", max_trials=2, directory=folder, project_name="search"
... )
>>> tuner.search(
...     np.ones((8, 4)), np.ones((8, 2)), validation_split=0.5, epochs=1, verbose=0
... )
>>> [sorted(hp.values) for hp in tuner.get_best_hyperparameters()]
[['alpha', 'alpha_decay', 'gamma']]
"""

from larq_filters.tuning._keras_tuner import keras_tuner
from larq_filters.tuning._spaces import LatentRecipe, filtered_flip, latent_sgd

BayesianOptimization = keras_tuner().BayesianOptimization
GridSearch = keras_tuner().GridSearch
Hyperband = keras_tuner().Hyperband
HyperModel = keras_tuner().HyperModel
HyperParameters = keras_tuner().HyperParameters
Objective = keras_tuner().Objective
RandomSearch = keras_tuner().RandomSearch

__all__ = [
    "BayesianOptimization",
    "GridSearch",
    "HyperModel",
    "HyperParameters",
    "Hyperband",
    "LatentRecipe",
    "Objective",
    "RandomSearch",
    "filtered_flip",
    "latent_sgd",
]
