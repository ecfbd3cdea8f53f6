"""Loss scaling: what is set on Keras' LossScaleOptimizer reaches the FilteredFlip inside.

Under mixed precision `model.compile` wraps the optimizer. Keras passes `learning_rate` on; what
else is set would become attributes of the wrapper, and do nothing.
"""

from typing import Any

from tf_keras.src.mixed_precision.loss_scale_optimizer import LossScaleOptimizerV3


def _passed_on(name: str) -> property:
    def read(self: Any) -> Any:
        return getattr(self.inner_optimizer, name)

    def write(self: Any, value: Any) -> None:
        setattr(self.inner_optimizer, name, value)

    return property(read, write, doc=f"`{name}` of the optimizer inside.")


for name in ("alpha", "gamma", "sigma", "threshold", "flip_ratio", "count_flips"):
    if not hasattr(LossScaleOptimizerV3, name):
        setattr(LossScaleOptimizerV3, name, _passed_on(name))
