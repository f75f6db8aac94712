"""Padding of batches on logs: what it does to the balance of experts, and what rerouting gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.routing.routing_load import Beside, TokenLogs, thinned_steps
from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from nsysmoe.metrics.routed_load.routing_loads import ChoiceCounts
    from nsysmoe.metrics.routed_load.token_sample import TokenSample
    from nsysmoe.metrics.routed_load.unit_loads import UnitLoads

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

# The settings of the slides: batch size x batches.
BATCHES = ((8, 50), (16, 20), (32, 10), (64, 5))
# Enough for 8 x 50, and loads of the largest models in half a GB.
_REQUESTS = 512
# Tokens whose routes stand for that of padding, where the log has no padding.
_STAND_INS = 16
_SAMPLE = 1 << 20
# Loads of single batches: 128 MB, a few times.
_LARGEST_CELLS = 1 << 24
_NOTHING_BESIDE = Beside()


@dataclass(frozen=True)
class Padding:
    """What padding does to balance.

    Attributes:
        source: The logs.
        shape: ``requests``, ``layers``, ``experts``, ``top_k``, ``real_tokens``,
            ``padding_tokens`` (marked in the log).
        marked: Of the padding that the log marks, as it ran: one a ``what`` (``real``: without
            padding, ``padded``, ``rerouted``): ``cv``, ``cv_p95`` and ``max_over_mean`` (layers
            in single batches), ``run_cv`` (layers over the run). Empty where none is marked.
        settings: Batches formed of the log's requests, one a size and order: ``batch_size``,
            ``batches``, ``order`` (``unsorted``, ``sorted``), ``real_tokens``,
            ``padding_tokens``, ``padding_share``, and for each of ``real``, ``padded``,
            ``rerouted``: ``{what}_cv``, ``{what}_max_over_mean``, ``{what}_run_cv``.
        heat: Choices by [layer][expert]: ``real``, ``padding``, ``rerouted`` (padding, moved), of
            what the log marks, else of the unsorted batches of the largest size.
        layers: Numbers of the layers.
        sentences: What it comes to.
        findings: What to know before believing it.
    """

    source: str
    shape: dict[str, int]
    marked: tuple[dict[str, Any], ...]
    settings: tuple[dict[str, Any], ...]
    heat: dict[str, list[list[float]]]
    layers: tuple[int, ...]
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Batches:
    """Choices of batches.

    Attributes:
        real: Of real tokens, shape [batches, layers, experts].
        tokens: Padding tokens, shape [batches, layers].
        padding: Choices of padding, by each route that it may take; shape of ``real``.
        top_k: Experts a token.
    """

    real: Counts
    tokens: Counts
    padding: tuple[Floats, ...]
    top_k: int

    @property
    def moved(self) -> Counts:
        """Choices of padding once it is rerouted; shape of ``real``."""
        from nsysmoe.metrics.routed_load.padding import filled  # noqa: PLC0415

        return filled(self.real, self.tokens, self.top_k)


@dataclass
class _Read:
    """What one pass over the logs gives."""

    logs: TokenLogs
    counts: ChoiceCounts
    units: UnitLoads
    sample: TokenSample
    has_requests: bool = True

    def take(self, batch: pl.DataFrame) -> None:
        """Look at a batch; what is not marked is real."""
        import polars as pl  # noqa: PLC0415 - slow to import

        rows = batch.with_columns(pl.col("padding").fill_null(value=False))
        real = rows.filter(~pl.col("padding"))
        self.counts.add(rows)
        self.units.add(real)
        self.sample.add(real)
        self.has_requests = self.has_requests and not rows["request"].null_count()


def padding(  # noqa: PLR0913 - what batches are formed of, by keyword
    paths: Sequence[str | Path],
    *,
    batches: Sequence[tuple[int, int]] = BATCHES,
    experts: int | None = None,
    seed: int = 0,
    keep_dummy: bool = False,
    beside: Beside = _NOTHING_BESIDE,
) -> Padding:
    """Measure what padding does to balance, and what moving it to idle experts gives.

    Args:
        paths: Logs of any form but counts, or folders of them.
        batches: Size and count of the batches that are formed of the log's requests.
        experts: Experts of a layer; None for the highest of the logs plus one.
        seed: Of the draw of requests.
        keep_dummy: Count rows of the engine's dummy runs too.
        beside: Files that mark padding, and tell prompts from answers.

    Raises:
        InputError: A log cannot be used.
        MissingDataError: The logs hold counts alone, or neither marks nor requests.
    """
    from nsysmoe.metrics.routed_load.routing_loads import thinned  # noqa: PLC0415 - polars

    read = _read(TokenLogs(paths, beside, keep_dummy))
    counted = read.counts.counts()
    wide = _experts(counted, experts, read.logs.name)
    some, every = thinned(counted, wide, _LARGEST_CELLS)
    marked = _marked(some, wide, read.logs.top_k)
    formed: dict[tuple[int, int, str], _Batches] = {}
    if read.has_requests:
        routes = _routes_of_padding(marked, read, wide)
        formed = _formed(read, batches, routes, seed)
    elif marked is None:
        raise MissingDataError(
            f"{read.logs.name} marks no padding and names no requests to form batches of; give "
            "--lengths, or a log that names them"
        )
    settings = tuple(_setting(key, found) for key, found in formed.items())
    shown = marked or formed[max(formed, key=lambda key: (key[2] == "unsorted", key[0]))]
    return Padding(
        source=read.logs.name,
        shape=_shape(counted, read, wide),
        marked=() if marked is None else tuple(_rows(marked)),
        settings=settings,
        heat=_heat(shown),
        layers=tuple(read.units.layers),
        sentences=tuple(_sentences(marked, settings)),
        findings=(
            *thinned_steps(every, "; so are sums over the run"),
            *_findings(marked, settings, read, counted),
            *read.logs.findings,
        ),
    )


def _read(logs: TokenLogs) -> _Read:
    from nsysmoe.metrics.routed_load.routing_loads import ChoiceCounts  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.token_sample import TokenSample  # noqa: PLC0415
    from nsysmoe.metrics.routed_load.unit_loads import UnitLoads  # noqa: PLC0415

    read = _Read(
        logs,
        ChoiceCounts(("run", "step", "layer", "expert", "padding")),
        UnitLoads(("phase",), _REQUESTS, is_shared=False),
        TokenSample(_SAMPLE),
    )
    logs.feed(read.take)
    return read


def _experts(counted: pl.DataFrame, experts: int | None, name: str) -> int:
    highest = int(counted["expert"].max()) + 1  # type: ignore[arg-type]
    if experts is not None and experts < highest:
        raise MissingDataError(f"{name} names expert {highest - 1}; --experts says {experts}")
    return experts or highest


def _marked(counted: pl.DataFrame, experts: int, top_k: int) -> _Batches | None:
    """Return the batches that ran, a step each; None where no padding is marked."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    if not counted["padding"].any():
        return None
    place = [pl.struct("run", "step").rank("dense"), pl.col("layer").rank("dense")]
    rows = counted.select(
        place[0].alias("batch") - 1, place[1].alias("layer") - 1, "expert", "padding", "tokens"
    )
    shape = tuple(int(rows[name].max()) + 1 for name in ("batch", "layer"))  # type: ignore[arg-type]
    both = np.zeros((2, *shape, experts), dtype=np.int64)
    index = tuple(rows[name].to_numpy() for name in ("batch", "layer", "expert"))
    flag = rows["padding"].to_numpy().astype(np.int64)
    both[(flag, index[0], index[1], index[2])] = rows["tokens"].to_numpy()
    # A log that was cut may lack choices of its last token.
    tokens = -(-both[1].sum(axis=-1) // top_k)
    return _Batches(both[0], tokens, (both[1].astype(np.float64),), top_k)


def _routes_of_padding(marked: _Batches | None, read: _Read, experts: int) -> Floats:
    """Return choices of one padding token by layer and expert, under each route that it may take.

    Where the log has padding, the mean of its choices. Else routes of real tokens, drawn evenly:
    padding is one token of the vocabulary, that takes nearly one route wherever it stands.

    Returns:
        Shape [routes, layers, experts].
    """
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.activation import shares  # noqa: PLC0415

    if marked is not None:
        observed = shares(marked.padding[0].sum(axis=0))
        return np.nan_to_num(observed)[None] * read.logs.top_k
    routes = read.sample.routes()
    random = np.random.default_rng(0)
    found = np.zeros((_STAND_INS, len(routes.layers), experts))
    for layer in range(len(routes.layers)):
        drawn = random.choice(np.flatnonzero(routes.layer == layer), _STAND_INS)
        np.add.at(found[:, layer], (np.arange(_STAND_INS)[:, None], routes.experts[drawn]), 1)
    return found


def _formed(
    read: _Read, batches: Sequence[tuple[int, int]], routes: Floats, seed: int
) -> dict[tuple[int, int, str], _Batches]:
    """Form batches of every size, unsorted and sorted."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.padding import formed, padding_of  # noqa: PLC0415

    loads, lengths = _requests(read, routes.shape[2])
    found = {}
    for size, count in batches:
        for order in ("unsorted", "sorted"):
            rows = formed(lengths, size, count, is_sorted=order == "sorted", seed=seed)
            real = np.stack([loads[row].sum(axis=0) for row in rows])
            tokens = padding_of(lengths, rows)
            found[size, count, order] = _Batches(
                real,
                np.broadcast_to(tokens[:, None], real.shape[:2]),
                tuple(tokens[:, None, None] * route for route in routes),
                read.logs.top_k,
            )
    return found


def _requests(read: _Read, experts: int) -> tuple[Counts, Counts]:
    """Return loads [requests, layers, experts] and tokens of requests: prompts, where known."""
    import numpy as np  # noqa: PLC0415

    groups = read.units.loads()
    phases = [group[0] for group in read.units.groups]
    kept = groups[[phases.index("prefill")]] if "prefill" in phases else groups
    loads = kept.sum(axis=0, dtype=np.int64)
    lengths = -(-loads.sum(axis=-1).max(axis=-1) // read.logs.top_k)
    used = lengths > 0
    wide = np.zeros((int(used.sum()), loads.shape[1], experts), dtype=np.int64)
    wide[:, :, : loads.shape[2]] = loads[used]
    return wide, lengths[used]


def _variants(found: _Batches) -> dict[str, list[Floats]]:
    """Return loads without padding, with it under each of its routes, and with it moved."""
    return {
        "real": [found.real.astype(float)],
        "padded": [found.real + padding for padding in found.padding],
        "rerouted": [(found.real + found.moved).astype(float)],
    }


def _measured(variants: Sequence[Floats]) -> dict[str, float | None]:
    """Measure layers in single batches, and over all; the mean over routes of padding."""
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.routed_load.load_balance import (  # noqa: PLC0415
        max_over_mean,
        mean_known,
        spread,
        variation,
    )

    cells = np.stack([variation(loads) for loads in variants])
    return {
        "cv": mean_known(cells),
        "cv_p95": spread(cells)["p95"],
        "max_over_mean": mean_known(np.stack([max_over_mean(loads) for loads in variants])),
        "run_cv": mean_known(np.stack([variation(loads.sum(axis=0)) for loads in variants])),
    }


def _rows(found: _Batches) -> list[dict[str, Any]]:
    return [{"what": what, **_measured(loads)} for what, loads in _variants(found).items()]


def _setting(key: tuple[int, int, str], found: _Batches) -> dict[str, Any]:
    size, count, order = key
    real = int(found.real.sum(axis=-1).max(axis=-1).sum() // found.top_k)
    tokens = int(found.tokens[:, 0].sum())
    row = {
        "batch_size": size,
        "batches": count,
        "order": order,
        "real_tokens": real,
        "padding_tokens": tokens,
        "padding_share": tokens / (tokens + real),
    }
    for what, loads in _variants(found).items():
        measured = _measured(loads)
        row |= {f"{what}_{name}": measured[name] for name in ("cv", "max_over_mean", "run_cv")}
    return row


def _shape(counted: pl.DataFrame, read: _Read, experts: int) -> dict[str, int]:
    import polars as pl  # noqa: PLC0415 - slow to import

    layers = len(read.units.layers)
    each = layers * read.logs.top_k
    real, padding = (
        -(-int(counted.filter(pl.col("padding") == flag)["tokens"].sum()) // each)
        for flag in (False, True)
    )
    return {
        "requests": read.units.units,
        "layers": layers,
        "experts": experts,
        "top_k": read.logs.top_k,
        "real_tokens": real,
        "padding_tokens": padding,
    }


def _heat(found: _Batches) -> dict[str, list[list[float]]]:
    import numpy as np  # noqa: PLC0415

    first = np.mean(found.padding, axis=0)
    return {
        "real": found.real.sum(axis=0).tolist(),
        "padding": first.sum(axis=0).tolist(),
        "rerouted": found.moved.sum(axis=0).tolist(),
    }


def _sentences(marked: _Batches | None, settings: Sequence[dict[str, Any]]) -> list[str]:
    said = []
    if marked is not None:
        rows = {row["what"]: row for row in _rows(marked)}
        share = marked.tokens[:, 0].sum() * marked.top_k
        share = share / (share + marked.real[:, 0].sum())
        said.append(
            f"{share:.1%} of the log's tokens are padding: CV of experts {_cv(rows['padded'])} "
            f"(real tokens alone {_cv(rows['real'])}); with padding moved to the least loaded "
            f"experts {_cv(rows['rerouted'])} (mean over layers and batches)."
        )
    return said + [
        f"{row['batches']} batches of {row['batch_size']}, {row['order']}: "
        f"{row['padding_share']:.1%} padding, CV {_cv(row, 'padded_cv')}, rerouted "
        f"{_cv(row, 'rerouted_cv')}."
        for row in settings
        if row["order"] == "unsorted" and row["padding_tokens"]
    ]


def _cv(row: dict[str, Any], key: str = "cv") -> str:
    return "n/a" if row[key] is None else f"{row[key]:.3f}"


def _findings(
    marked: _Batches | None,
    settings: Sequence[dict[str, Any]],
    read: _Read,
    counted: pl.DataFrame,
) -> list[Finding]:
    found = []
    if marked is not None and counted["step"].null_count():
        found.append(
            Finding(
                "no_steps", "warning",
                "the log does not tell batches (steps): what it marks is judged as one batch",
            )
        )  # fmt: skip
    if settings and not any(row["padding_tokens"] for row in settings):
        found.append(
            Finding(
                "equal_lengths", "warning",
                "all requests are of one length, so that batches of them need no padding",
            )
        )  # fmt: skip
    elif settings and marked is None:
        found.append(
            Finding(
                "assumed_padding", "info",
                f"the log has no padding: its route is taken from {_STAND_INS} real tokens in "
                "turn, one for all padding, and measures are the mean",
                {"routes": _STAND_INS},
            )
        )  # fmt: skip
    return found + _of_requests(settings, read)


def _of_requests(settings: Sequence[dict[str, Any]], read: _Read) -> list[Finding]:
    found = []
    used = min(read.units.units, _REQUESTS)
    most = max((row["batch_size"] * row["batches"] for row in settings), default=0)
    if most > used:
        found.append(
            Finding(
                "repeated_requests", "warning",
                f"up to {most} requests are needed, and the log has {used}: they come again, and "
                "sorted batches hold copies, which need too little padding",
                {"needed": most, "requests": used},
            )
        )  # fmt: skip
    if settings and read.units.units > _REQUESTS:
        found.append(
            Finding(
                "first_requests", "info",
                f"batches are formed of the first {_REQUESTS} of {read.units.units:,} requests",
                {"requests": read.units.units},
            )
        )  # fmt: skip
    return found
