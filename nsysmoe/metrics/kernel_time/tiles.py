"""How many rows one block of the fused MoE kernel computes, read off its grid.

vLLM sorts the choices of a batch by expert and pads each expert's part to a multiple of
BLOCK_SIZE_M (``moe_align_block_size``). Buffer and grid are sized for the worst case:

    EM = choices + experts (BM - 1), at most choices x BM
    grid = ceil(EM / BM) x ceil(N / BN)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROWS = (16, 32, 64, 128, 256)
COLUMNS = (16, 32, 64, 128, 256)
# vLLM's capture sizes unless told otherwise (``cudagraph_capture_sizes``): small ones, multiples
# of 8 up to 256, of 16 beyond.
_SMALL = (1, 2, 4)


@dataclass(frozen=True)
class Padding:
    """What data-parallel engines pad to where no CUDA graph runs the pass.

    Attributes:
        captured_to: Tokens up to which an engine pads to a captured size, for itself; 0 for none.
        is_even: Whether all engines pad to the largest of them.
    """

    captured_to: int = 0
    is_even: bool = False


NO_PADDING = Padding()


def largest_captured(running: int, step_tokens: int | None = None) -> int:
    """Return the largest batch that CUDA graphs are captured for unless vLLM is told otherwise.

    Source: ``VllmConfig._set_cudagraph_sizes``, vLLM 0.26, without speculative decoding.

    Args:
        running: ``max_num_seqs``.
        step_tokens: ``max_num_batched_tokens``, where known.
    """
    captured = min(2 * running, 512)
    return captured if step_tokens is None else min(captured, step_tokens)


def captured_rows(tokens: int) -> int:
    """Return the tokens that a CUDA graph pads a batch to, with vLLM's default sizes."""
    for size in _SMALL:
        if tokens <= size:
            return size
    step = 8 if tokens <= 256 else 16
    return -(-tokens // step) * step


def gathered_rows(
    tokens: Sequence[int],
    *,
    engines: int = 1,
    tensor: int = 1,
    in_graph: bool,
    padding: Padding = NO_PADDING,
) -> list[int]:
    """Return the rows that each engine gives the experts of one forward pass, padding counted.

    Engines are data-parallel ranks: dispatch gathers the rows of all. An engine without a request
    feeds one dummy token. In a CUDA graph all engines pad to the size of the largest, in some
    versions of vLLM without one as well. In others an engine pads to a captured size before it
    hears that another's batch is too large for a graph, and stays padded (vLLM 0.26,
    ``coordinate_batch_across_dp``). Where engines have several tensor-parallel ranks each, these
    share out their engine's tokens evenly.

    Args:
        tokens: Of each engine with a request.
        engines: All engines.
        tensor: Tensor-parallel ranks of an engine.
        in_graph: Whether a CUDA graph ran the pass.
        padding: What engines pad to without a graph.

    Returns:
        Rows of the engines in ``tokens``, in their order, then of those without a request.
    """
    each = [*tokens, *[1] * (engines - len(tokens))]
    if in_graph:
        each = [captured_rows(max(each))] * engines
    elif padding.is_even:
        each = [max(each)] * engines
    else:
        each = [captured_rows(count) if count <= padding.captured_to else count for count in each]
    if engines > 1:
        each = [-(-count // tensor) * tensor for count in each]
    return each


def row_blocks(tokens: int, top_k: int, experts: int, block_m: int) -> int:
    """Return the blocks of rows that a launch's grid holds.

    Args:
        tokens: Tokens of the batch, padding counted.
        top_k: Experts a token.
        experts: Physical experts over all ranks.
        block_m: Rows of a block.
    """
    choices = tokens * top_k
    return -(-min(choices + experts * (block_m - 1), choices * block_m) // block_m)


def infer_rows(
    launches: Iterable[tuple[str, int, int]],
    *,
    top_k: int,
    experts: int,
    widths: Mapping[str, int] | None = None,
) -> dict[tuple[str, int, int], int | None]:
    """Tell the rows of a block for each distinct launch: product, tokens, blocks of its grid.

    A pair (BM, BN) fits where it gives the grid. The width N of each product is one number in all
    launches: the pairs of all of them must agree on it, which leaves one BM in most traces even
    where N is not known. Of several the one that vLLM's default gives the batch is taken.

    Args:
        launches: (product, tokens with padding, blocks).
        top_k: Experts a token.
        experts: Physical experts over all ranks.
        widths: Columns of each product's result, where the model's sizes are known.

    Returns:
        Rows of a block by launch; None where nothing fits, or several and not the default.
    """
    fitting = {
        launch: _pairs(launch, top_k, experts, (widths or {}).get(launch[0])) for launch in launches
    }
    agreed = {
        gemm: _agreed([pairs for launch, pairs in fitting.items() if launch[0] == gemm])
        for gemm in {launch[0] for launch in fitting}
    }
    return {
        launch: _chosen({rows for rows, width in pairs if width in agreed[launch[0]]}, launch[1])
        for launch, pairs in fitting.items()
    }


def grids_agree(
    launches: Iterable[tuple[str, int, int]],
    *,
    top_k: int,
    experts: int,
    widths: Mapping[str, int] | None = None,
) -> bool:
    """Tell whether one width of each product gives the grids of all launches.

    Grids know nothing of routing: tokens that were counted wrongly give none of them.

    Args:
        launches: (product, tokens with padding, blocks).
        top_k: Experts a token.
        experts: Physical experts over all ranks.
        widths: As ``infer_rows`` takes them.
    """
    by_gemm: dict[str, list[set[tuple[int, int]]]] = {}
    for launch in launches:
        pairs = _pairs(launch, top_k, experts, (widths or {}).get(launch[0]))
        by_gemm.setdefault(launch[0], []).append(pairs)
    return all(
        set.intersection(*({width for _, width in pairs} for pairs in found))
        for found in by_gemm.values()
    )


def default_rows(tokens: int) -> int:
    """Return the rows of vLLM's default for 16-bit weights (``get_default_config``, 0.26)."""
    return 16 if tokens <= 32 else 32 if tokens <= 96 else 64 if tokens <= 512 else 128


def _pairs(
    launch: tuple[str, int, int], top_k: int, experts: int, width: int | None
) -> set[tuple[int, int]]:
    """Return (BM, N) that give the grid; N to the precision of BN where it is not known."""
    _, tokens, blocks = launch
    found = set()
    for rows in ROWS:
        columns, rest = divmod(blocks, row_blocks(tokens, top_k, experts, rows))
        if rest or not columns:
            continue
        if width is None:
            found |= {(rows, columns * each) for each in COLUMNS}
        elif any(-(-width // each) == columns for each in COLUMNS):
            found.add((rows, width))
    return found


def _agreed(choices: list[set[tuple[int, int]]]) -> set[int]:
    """Return the widths that every launch allows, or any where they do not agree."""
    widths = [{width for _, width in pairs} for pairs in choices if pairs]
    if not widths:
        return set()
    return reduce(set.intersection, widths) or set.union(*widths)


def _chosen(rows: set[int], tokens: int) -> int | None:
    if len(rows) == 1:
        return next(iter(rows))
    usual = default_rows(tokens)
    return usual if usual in rows else None
