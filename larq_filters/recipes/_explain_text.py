"""The numbers of `recipes.explain` in sentences and as a table."""

import dataclasses
import html
import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from larq_filters._text import WIDTH, html_table, table
from larq_filters.filters import Filter
from larq_filters.recipes._response import Response

_EQUIVALENT = "on latent weights is equivalent to this filter over the gradients:"


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """A hyperparameter of a latent recipe: its name, its value, and what it does.

    Example:
        >>> recipe = lqf.recipes.explain(0.1, 0.9, 1e-4, print_fn=None)
        >>> recipe.hyperparameters[1].name, recipe.hyperparameters[1].value
        ('learning rate', 'η = 0.1')
    """

    name: str
    value: str
    effect: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A latent recipe as a filter; `print` shows it as a table of 80 columns.

    With a schedule, α and the numbers that depend on it are for the largest learning rate. Of Adam,
    they hold while v stays the same.

    Example:
        >>> recipe = lqf.recipes.explain(0.1, 0.9, 1e-4, print_fn=None)
        >>> round(recipe.alpha, 9), round(recipe.gamma, 9)
        (1e-05, 0.1)
    """

    optimizer: str
    """'SGD' or 'Adam'."""
    filter: Filter
    """The result of `recipes.from_sgd` or `from_adam`."""
    linear: Filter
    """The same without clipping, at the largest learning rate, which has a transfer function. Of
    Adam, for √v = 1."""
    alpha: float | None
    """Share per step of the slow stage. 0 if it forgets nothing, None with complex poles."""
    gamma: float | None
    """Share per step of the fast stage. 1 if there is no such stage, None with complex poles."""
    poles: tuple[complex, complex]
    """1 − α and 1 − γ, the slower one first, or a complex pair."""
    alpha_time_constant: float
    """Steps in which the slow stage, or with complex poles the ringing, decays to 1/e."""
    gamma_time_constant: float
    """Steps in which the fast stage, or with complex poles the ringing, decays to 1/e."""
    ringing_period: float | None
    """Period in steps of the sign of a gradient's weight, or None if that sign never changes."""
    forgotten_after: float
    """Steps until the initial weights stay below 1 % of their size. Infinite if they never do, or
    with a schedule not within `steps`."""
    remaining: float | None
    """Share of the initial weights that is left after `steps`, or None without `steps`."""
    steps_per_epoch: float | None
    """Steps per epoch, to print times in epochs, or None."""
    largest_rate: float
    """The learning rate, or the largest of a schedule."""
    changes_nothing: dict[str, float]
    """Factors by hyperparameter. All of them together change no binary weight in any step."""
    hyperparameters: tuple[Hyperparameter, ...] = dataclasses.field(repr=False)
    """All of the recipe, in the order of the table."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; poles as real and imaginary part."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {
            "filter": str(self.filter),
            "linear": str(self.linear),
            "poles": [[pole.real, pole.imag] for pole in self.poles],
            "alpha_time_constant": _or_none(self.alpha_time_constant),
            "gamma_time_constant": _or_none(self.gamma_time_constant),
            "forgotten_after": _or_none(self.forgotten_after),
            "hyperparameters": [dataclasses.asdict(row) for row in self.hyperparameters],
        }

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) + 2 for i in (0, 1)]
        cells = []
        for name, value, effect in rows:
            lines = textwrap.wrap(effect, WIDTH - sum(widths))
            heads = [(name, value)] + [("", "")] * len(lines)
            cells += [(*head, line) for head, line in zip(heads, lines, strict=False)]
        head, *body = table(cells, (*widths, WIDTH))
        equivalent = textwrap.wrap(
            str(self.filter), WIDTH, initial_indent="  ", subsequent_indent="    "
        )
        last = textwrap.wrap(self._redundant(), WIDTH)
        return "\n".join(
            [
                f"{self.optimizer} {_EQUIVALENT}",
                *equivalent,
                "",
                head,
                "-" * WIDTH,
                *body,
                "",
                *last,
            ]
        )

    def _repr_html_(self) -> str:
        above = html.escape(f"{self.optimizer} {_EQUIVALENT} {self.filter}")
        return f"<p>{above}</p>{html_table(self._rows(), (1, 1, 1), self._redundant())}"

    def _rows(self) -> list[tuple[str, str, str]]:
        head = ("hyperparameter", "value", "what it does")
        return [head, *((row.name, row.value, row.effect) for row in self.hyperparameters)]

    def _redundant(self) -> str:
        factors = (f"{n.replace('_', ' ')} × {f:g}" for n, f in self.changes_nothing.items())
        return f"All of these factors together change no binary weight: {', '.join(factors)}."


class Explained:
    """A recipe that says what its numbers do."""

    def _explanation(self, steps: int | None, steps_per_epoch: float | None) -> Explanation:
        raise NotImplementedError

    def explain(
        self,
        *,
        steps: int | None = None,
        steps_per_epoch: float | None = None,
        print_fn: Callable[[str], Any] | None = print,
    ) -> Explanation:
        """What each of its numbers does; arguments as of `larq_filters.recipes.explain`."""
        explanation = self._explanation(steps, steps_per_epoch)
        if print_fn is not None:
            print_fn(str(explanation))
        return explanation


def sentences(
    response: Response, explanation: Explanation, steps: int | None
) -> Iterator[Hyperparameter]:
    """The seven hyperparameters of the paper, and what each does."""
    e, recipe = explanation, response.recipe
    decay, beta, clip = recipe.weight_decay, recipe.momentum, recipe.clip
    dampening = recipe.dampening if beta else 0.0  # of the momentum

    training = f"After all {number(steps or 0)} steps"
    left = "" if e.remaining is None else f"{100.0 * abs(e.remaining):.3g} % of it is left."
    if decay == 0.0:
        text = "Never forgotten: without weight decay, the filter keeps its start."
        if clip is not None:
            text = "Forgotten only where the clip is reached: there is no weight decay."
    elif e.forgotten_after == math.inf:
        text = f"Not forgotten. {training}, {left}"
    else:
        text = f"Counts for {time(e.forgotten_after, e)}, until it is below 1 % of its size."
        text += f" {training}, {left}" if left else ""
    yield Hyperparameter("initialization", "w₀", text)

    at_most = " at most" if response.varies else ""
    ringing = ""
    if e.ringing_period is not None:
        ringing = f"rings with a period of {time(e.ringing_period, e)}"
    if decay == 0.0:
        text = "It scales the filter's output, and only the sign of the output counts."
    elif e.alpha is None:
        text = (
            f"With the weight decay, it makes the poles complex. The filter {ringing} and "
            f"forgets a gradient with a time constant of {time(e.alpha_time_constant, e)}."
        )
    else:
        text = (
            f"{'With the weight decay, it gives α' if recipe.coupled else 'α = ηλ'} = {e.alpha:.3g}"
            f"{at_most}: "
            "the filter forgets a gradient with a time constant of "
            f"{time(e.alpha_time_constant, e)}."
        )
    text += f" Apart from that, it only matters relative to w₀{' and the clip' if clip else ''}."
    yield Hyperparameter("learning rate", f"η = {response.rate:g}{at_most}", text)

    rates = response.rates
    first, middle, last = (float(rates[i * (rates.size - 1) // 2]) for i in range(3))
    if not response.varies:
        text = "None: the filter stays the same, so new gradients replace old ones to the end."
        if decay == 0.0:
            text = "None: new gradients count as much as old ones to the end."
    elif decay == 0.0:
        falls = first >= middle >= last
        text = (
            f"New gradients count {'less and less' if falls else 'as η says'}: half way "
            f"{middle / response.rate:.3g}, in the last step {last / response.rate:.3g} times as "
            "much as at the largest learning rate."
        )
    else:
        first, middle, last = (rate * decay for rate in (first, middle, last))
        text = (
            f"A decay of {'ηλ' if recipe.coupled else 'α'}: {first:.3g} in the first step, "
            f"{middle:.3g} half way, {last:.3g} in the last."
        )
    yield Hyperparameter("its decay", "a schedule" if response.varies else "none", text)

    if decay == 0.0:
        text = "None: the filter is an integrator (α = 0). It forgets no gradient and no start"
        text += "." if clip is None else ", but where the clip is reached."
    elif e.alpha is None:
        text = "Coupled: it goes through the momentum and makes the filter ring."
    elif recipe.coupled:
        text = (
            "Coupled: it goes through the momentum. The filter forgets "
            f"{e.alpha / (response.rate * decay):.3g} times as fast as if it were decoupled."
        )
    else:
        text = "Only α = ηλ counts: 2λ with half the learning rate is the same filter."
    yield Hyperparameter("weight decay", f"λ = {decay:g}", text)

    if beta == 0.0:
        text = "None: gradients are not averaged first (γ = 1). The filter is of first order."
    elif e.gamma is None:
        text = "It gives inertia: the larger β, the longer the ringing."
    else:
        text = (
            f"{'It gives γ' if recipe.coupled else 'γ = 1 − β'} = {e.gamma:.3g}: gradients are "
            f"first averaged with a time constant of {time(e.gamma_time_constant, e)}."
        )
        if ringing:
            text += f" The filter {ringing}."
    if recipe.nesterov:
        text += f" Nesterov momentum adds a zero at β/(1+β) = {beta / (1.0 + beta):.3g}."
    if dampening:
        text += f" Dampening scales gradients by 1 − d = {1.0 - dampening:.3g}."
    yield Hyperparameter("momentum", f"β = {beta:g}", text)

    if clip is None:
        text = "None: the filter is linear if no |w| reaches 1, where ste_sign stops gradients."
    else:
        text = f"The filter saturates at ±{clip:g}: it is not linear."
        if decay > 0.0 and e.ringing_period is None and not response.varies:
            gain = 1.0 if recipe.coupled else (1.0 - dampening) / (1.0 - beta)
            text += f" Gradients below {clip * decay / gain:.3g} never move a weight that far."
    yield Hyperparameter("clipping", "none" if clip is None else f"±{clip:g}", text)

    others = "w₀" if clip is None else "w₀ and the clip"
    text = f"Scaling all gradients by k equals dividing {others} by k."
    yield Hyperparameter("scaling", "of weights", text)


def time(steps: float, explanation: Explanation) -> str:
    """So many steps, and how many epochs these are if that is known."""
    per_epoch = explanation.steps_per_epoch
    epochs = f" ({number(steps / per_epoch)} epochs)" if per_epoch else ""
    return f"{number(steps)} steps{epochs}"


def number(value: float) -> str:
    """Three digits, or all before the point if those are more."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"  # not 1e+03


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
