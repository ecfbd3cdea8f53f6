"""Where each tensor lies in the static buffers of the C program."""

import dataclasses
import math

from larq_filters.export._bits._network import Network

BUFFERS = {"float": "floats", "bits": "words", "int": "sums", "int8": "bytes"}
SIZES = {"float": 4, "bits": 4, "int": 4, "int8": 1}


@dataclasses.dataclass(frozen=True)
class Memory:
    """A plan of the buffers.

    Args:
        places: The C expression of each tensor's first element.
        lengths: Elements of each buffer that is used, by the kind of its tensors.
    """

    places: dict[int, str]
    lengths: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of all buffers."""
        return sum(SIZES[kind] * length for kind, length in self.lengths.items())


def plan(network: Network) -> Memory:
    """Shares memory between tensors that are not needed at once: first fit, large ones first."""
    places: dict[int, str] = {}
    for pointer, ends in (("x", network.inputs), ("y", network.outputs)):
        start = 0
        for _, number in ends:
            places[network.root(number)] = _place(pointer, start)
            start += math.prod(network.tensors[number].shape)
    lives = _lives(network)
    lengths: dict[str, int] = {}
    for kind in BUFFERS:
        mine = [n for n in lives if network.tensors[n].kind == kind and n not in places]
        mine.sort(key=lambda n: -network.tensors[n].elements)
        taken: dict[int, tuple[int, int]] = {}
        for number in mine:
            size, start = network.tensors[number].elements, 0
            for first, last in sorted(taken[n] for n in taken if _meet(lives[n], lives[number])):
                if start + size <= first:
                    break
                start = max(start, last)
            taken[number] = (start, start + size)
            places[number] = _place(BUFFERS[kind], start)
        if taken:
            lengths[kind] = max(last for _, last in taken.values())
    for number in range(len(network.tensors)):
        if network.root(number) in places:
            places.setdefault(number, places[network.root(number)])
    return Memory(places, lengths)


def _place(buffer: str, start: int) -> str:
    return f"{buffer} + {start}" if start else buffer


def _lives(network: Network) -> dict[int, tuple[int, int]]:
    """From which step to which each tensor is needed."""
    lives: dict[int, tuple[int, int]] = {}
    for i, step in enumerate(network.steps):
        lives[step.output] = (i, i)
        for number in map(network.root, network.reads(step)):
            if number in lives:
                lives[number] = (lives[number][0], i)
    return lives


def _meet(one: tuple[int, int], two: tuple[int, int]) -> bool:
    return one[0] <= two[1] and two[0] <= one[1]
