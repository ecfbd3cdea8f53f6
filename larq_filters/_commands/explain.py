"""`python -m larq_filters explain`: what a latent SGD recipe really is."""

import argparse
import pathlib
import sys
from typing import Any

from larq_filters import _files, plots, recipes

import tensorflow as tf


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "explain",
        help="what a latent SGD recipe really is: the filter, and what each hyperparameter does",
        description="Explains SGD on latent weights as a filter over gradients.",
    )
    add = parser.add_argument
    add("--learning-rate", type=float, required=True, help="learning rate η")
    add("--momentum", type=float, default=0.0, help="momentum β (default 0)")
    add("--weight-decay", type=float, default=0.0, help="weight decay λ (default 0)")
    add("--nesterov", action="store_true", help="Nesterov momentum")
    add("--coupled", action="store_true", help="PyTorch's weight decay instead of Keras'")
    add("--dampening", type=float, default=0.0, help="PyTorch's dampening (default 0)")
    add("--clip", type=float, help="bound of the latent weights; larq's weight_clip has 1")
    add("--epochs", type=float, help="length of the training; needs --steps-per-epoch")
    add("--steps-per-epoch", type=float, help="to give times in epochs, too")
    add("--decay", choices=["linear", "cosine"], help="of the learning rate, to 0 over --epochs")
    add("--plot", type=pathlib.Path, metavar="PICTURE", help="draw the filter: .png, .pdf, .svg")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the table, and draws the picture if asked for; 1 if the recipe is refused."""
    try:
        recipe = recipes.SGD(
            _rate(args),
            args.momentum,
            args.weight_decay,
            args.nesterov,
            not args.coupled,
            dampening=args.dampening,
            clip=args.clip,
        )
        explanation = recipe.explain(steps=_steps(args), steps_per_epoch=args.steps_per_epoch)
        if args.plot is not None:
            figure = plots.responses(explanation.linear)
            with _files.replaced(args.plot) as beside:
                figure.savefig(beside, dpi=100)
            print(f"\nThe picture is in {args.plot}.")
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _steps(args: argparse.Namespace) -> int | None:
    if args.epochs is None:
        return None
    if args.steps_per_epoch is None:
        raise ValueError(
            f"--epochs needs --steps-per-epoch. Received: --epochs {args.epochs:g} alone"
        )
    return round(args.epochs * args.steps_per_epoch)


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
