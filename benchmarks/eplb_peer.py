"""EPLB side by side with the policy that vLLM ships: seconds, and whether the loads come out alike.

The policy is read from a wheel of vLLM (`pip download --no-deps vllm==0.26.0`) or from an unpacked
one; vLLM itself is neither installed nor imported. Without `--wheel` only ours is measured.
Where PyTorch is not installed a stand-in holds its name: the policy computes with numpy, and what
is measured here, without conversions from and to tensors, never touches PyTorch.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.placement.cluster import Cluster
from nsysmoe.placement.loads import device_loads
from nsysmoe.placement.plan import place

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER = "vllm/distributed/eplb/policy"
_PACKAGE = "vllm_eplb_policy"
# Layers, experts, slots, GPUs, groups, nodes.
_SIZES = (
    (61, 256, 320, 32, 1, 1),
    (61, 256, 320, 64, 8, 8),
    (58, 256, 288, 144, 1, 1),
    (48, 128, 160, 16, 1, 1),
)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="vllm-….whl, or a folder that one lies in")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--spread", type=float, default=1.0, help="of the logarithms of loads")
    arguments = parser.parse_args()
    policy = None if arguments.wheel is None else _policy(arguments.wheel)
    if policy is None:
        print("no --wheel: vLLM's policy is not measured")
    for size in _SIZES:
        _compare(size, policy, arguments.rounds, arguments.spread)


def _compare(size: tuple[int, ...], policy: Any, rounds: int, spread: float) -> None:
    layers, experts, slots, gpus, groups, nodes = size
    # Integers: both sort ties in their own order, and single precision holds these exactly.
    draws = np.random.default_rng(0).lognormal(0, spread, (layers, experts))
    loads = np.rint(draws * 1000)
    cluster = Cluster(gpus, slots, nodes, groups)
    hierarchical = (groups, nodes) if groups % nodes == 0 else (1, 1)
    ways: dict[str, Callable[[], Any]] = {"ours": lambda: place(loads, cluster, "eplb")}
    if policy is not None:
        single = loads.astype(np.float32)
        ways["vLLM"] = lambda: policy.rebalance_experts_hierarchical(
            single, slots, *hierarchical, gpus
        )
    taken: dict[str, list[float]] = {name: [] for name in ways}
    highest = {}
    # By turns, so that what slows the machine slows both; the first round warms up.
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            found = way()
            taken[name].append(time.perf_counter() - start)
            highest[name] = device_loads(np.asarray(found), loads, gpus).max(axis=1)
    seconds = {name: float(np.median(each[1:])) for name, each in taken.items()}
    told = ", ".join(f"{name} {1e3 * each:.1f} ms" for name, each in seconds.items())
    if policy is not None:
        apart = float(np.abs(highest["ours"] / highest["vLLM"] - 1).max())
        told += f", ratio {seconds['ours'] / seconds['vLLM']:.2f}"
        told += f", busiest GPUs apart by {apart:.2%} at most"
    print(f"{layers} x {experts} -> {slots} slots on {gpus} GPUs, {nodes} nodes: {told}")


def _policy(wheel: Path) -> Any:
    """Return the class ``DefaultEplbPolicy`` of a wheel, without importing vLLM."""
    if wheel.is_dir() and (wheel / _FOLDER).is_dir():
        return _load(wheel / _FOLDER)
    if wheel.is_dir():
        wheel = next(iter(sorted(wheel.glob("vllm-*.whl"))), wheel)
    if not wheel.is_file():
        sys.exit(f"{wheel} is no wheel of vLLM: pip download --no-deps vllm==0.26.0 -d FOLDER")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for name in ("abstract.py", "default.py"):
            archive.extract(f"{_FOLDER}/{name}", folder)
        return _load(Path(folder) / _FOLDER)


def _load(folder: Path) -> Any:
    if importlib.util.find_spec("torch") is None:
        stand_in = types.ModuleType("torch")
        stand_in.Tensor = object  # type: ignore[attr-defined]
        sys.modules["torch"] = stand_in
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.default").DefaultEplbPolicy


if __name__ == "__main__":
    main()
