"""FilteredFlip: binary weights by filtering gradients, all others by a Keras optimizer."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters import _layers
from larq_filters._numbers import Coefficient, call
from larq_filters._serialization import register, register_by_name
from larq_filters.filters import Filter
from larq_filters.optimizers import _arguments, _short_form
from larq_filters.optimizers._averages import Averages
from larq_filters.optimizers._binaries import Binaries
from larq_filters.optimizers._feedback import RATIO
from larq_filters.optimizers._flip import Numbers
from larq_filters.optimizers._kept import Kept
from larq_filters.optimizers._saving import Saving

import tensorflow as tf
from tf_keras.src.optimizers.utils import filter_empty_gradients
from typing_extensions import override

_GAMMA = _short_form.Default(1e-1)


@register_by_name
@register
class FilteredFlip(Kept, Saving, tf.keras.optimizers.Optimizer):
    r"""Flips a binary weight when its filtered gradient points against it.

    y_t = F(g)_t;  θ_t = −θ_{t−1} where θ_{t−1}·y_t > τ, else θ_{t−1}

    A variable is binary when its `precision` is 1, as larq marks kernels with a 1-bit quantizer. It
    is exactly ±1 from `build` on, so constraints have no effect. `real_optimizer` updates all other
    variables exactly as it would alone.

    If the gradient or the next filter state of a weight is not finite, the weight skips the step:
    state and weight stay.

    If a weight was changed since the last step, for instance by `set_weights`, `load_weights` or
    `EarlyStopping(restore_best_weights=True)`, it keeps its new value: if the filter's output
    points against it by more than τ, the filter's state changes sign.

    A weight whose gradients are noise flips in about √(αγ)/π of all steps: 1 % with α = 1e-2. So α
    must decay. By default it decays as 1/t, and the length of the training need not be known.
    `decay_steps` makes it decay quadratically to 0, so the share of flips decays linearly.

    Memory per binary weight in bytes, with 4 bytes for the weight itself:

    =================================  =======  ========
    optimizer                          float32  bfloat16
    =================================  =======  ========
    `EMA`, larq's Bop                        8         6
    `CascadedEMA`                           12         8
    latent weights, SGD with momentum        8
    latent weights, Adam                    12
    =================================  =======  ========

    Args:
        alpha: α in (0, 1], per step. A gradient counts for about 1/α steps. Too large: bits follow
            the noise of single batches. Too small: bits answer late. A number, constant without
            `decay_steps`, or a schedule. None: 1e-2 with `decay_steps`, the best of the measured
            values or equal to it, and without it 1e-2/(1 + t/200) after t steps: so the filter
            averages over about the last half of the training. Keras calls it `learning_rate`.
        gamma: γ in (0, 1], per step, which is 1 − momentum. Gradients are first averaged over about
            1/γ steps. The default 0.1 is the usual momentum of 0.9. A number, a schedule, or None
            for the first-order filter `EMA(alpha)` instead of `CascadedEMA(alpha, gamma)`.
        decay_steps: Steps of the whole training: epochs · steps per epoch. α decays to 0 over these
            steps as α(1 − t/decay_steps)², and no weight flips after them. Too few: training stops
            early, and `fit` warns. None: the length of the training need not be known.
        flip_ratio: R in (0, 0.5], the wanted share of weights that flip per step, in place of
            `alpha`: a number, which `decay_steps` lets decay linearly to 0, or a schedule. α then
            starts where noise flips the share R, and each step corrects it by the flips that are
            counted, by 2 % at most. With filters by layer, each has its own. Keras calls R
            `learning_rate`. 1e-2 is about the default's. None: α is as it is given.
        filter: Any filter of `larq_filters.filters`, instead of `alpha`, `gamma` and `decay_steps`.
            Or a filter for each layer: a mapping whose keys are a layer's name, a pattern such as
            'block_*', a tuple of these, a layer, or a function of a variable. The first key that
            matches counts. None as a filter leaves the binary weights of a layer untrained. All
            other layers get the filter of '*', or of `alpha`, `gamma` and `decay_steps`.
            `coefficients` then has names such as 'block_*/alpha'.
        threshold: τ ≥ 0, a number or a schedule, in the unit of the gradients. Too high: few flips,
            slow training. Too low: no effect. The default is 0, because no threshold was
            significantly better in the measurements.
        inertia: Warm start: how strongly filters keep the weights that training starts from, 0 or
            more. At the first gradient g of a variable, its filter starts in the steady state of
            the constant input −θ·inertia·rms(g), as if past gradients had supported the present
            weights. Seeded or restored state is kept. With 0, the paper's start, half of all
            weights flip in the first step. With 0.1, about 1 % have moved after 0.1/α steps, and
            5 ± 7 % of a small network after 0.4/α: fine-tune with α = 1e-3 or less. For random
            weights, 0.1 costs 2 points of accuracy in 380 steps and none in 3,900. None: 0.1 for
            variables that are exactly ±1 in `build`, such as trained ones, or that are set after
            `build`, and 0 for others.
        real_optimizer: A Keras optimizer, its name or its config, for all variables that are not
            binary. None: Adam, whose learning rate starts at α, at 1e-2 at most or with
            `flip_ratio`. It decays linearly to 0 over `decay_steps`, and as 1/√(1 + t/390) if α is
            None, too. If α or the ratio is a schedule, or `filter` replaces α, it is Keras' 1e-3.
        average: c ≥ 1 of a weighted average of each variable's past values. When `fit` ends, real
            variables become their average and binary ones its sign, unless a callback then puts
            other weights in place, such as those of the best epoch. After t steps the newest value
            has the weight c/(t − 1 + c), so the mean age is about t/(c + 1). 16 was good while bits
            still flip. An average takes as much memory as its variable, in float32 at least.
            `callbacks.SwapAverages` recalibrates batch norm for the averages, and validates with
            them. Weights that are set in mid-training do not change their averages: give a network
            that you load a new optimizer. None: no averages.
        state_dtype: "bfloat16" halves the memory of the filters' state, with stochastic rounding,
            which is unbiased: rounding to the nearest loses the small steps of a small α.
            None: float32, or float64 for float64 variables.
        seed: Seed of the stochastic rounding, a whole number from 0 to 2³² − 1. With the same seed
            and step, all replicas and a resumed training draw the same numbers.
        name: Name of the optimizer.
        clipnorm: Largest norm of each gradient, for binary and real variables.
        clipvalue: Largest absolute value of each element of a gradient, for both.
        global_clipnorm: Largest norm of all gradients together.
        jit_compile: Whether XLA compiles the binary update into one function, also on CPUs. None:
            on GPUs, and on CPUs from 131,072 binary weights on, where it makes steps quicker.
        **kwargs: Other arguments of Keras' optimizers are refused, with what to give instead.

    Raises:
        ValueError: A coefficient is out of its range, `filter` is given together with `alpha` or
            `gamma`, or an argument does not apply to binary weights.
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
        alpha: Coefficient | None = None,
        gamma: Coefficient | None = _GAMMA,
        *,
        decay_steps: int | None = None,
        flip_ratio: Coefficient | None = None,
        filter: Filter | Mapping[Any, Filter | None] | None = None,
        threshold: Coefficient = 0.0,
        inertia: float | None = None,
        average: float | None = None,
        real_optimizer: tf.keras.optimizers.Optimizer | str | Mapping[str, Any] | None = None,
        state_dtype: str | None = None,
        seed: int = 0,
        name: str = "FilteredFlip",
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        jit_compile: bool | None = None,
        **kwargs: Any,
    ) -> None:
        _arguments.no_magnitude(kwargs, FilteredFlip)
        ratio = _short_form.flip_ratio_of(flip_ratio, alpha, decay_steps)
        filters = _short_form.filters_of(filter, alpha, gamma, decay_steps, ratio)
        super().__init__(
            name=name,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            jit_compile=False,  # ignored on CPUs by the base class, so decided here
            **kwargs,
        )
        self.jit_compile = _arguments.jit_compile(jit_compile)
        self._inertia = _arguments.inertia(inertia, filters)
        self._state_dtype = _arguments.state_dtype(state_dtype)
        self._seed = _arguments.seed(seed)
        self._filters = self._no_dependency(filters)
        if real_optimizer is None:
            real_optimizer = _short_form.adam_beside(filter, alpha, flip_ratio, decay_steps)
        self._real_optimizer = _arguments.real_optimizer(real_optimizer)
        given = {"threshold": _arguments.threshold(threshold), **filters.coefficients}
        given |= {} if ratio is None else {RATIO: ratio}
        self._average = _arguments.average(average, self._real_optimizer)
        self._given = self._no_dependency(given)
        self._create_coefficients(given)
        self._binaries = self._no_dependency(
            Binaries(self._inertia, self._state_dtype, self._seed, self.jit_compile, self._var_key)
        )
        self._averages = self._no_dependency(Averages(self._average, self._var_key))
        self.count_flips = False

    def __repr__(self) -> str:
        changed = self._changed() if tf.executing_eagerly() else {}  # in a graph, as it was made
        own = {**self._given, **changed}
        ratio = f"flip_ratio={call(own[RATIO])}, " if RATIO in own else ""
        options = {n: getattr(self, f"_{n}") for n in ("inertia", "average", "state_dtype")}
        given = "".join(f", {name}={o!r}" for name, o in options.items() if o is not None)
        return (
            f"{type(self).__name__}({ratio}filter={self.filter if changed else self._filters!r}, "
            f"threshold={call(own['threshold'])}, real_optimizer={self._real_optimizer.name!r}"
            f"{given})"
        )

    # Hyperparameters

    @property
    def real_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer of all variables that are not binary."""
        return self._real_optimizer

    @staticmethod
    def of(model: tf.keras.Model) -> "FilteredFlip | None":
        """The `FilteredFlip` of a compiled model, also in a `LossScaleOptimizer`, or None."""
        optimizer = getattr(model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return optimizer if isinstance(optimizer, FilteredFlip) else None

    @override
    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Finds the binary variables, makes them exactly ±1, and creates the state of all.

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
                "real_optimizer already trains other variables. Give each FilteredFlip its own "
                f"real optimizer. Received: real_optimizer={self._real_optimizer.name}"
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
        trained = [v for v, f in zip(binary, filters, strict=True) if f is not None]
        self._variables.extend(self._averages.add([*trained, *real]))
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
                feedback=self._feedback,
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
