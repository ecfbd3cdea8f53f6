"""Which nodes are worked out together: those whose values are kept, and those between them."""

import collections
from collections.abc import Sequence

from larq_filters.export._bits._nodes import LINES, Node

_PRODUCERS = ("conv", "pool")


class Regions:
    """A root is a node whose values are kept; its members are what only it needs, and itself.

    In a region there is at most one convolution or pooling, whose sums the others work on.
    """

    def __init__(self, order: Sequence[Node], outputs: Sequence[Node]) -> None:
        self._order = order
        self._users: dict[int, list[Node]] = collections.defaultdict(list)
        for node in order:
            for i in node.nodes:
                self._users[id(i)].append(node)
        self._kept = {id(node) for node in outputs}
        self._find_roots()
        while True:
            more = self._conflicts()
            if not more:
                break
            self._kept |= more
            self._find_roots()
        self._members: dict[int, list[Node]] = collections.defaultdict(list)
        for node in order:
            self._members[self._roots[id(node)]].append(node)

    def users(self, node: Node) -> list[Node]:
        """The nodes that use a node."""
        return self._users[id(node)]

    def is_root(self, node: Node) -> bool:
        """Whether a node's values are kept."""
        return self._roots[id(node)] == id(node)

    def members(self, root: Node) -> list[Node]:
        """The nodes of a root, each behind its inputs."""
        return self._members[id(root)]

    def producer(self, root: Node) -> Node | None:
        """The convolution or pooling among them."""
        return next((n for n in self.members(root) if n.kind in _PRODUCERS), None)

    def leaves(self, root: Node) -> list[Node]:
        """The kept nodes whose values a root's lines work on."""
        found: dict[int, Node] = {}
        for member in self.members(root):
            if member.kind not in _PRODUCERS:
                found.update({id(i): i for i in member.nodes if self.is_root(i)})
        return list(found.values())

    def _find_roots(self) -> None:
        self._roots: dict[int, int] = {}
        for node in reversed(self._order):
            roots = {self._roots[id(user)] for user in self._users[id(node)]}
            joins = (
                id(node) not in self._kept
                and len(roots) == 1
                and node.kind in (*LINES, *_PRODUCERS)
                and all(self._joins(node, user) for user in self._users[id(node)])
            )
            self._roots[id(node)] = roots.pop() if joins else id(node)

    @staticmethod
    def _joins(node: Node, user: Node) -> bool:
        return (user.kind in LINES or user.kind == "binarize") and node.shape == user.shape

    def _conflicts(self) -> set[int]:
        """Nodes to keep, so that no region has two producers."""
        producers = collections.defaultdict(list)
        for node in self._order:
            if node.kind in _PRODUCERS:
                producers[self._roots[id(node)]].append(node)
        keep = set()
        for root, some in producers.items():
            for node in some[:-1]:
                keep.add(id(self._last_alone(node, root, some)))
        return keep

    def _last_alone(self, node: Node, root: int, producers: Sequence[Node]) -> Node:
        """The last node on the way to the root that works on one producer's sums only."""
        above = {id(p): {id(p)} for p in producers}
        for member in self._order:
            if self._roots[id(member)] == root and id(member) not in above:
                sets = [above.get(id(i), set()) for i in member.nodes]
                above[id(member)] = set().union(*sets)
        while True:
            users = self._users[id(node)]
            if len(users) != 1 or id(users[0]) == root or len(above[id(users[0])]) > 1:
                return node
            node = users[0]
