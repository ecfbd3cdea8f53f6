"""A plain NumPy twin of every filter, the flip rule and latent SGD: slow and obvious.

Written from the equations of the papers, with none of the package's code: the oracle of its tests,
in float64 if asked.
"""

import numpy as np


class EMA:
    def __init__(self, alpha):
        self.alpha, self.y = alpha, 0.0

    def __call__(self, x):
        self.y = self.y + self.alpha * (x - self.y)
        return self.y


class CascadedEMA:
    def __init__(self, alpha, gamma):
        self.first, self.second = EMA(gamma), EMA(alpha)

    def __call__(self, x):
        return self.second(self.first(x))


class Integrator:
    def __init__(self, rate, limit=None, leak=0.0):
        self.rate, self.limit, self.leak, self.y = rate, limit, leak, 0.0

    def __call__(self, x):
        self.y = (1 - self.leak) * self.y + self.rate * x
        if self.limit is not None:
            self.y = np.minimum(np.maximum(self.y, -self.limit), self.limit)
        return self.y


class CoupledSGD:
    """A latent weight w and its buffer m, seen from outside: the output is −w."""

    def __init__(self, rate, momentum, weight_decay, dampening=0.0, nesterov=False, limit=np.inf):
        self.rate, self.momentum, self.weight_decay = rate, momentum, weight_decay
        self.dampening, self.nesterov, self.limit = dampening, nesterov, limit
        self.w, self.m = 0.0, 0.0

    def __call__(self, x):
        x = x + self.weight_decay * self.w
        self.m = self.momentum * self.m + (1 - self.dampening) * x
        self.w = self.w - self.rate * (x + self.momentum * self.m if self.nesterov else self.m)
        self.w = np.clip(self.w, -self.limit, self.limit)
        return -self.w


class NormalizedEMA:
    def __init__(self, gamma, sigma, epsilon=1e-10, bias_correction=False, epsilon_hat=False):
        self.gamma, self.sigma, self.epsilon = gamma, sigma, epsilon
        self.bias_correction, self.epsilon_hat = bias_correction, epsilon_hat
        self.m, self.v, self.t = 0.0, 0.0, 0

    def __call__(self, x):
        self.t += 1
        self.m = (1 - self.gamma) * self.m + self.gamma * x
        self.v = (1 - self.sigma) * self.v + self.sigma * x**2
        m, v, epsilon = self.m, self.v, self.epsilon
        if self.bias_correction:
            m = m / (1 - (1 - self.gamma) ** self.t)
            v = v / (1 - (1 - self.sigma) ** self.t)
            if self.epsilon_hat:  # Keras' ε is added to the root before the correction
                epsilon = epsilon / np.sqrt(1 - (1 - self.sigma) ** self.t)
        return m / (np.sqrt(v) + epsilon)


class Sign:
    def __call__(self, x):
        return np.sign(x)


class IIR:
    """Direct form: the difference equation as it is written."""

    def __init__(self, b, a):
        self.b, self.a = np.asarray(b) / a[0], np.asarray(a) / a[0]
        self.x, self.y = [], []

    def __call__(self, x):
        self.x.insert(0, x)
        y = sum(b * past for b, past in zip(self.b, self.x, strict=False))
        y = y - sum(a * past for a, past in zip(self.a[1:], self.y, strict=False))
        self.y.insert(0, y)
        return y


class Cascade:
    def __init__(self, *stages):
        self.stages = stages

    def __call__(self, x):
        for stage in self.stages:
            x = stage(x)
        return x


def flip(weights, output, threshold=0.0):
    """A weight flips where its filtered gradient points against it by more than the threshold."""
    new = weights.copy()
    new[weights * output > threshold] *= -1
    return new


def keras_sgd(w, m, g, rate, momentum, weight_decay, nesterov, dampening, clip):
    """One step of SGD as Keras does it: decoupled decay, and the rate inside the momentum."""
    w = w - w * weight_decay * rate
    dampening = dampening if momentum else 0.0  # it is of the momentum
    m = momentum * m - (1 - dampening) * rate * g
    w = w - rate * g + momentum * m if nesterov else w + m
    return (np.clip(w, -clip, clip) if clip else w), m


def torch_sgd(w, m, g, rate, momentum, weight_decay, nesterov, dampening, clip):
    """One step of SGD as PyTorch does it after its first: coupled decay, the rate outside."""
    g = g + weight_decay * w
    dampening = dampening if momentum else 0.0
    m = momentum * m + (1 - dampening) * g
    w = w - rate * (g + momentum * m if nesterov else m)
    return (np.clip(w, -clip, clip) if clip else w), m
