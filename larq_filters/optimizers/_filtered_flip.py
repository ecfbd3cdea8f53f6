"""FilteredFlip: binary weights by filtering gradients, all others by a Keras optimizer."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters import _layers
from larq_filters._numbers import Coefficient, call
from larq_filters._serialization import register
from larq_filters.filters import Filter
from larq_filters.optimizers import _arguments
from larq_filters.optimizers._averages import Averages
from larq_filters.optimizers._binaries import Binaries
from larq_filters.optimizers._coefficients import Coefficients
from larq_filters.optimizers._flip import Numbers
from larq_filters.optimizers._kept import Kept
from larq_filters.optimizers._saving import Saving

import tensorflow as tf
from tf_keras.src.optimizers.utils import filter_empty_gradients
from tf_keras.src.utils.tf_utils import can_jit_compile
from typing_extensions import override

_ALPHA, _GAMMA = _arguments.Default(1e-2), _arguments.Default(1e-1)


@register
class FilteredFlip(Kept, Coefficients, Saving, tf.keras.optimizers.Optimizer):
    r"""Flips a binary weight when its filtered gradient points against it.

    y_t = F(g)_t;  θ_t = −θ_{t−1} where θ_{t−1}·y_t > τ, else θ_{t−1}

    A variable is binary when its `precision` is 1, as larq marks the kernel of a layer with a 1-bit
    kernel quantizer. Binary variables are exactly ±1 from `build` on; their constraints have no
    further effect. All other variables get exactly what `real_optimizer` alone would give them.

    A step in which the gradient of a weight, or its filter's next state, is not finite is skipped
    for that weight: state and weight stay.

    A weight that was changed since the last step, as by `set_weights`, `load_weights` or
    `EarlyStopping(restore_best_weights=True)`, keeps its new value: where it stands against its
    filter's output by more than τ, the filter's state changes sign.

    A weight whose gradients are noise flips in about √(αγ)/π of all steps (1 % with the default):
    the square in the decay of `decay_steps` makes that share decay linearly. With any decay
    to 0, α = 1e-2 was good in 390 and in 3,900 steps: more steps need a longer decay, no other α.

    Bytes held per binary weight, the weight of 4 included:

    =================================  =======  ========
    optimizer                          float32  bfloat16
    =================================  =======  ========
    `EMA`, larq's Bop                        8         6
    `CascadedEMA`                           12         8
    latent weights, SGD with momentum        8
    latent weights, Adam                    12
    =================================  =======  ========

    Args:
        alpha: α in (0, 1], per step: 1/α is about the number of steps that a gradient counts for. A
            number or a schedule. Keras knows it as `learning_rate`.
        gamma: γ in (0, 1], per step, 1 − momentum; a number, a schedule, or None for the
            first-order filter `EMA(alpha)`. With a number the filter is `CascadedEMA(alpha,
            gamma)`.
        decay_steps: Steps of the whole training, epochs · steps per epoch: α then decays to 0 over
            them, as α(1 − t/decay_steps)², and no weight flips after them. None: α stays.
        filter: Any filter of `larq_filters.filters`, instead of `alpha`, `gamma` and `decay_steps`.
            Or a filter for each layer: a mapping whose keys are a layer's name, a pattern such as
            'block_*', a tuple of these, a layer, or a function of a variable; the first key that
            matches counts. With None as its filter, a layer's binary weights are not trained. All
            other layers have the filter of '*', or of `alpha`, `gamma` and `decay_steps`. Names in
            `coefficients` are then such as 'block_*/alpha'.
        threshold: τ ≥ 0, in the unit of the filter's output. A number or a schedule.
        inertia: How strongly filters hold on to the weights that training starts from, 0 or more.
            At the first gradient g of a variable, its filter starts in the steady state of the
            constant input −θ·inertia·rms(g), as if past gradients had supported the weights. State
            that is there, seeded or restored, is kept. None: 0.1 for a variable that is exactly ±1
            in `build`, as trained ones and those of `to_latent_free` are, or that is set after
            `build`; 0 for others. With 0, the paper's start, half of all weights flip in the first
            step. With 0.1, they begin to move after some 2/α steps: fine-tune with α = 1e-3 or
            less. In 380 steps, 0.1 costs random weights 2 points of accuracy, in 3,900 none.
        real_optimizer: A Keras optimizer, its name or its config, for all variables that are not
            binary.
        average: c ≥ 1 of an average that is kept of every variable, binary or real, and that takes
            its place when `fit` ends: of a binary one, the sign. After t steps, w = c/(t + c) of it
            is the newest value, so its mean age is t/(c + 1). 16 was good while bits still flip.
            Batch norm has to be recalibrated for it, as `callbacks.SwapAverages` does, before every
            validation as well. None: no averages.
        state_dtype: "bfloat16" keeps the filters' state in half the memory. It is rounded up or
            down by chance such that it is right on average, as rounding to the nearest would lose
            the small steps of a small α. None: float32, or float64 for float64 variables.
        seed: Of that chance, a whole number from 0 to 2³² − 1. With it and the number of steps
            done, each draw is the same on all replicas and when training is resumed.
        name: Name of the optimizer.
        clipnorm: Each gradient is scaled down to at most this norm, for binary and real variables.
        clipvalue: Each element of a gradient is clipped to ± this value, for both.
        global_clipnorm: All gradients together are scaled down to at most this norm.
        jit_compile: Whether the binary update is one function compiled by XLA (on CPUs as well), or
            op by op.
        **kwargs: `weight_decay` and `use_ema` are refused: set them on `real_optimizer`.

    Raises:
        ValueError: A coefficient out of its range, `filter` together with `alpha` or `gamma`, or an
            argument that binary weights cannot have.
        TypeError: `real_optimizer` or `filter` is of the wrong kind.

    Example:
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(4,)),
        ...     lq.layers.QuantDense(2),
        ... ])
        >>> model.compile(optimizer=lqf.optimizers.FilteredFlip(decay_steps=1), loss="mse")
        >>> _ = model.fit(np.ones((32, 4)), np.zeros((32, 2)), verbose=0)
        >>> sorted(set(abs(model.layers[0].get_weights()[0].ravel())))
        [1.0]

    Source:
        Quist, Li, van Gemert, "Understanding weight-magnitude hyperparameters in training binary
        networks", ICLR 2023 (arXiv 2303.02452).
    """

    def __init__(
        self,
        alpha: Coefficient = _ALPHA,
        gamma: Coefficient | None = _GAMMA,
        *,
        decay_steps: int | None = None,
        filter: Filter | Mapping[Any, Filter | None] | None = None,
        threshold: Coefficient = 0.0,
        inertia: float | None = None,
        average: float | None = None,
        real_optimizer: tf.keras.optimizers.Optimizer | str | Mapping[str, Any] = "adam",
        state_dtype: str | None = None,
        seed: int = 0,
        name: str = "FilteredFlip",
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        jit_compile: bool = True,
        **kwargs: Any,
    ) -> None:
        _arguments.no_magnitude(kwargs)
        filters = _arguments.filters_of(filter, alpha, gamma, decay_steps)
        super().__init__(
            name=name,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            jit_compile=False,  # ignored on CPUs by the base class, so decided here
            **kwargs,
        )
        self.jit_compile = bool(jit_compile) and can_jit_compile()
        self._inertia = _arguments.inertia(inertia, filters)
        self._state_dtype = _arguments.state_dtype(state_dtype)
        self._seed = _arguments.seed(seed)
        self._filters = self._no_dependency(filters)
        self._real_optimizer = _arguments.real_optimizer(real_optimizer)
        given = {"threshold": _arguments.threshold(threshold), **filters.coefficients}
        self._average = _arguments.average(average, self._real_optimizer)
        self._given = self._no_dependency(given)
        self._create_coefficients(given)
        self._binaries = self._no_dependency(
            Binaries(
                self._inertia,
                self._state_dtype,
                self._seed,
                self.jit_compile,
                self._var_key,
            )
        )
        self._averages = self._no_dependency(Averages(self._average, self._var_key))
        self.count_flips = False

    def __repr__(self) -> str:
        changed = self._changed() if tf.executing_eagerly() else {}  # in a graph, as it was made
        threshold = changed.pop("threshold", self._given["threshold"])
        return (
            f"{type(self).__name__}(filter={self.filter if changed else self._filters!r}, "
            f"threshold={call(threshold)}, real_optimizer={self._real_optimizer.name!r})"
        )

    # Hyperparameters

    @property
    def filter(self) -> Any:
        """The filter as it is used now, with the numbers that its coefficients were set to.

        With filters by layer, a mapping of them.
        """
        changed = self._changed()
        changed.pop("threshold", None)
        return self._filters.with_coefficients(changed)

    @property
    def real_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer of all variables that are not binary."""
        return self._real_optimizer

    @staticmethod
    def of(model: tf.keras.Model) -> "FilteredFlip | None":
        """The one that a model was compiled with, also within a `LossScaleOptimizer`, or None."""
        optimizer = getattr(model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return optimizer if isinstance(optimizer, FilteredFlip) else None

    @override
    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Settles which variables are binary, makes those exactly ±1, and creates the state of all.

        Raises:
            ValueError: Variables that an earlier call did not know, a real optimizer that already
                trains other variables, a binary variable whose quantizer passes no gradient at ±1,
                or a strategy of tf.distribute under which this optimizer does not work.

        Warns:
            UserWarning: No variable is binary.
        """
        if getattr(self, "_built", False):
            unknown = [v.name for v in var_list if self._var_key(v) not in self._index_dict]
            _arguments.all_known(unknown, len(var_list))
            return
        _arguments.strategy(tf.distribute.get_strategy())
        binary = [variable for variable in var_list if _layers.is_binary(variable)]
        real = [variable for variable in var_list if not _layers.is_binary(variable)]
        labels = self._filters.settle(binary)
        filters = [self._filters[label] for label in labels]
        for variable, filter in zip(binary, filters, strict=True):
            if filter is not None:
                _layers.check_trainable(variable)
        if getattr(self._real_optimizer, "_built", False):
            raise ValueError(
                "real_optimizer already trains other variables: give each FilteredFlip one of its "
                f"own. Received: real_optimizer={self._real_optimizer.name}"
            )
        if not binary:
            _arguments.warn_of_none(len(real))
        super().build(var_list)
        for variable, filter, label in zip(binary, filters, labels, strict=True):
            self._variables.extend(self._binaries.add(variable, filter, label))
        if real:
            self._real_optimizer.build(real)
            # All but its step counter, which follows this optimizer's.
            self._variables.extend(self._real_optimizer.variables[1:])
        self._variables.extend(self._averages.add(var_list))
        self._built = True

    # Steps

    @override
    @tf.autograph.experimental.do_not_convert
    def apply_gradients(
        self,
        grads_and_vars: Any,
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        **kwargs: Any,
    ) -> tf.Variable:
        """One step: real variables by the real optimizer, binary ones by the filter.

        Args:
            grads_and_vars: Pairs of gradient and variable.
            name: Name scope of the step.
            skip_gradients_aggregation: Whether the gradients are already summed over all replicas.
            **kwargs: `experimental_aggregate_gradients`, the reverse of the above, as in Keras.

        Returns:
            The number of steps done.
        """
        grads_and_vars = list(grads_and_vars)
        if not skip_gradients_aggregation and kwargs.pop("experimental_aggregate_gradients", True):
            grads_and_vars = list(self.aggregate_gradients(grads_and_vars))
        if not grads_and_vars:
            return self.iterations
        with tf.name_scope(name or self.name):
            with tf.init_scope():
                self.build([variable for _, variable in grads_and_vars])
                self._warn_of_lost_state()
            self._follow_schedules()
            gradients, variables = zip(*filter_empty_gradients(grads_and_vars), strict=True)
            gradients = self._clip_gradients(
                [
                    tf.convert_to_tensor(gradient) if variable in self._binaries else gradient
                    for gradient, variable in zip(gradients, variables, strict=True)
                ]
            )
            pairs = list(zip(gradients, variables, strict=True))
            real = [(g, v) for g, v in pairs if v not in self._binaries]
            binary = [(g, v) for g, v in pairs if v in self._binaries]
            if real:
                # A loss scaler counts the steps that it skips here only.
                counter = self._real_optimizer.iterations
                counter.assign(tf.cast(self.iterations, counter.dtype))
                self._real_optimizer.apply_gradients(real, skip_gradients_aggregation=True)
            step = functools.partial(
                self._binaries.step,
                coefficients=Numbers(self._coefficients, self._before),
                iterations=self.iterations,
                count_flips=self.count_flips,
            )

            def finish(distribution: Any, binary: Any) -> tf.Variable:
                before = tf.convert_to_tensor(self.iterations)
                done = step(distribution, binary)
                self._averages.step(distribution, variables, before)
                return done

            return tf.__internal__.distribute.interim.maybe_merge_call(
                finish, self._distribution_strategy, binary
            )

    @override
    def exclude_from_weight_decay(
        self, var_list: Sequence[tf.Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Excludes real variables from the weight decay of the real optimizer, as in Keras."""
        self._real_optimizer.exclude_from_weight_decay(var_list=var_list, var_names=var_names)


# So that `compile("FilteredFlip")` finds it, as it finds "Adam".
tf.keras.utils.get_custom_objects()["FilteredFlip"] = FilteredFlip
