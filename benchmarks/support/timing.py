"""Times of several functions in turns, so that what else the machine does meets all of them."""

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)


def in_turns(
    functions: dict[Name, Callable[[], Any]], rounds: int, warm_up: int = 3
) -> dict[Name, list[float]]:
    """Seconds of each call, after some that are not counted.

    Args:
        functions: What to time; each returns when its work is done.
        rounds: Calls of each that are counted.
        warm_up: Calls of each before.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in functions}
    for number in range(-warm_up, rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds
