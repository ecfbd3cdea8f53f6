"""`larq-filters explain`: the filter that a latent recipe is."""

import argparse
import math
import sys
from typing import Any

from larq_filters import _files, plots, recipes

import tensorflow as tf


def run(args: argparse.Namespace) -> int:
    """Prints the table, and draws the picture if asked for; 1 if the recipe is refused."""
    try:
        explanation = _recipe(args).explain(
            steps=_steps(args), steps_per_epoch=args.steps_per_epoch
        )
        if args.plot is not None:
            if not args.plot.suffix:
                raise ValueError(
                    "--plot needs the ending of a kind of picture, such as .png. Received: "
                    f"'{args.plot}'"
                )
            figure = plots.responses(explanation.linear)
            with _files.replaced(args.plot) as beside:
                figure.savefig(beside, dpi=100)
            print(f"\nThe picture is in {args.plot}.")
            if explanation.optimizer == "Adam":
                print("It shows the filter for √v = 1, without clipping, at the largest rate.")
            elif explanation.linear != explanation.filter:
                print("It shows the filter without clipping, at the largest learning rate.")
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


_OF_SGD = ("momentum", "nesterov", "coupled", "dampening")
_OF_ADAM = ("beta_1", "beta_2", "epsilon", "epsilon_hat")


def _recipe(args: argparse.Namespace) -> recipes.SGD | recipes.Adam:
    own, others = (_OF_SGD, _OF_ADAM) if args.optimizer == "sgd" else (_OF_ADAM, _OF_SGD)
    for name in others:
        if getattr(args, name) is not None:
            options = ", ".join(map(_option, own))
            raise ValueError(
                f"{_option(name)} is not of --optimizer {args.optimizer}, which has {options}. "
                f"Received: {_option(name)} {getattr(args, name)}"
            )
    given = {name: getattr(args, name) for name in own if getattr(args, name) is not None}
    given |= {"weight_decay": args.weight_decay, "clip": args.clip}
    if args.optimizer == "adam":
        return recipes.Adam(_rate(args), **given)
    return recipes.SGD(_rate(args), decoupled=not given.pop("coupled", False), **given)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _steps(args: argparse.Namespace) -> int | None:
    if args.epochs is None:
        return None
    if args.steps_per_epoch is None:
        raise ValueError(
            f"--epochs needs --steps-per-epoch. Received: --epochs {args.epochs:g} alone"
        )
    steps = args.epochs * args.steps_per_epoch
    if not 1.0 <= steps < math.inf:
        raise ValueError(
            "--epochs times --steps-per-epoch is the number of steps: from 1 on, and finite. "
            f"Received: --epochs {args.epochs:g} --steps-per-epoch {args.steps_per_epoch:g}"
        )
    return round(steps)


def _rate(args: argparse.Namespace) -> Any:
    if args.decay is None:
        return args.learning_rate
    steps = _steps(args)
    if steps is None:
        raise ValueError(
            f"--decay needs --epochs, to know when it ends. Received: --decay {args.decay} alone"
        )
    schedules = tf.keras.optimizers.schedules
    if args.decay == "cosine":
        return schedules.CosineDecay(args.learning_rate, steps)
    return schedules.PolynomialDecay(args.learning_rate, steps, 0.0)
