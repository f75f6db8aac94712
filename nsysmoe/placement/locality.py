"""Plans that keep tokens on their node: which node holds which experts, and runs which requests.

A token is sent once to each other node that holds one of the experts that it chose. Two things
lower that: experts that tokens choose together live on one node, and requests run where the
experts that they choose live. Each is improved in turn, the other held fixed (after the idea of
arXiv 2604.23150: placement and micro-batch grouping by activation patterns; the algorithm is ours).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

# No node may carry more than this times the mean, or than it does to begin with.
_SLACK = 1.1
# Swaps of one round that are made together where they add up to a gain.
_TOGETHER = 8
_ROUNDS = 200
_TURNS = 3
_CLUSTER_TURNS = 8
# Tokens of a layer that swaps look at; of more evenly spaced ones.
TOKENS = 8192


def assign_evenly(benefit: Floats, start: Ints | None = None) -> Ints:
    """Return the node of each item: equal counts, and a sum of benefits that no swap raises.

    Args:
        benefit: Of each item on each node, shape [items, nodes].
        start: Nodes to begin with, as even; by the largest regret first where left out.
    """
    items, nodes = benefit.shape
    node = _by_regret(benefit) if start is None else start.copy()
    pairs = [(one, other) for one in range(nodes) for other in range(one + 1, nodes)]
    changed = items > 0
    while changed:
        changed = False
        for one, other in pairs:
            changed |= _swap_between(node, benefit, one, other)
    return node


def _by_regret(benefit: Floats) -> Ints:
    """Give items to their best node with room, those that would miss it most first."""
    items, nodes = benefit.shape
    room = np.full(nodes, items // nodes)
    room[: items % nodes] += 1
    ordered = np.sort(benefit, axis=1)
    regret = ordered[:, -1] - ordered[:, -2] if nodes > 1 else np.zeros(items)
    node = np.empty(items, dtype=np.int64)
    for item in np.argsort(-regret, kind="stable"):
        node[item] = np.where(room > 0, benefit[item], -np.inf).argmax()
        room[node[item]] -= 1
    return node


def _swap_between(node: Ints, benefit: Floats, one: int, other: int) -> bool:
    """Swap the items of two nodes that gain most, in place; tell whether any did."""
    here, there = np.flatnonzero(node == one), np.flatnonzero(node == other)
    leave = benefit[here, other] - benefit[here, one]
    come = benefit[there, one] - benefit[there, other]
    first, second = np.argsort(-leave, kind="stable"), np.argsort(-come, kind="stable")
    count = min(here.size, there.size)
    gain = leave[first[:count]] + come[second[:count]]
    # Both are sorted, so gains fall: all up to the first that does not gain.
    count = int((gain > 1e-9 * max(1.0, float(np.abs(benefit).max()))).sum())
    node[here[first[:count]]] = other
    node[there[second[:count]]] = one
    return count > 0


def group_requests(
    experts: Sequence[Ints], requests: Sequence[Ints], node_of: Ints, nodes: int, count: int
) -> Ints:
    """Return the node that each request runs on: as many on each, most of their experts there.

    Args:
        experts: Of each layer the experts that tokens chose, shape [tokens, k].
        requests: Of each layer the request of each token, shape [tokens].
        node_of: Node of each expert, shape [layers, experts].
        nodes: Servers.
        count: Requests.

    Returns:
        Shape [count].
    """
    benefit = np.zeros((count, nodes))
    for layer, (chosen, request) in enumerate(zip(experts, requests, strict=True)):
        benefit += _visits(node_of[layer][chosen], request, nodes, count)
    return assign_evenly(benefit)


def _visits(node: Ints, request: Ints, nodes: int, count: int) -> Floats:
    """Count the tokens of each request that use each node, however often; [requests, nodes]."""
    uses = np.zeros((len(node), nodes))
    np.put_along_axis(uses, node, 1.0, axis=1)
    return np.stack(
        [np.bincount(request, weights=column, minlength=count) for column in uses.T], axis=1
    )


def place_locally(
    experts: Sequence[Ints],
    requests: Sequence[Ints],
    sizes: tuple[int, int, int],
    *,
    with_groups: bool = True,
) -> tuple[Ints, Ints]:
    """Return the node of each expert and of each request that leave fewest copies between nodes.

    Args:
        experts: Of each layer the experts that tokens chose, shape [tokens, k].
        requests: Of each layer the request of each token, shape [tokens].
        sizes: Logical experts, nodes, requests.
        with_groups: Choose where requests run; else they are dealt to nodes in turn.

    Returns:
        Nodes, shapes [layers, experts] and [requests].

    Raises:
        PlacementError: The experts do not divide among the nodes, or there is one node.
    """
    count, nodes, wanted = sizes
    if nodes < 2 or count % nodes:
        raise PlacementError(
            f"{count} experts do not divide among {nodes} nodes"
            if nodes > 1
            else "locality is between nodes: there is one"
        )
    homes = np.arange(wanted) % nodes
    if with_groups:
        homes = _cluster(_profiles(experts, requests, count, wanted), nodes)
    plain = np.repeat(np.arange(nodes), count // nodes)
    node_of = np.tile(plain, (len(experts), 1))
    for turn in range(_TURNS if with_groups else 1):
        for layer, (chosen, request) in enumerate(zip(experts, requests, strict=True)):
            some = slice(None, None, max(1, -(-len(chosen) // TOKENS)))
            starts = [node_of[layer]] + (
                [_near(chosen, homes[request], count, nodes)] if turn == 0 else []
            )
            node_of[layer] = _place_layer(chosen[some], homes[request][some], starts)
        if with_groups:
            homes = group_requests(experts, requests, node_of, nodes, wanted)
    return node_of, homes


def _profiles(experts: Sequence[Ints], requests: Sequence[Ints], count: int, wanted: int) -> Floats:
    """Return how often each request chose each expert, rows of length 1 in the Euclidean norm."""
    parts = [
        np.bincount(
            (request[:, None] * count + chosen).reshape(-1), minlength=wanted * count
        ).reshape(wanted, count)
        for chosen, request in zip(experts, requests, strict=True)
    ]
    found = np.concatenate(parts, axis=1).astype(np.float64)
    # What all requests choose alike tells none apart.
    found -= found.mean(axis=0)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    scaled: Floats = np.divide(found, norm, out=np.zeros_like(found), where=norm > 0)
    return scaled


def _cluster(profiles: Floats, nodes: int) -> Ints:
    """Return groups of equal size that are alike (k-means by cosine, with equal counts)."""
    # Farthest first: each further centre is the request least like those before.
    centres = [int(np.linalg.norm(profiles, axis=1).argmax())]
    while len(centres) < min(nodes, len(profiles)):
        centres.append(int((profiles @ profiles[centres].T).max(axis=1).argmin()))
    means = profiles[centres]
    if len(centres) < nodes:
        return np.arange(len(profiles)) % nodes
    node = assign_evenly(profiles @ means.T)
    for _ in range(_CLUSTER_TURNS):
        means = np.stack([profiles[node == each].mean(axis=0) for each in range(nodes)])
        found = assign_evenly(profiles @ means.T, node)
        if (found == node).all():
            break
        node = found
    return node


def _near(chosen: Ints, homes: Ints, count: int, nodes: int) -> Ints:
    """Return experts on the nodes whose requests choose them most, as many on each."""
    keys = chosen * nodes + homes[:, None]
    uses = np.bincount(keys.reshape(-1), minlength=count * nodes).reshape(count, nodes)
    return assign_evenly(uses.astype(np.float64))


def _place_layer(chosen: Ints, homes: Ints, starts: Sequence[Ints]) -> Ints:
    """Improve each start by swaps of experts, and return the one with fewest copies."""
    found = [_swapped(chosen, homes, start) for start in starts]
    return min(found, key=lambda node_of: _copies(node_of[chosen], homes))


def _copies(node: Ints, homes: Ints) -> int:
    """Count the other nodes that tokens are sent to, each once; ``node`` by choice."""
    ordered = np.sort(np.where(node == homes[:, None], -1, node), axis=1)
    first = np.diff(ordered, axis=1, prepend=-1) > 0
    return int((first & (ordered >= 0)).sum())


def _swapped(chosen: Ints, homes: Ints, start: Ints) -> Ints:
    """Swap experts of two nodes while that saves copies and overloads no node."""
    node_of: Ints = start.copy()
    nodes = int(start.max()) + 1
    loads = np.bincount(chosen.reshape(-1), minlength=start.size).astype(np.float64)
    heaviest = np.bincount(node_of, weights=loads, minlength=nodes).max()
    limit = max(heaviest, _SLACK * loads.sum() / nodes)
    now = _copies(node_of[chosen], homes)
    for _ in range(_ROUNDS):
        pairs = _gaining(_savings(chosen, homes, node_of, nodes), node_of)
        tried = (_after(node_of, pairs, loads, limit, count) for count in (_TOGETHER, 1))
        better = (plan for plan in tried if _copies(plan[chosen], homes) < now)
        found = next(better, None)
        if found is None:
            break
        node_of, now = found, _copies(found[chosen], homes)
    return node_of


def _savings(chosen: Ints, homes: Ints, node_of: Ints, nodes: int) -> Floats:
    """Return the copies that swapping each two experts saves, exactly; shape [experts, experts]."""
    count, k = node_of.size, chosen.shape[1]
    node = node_of[chosen]
    held = np.zeros((len(node), nodes), dtype=np.int64)
    np.add.at(held, (np.arange(len(node))[:, None], node), 1)
    away = homes[:, None] != np.arange(nodes)
    # The last choice of a node that leaves takes its copy along.
    leaves = (np.take_along_axis(held, node, axis=1) == 1) & (node != homes[:, None])
    flat = chosen.reshape(-1)
    left = np.bincount(flat, weights=leaves.reshape(-1), minlength=count)
    enters = ((held == 0) & away).astype(np.float64)
    come = np.stack(
        [np.bincount(flat, weights=np.repeat(column, k), minlength=count) for column in enters.T],
        axis=1,
    )
    moved = left[:, None] - come
    # Where a token chose both nothing changes, so what was counted for it is taken back. A node
    # that the other one is on is not entered, so only leaving was counted.
    both = np.zeros(count * count)
    for one in range(k):
        for other in range(k):
            keys = chosen[:, one] * count + chosen[:, other]
            both += np.bincount(keys, weights=leaves[:, one], minlength=count * count)
    shared = both.reshape(count, count)
    saved: Floats = moved[:, node_of] + moved[:, node_of].T - shared - shared.T
    return saved


def _gaining(savings: Floats, node_of: Ints) -> list[tuple[int, int]]:
    """Return pairs of experts on different nodes whose swap saves, the best first."""
    upper = np.triu((node_of[:, None] != node_of) & (savings > 0), 1)
    one, other = np.nonzero(upper)
    order = np.argsort(-savings[one, other], kind="stable")[:256]
    return list(zip(one[order].tolist(), other[order].tolist(), strict=True))


def _after(
    node_of: Ints, pairs: Sequence[tuple[int, int]], loads: Floats, limit: float, count: int
) -> Ints:
    """Make the first ``count`` swaps that share no expert and keep nodes below ``limit``."""
    after: Ints = node_of.copy()
    carried = np.bincount(node_of, weights=loads, minlength=int(node_of.max()) + 1)
    used: set[int] = set()
    for one, other in pairs:
        if used & {one, other}:
            continue
        here, there = after[one], after[other]
        change = loads[other] - loads[one]
        if max(carried[here] + change, carried[there] - change) > limit:
            continue
        after[one], after[other] = there, here
        carried[here] += change
        carried[there] -= change
        used |= {one, other}
        if len(used) >= 2 * count:
            break
    return after
