"""`best` and `eplb` side by side: seconds and balance for every layer of a real size."""

from __future__ import annotations

import argparse
import time

import numpy as np

from nsysmoe.placement.cluster import Algorithm, Cluster
from nsysmoe.placement.loads import balancedness, device_loads
from nsysmoe.placement.plan import place

_SIZES = ((61, 256, 32, 320), (61, 256, 64, 320), (61, 256, 144, 288), (61, 512, 128, 640))
_ALGORITHMS: tuple[Algorithm, ...] = ("eplb", "best")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spread", type=float, default=1.0, help="of the logarithms of loads")
    arguments = parser.parse_args()
    for layers, experts, gpus, slots in _SIZES:
        loads = np.random.default_rng(0).lognormal(0, arguments.spread, (layers, experts))
        cluster = Cluster(gpus, slots)
        taken: dict[Algorithm, list[float]] = {name: [] for name in _ALGORITHMS}
        reached = {}
        # By turns, so that what slows the machine slows both.
        for _ in range(arguments.rounds):
            for name in _ALGORITHMS:
                start = time.perf_counter()
                found = place(loads, cluster, name)
                taken[name].append(time.perf_counter() - start)
                reached[name] = float(balancedness(device_loads(found, loads, gpus)).mean())
        seconds = {name: float(np.median(each)) for name, each in taken.items()}
        print(
            f"{layers} x {experts} -> {slots} slots on {gpus} GPUs: "
            + ", ".join(f"{name} {seconds[name]:.3f} s ({reached[name]:.4f})" for name in taken)
            + f", ratio {seconds['best'] / seconds['eplb']:.0f}"
        )


if __name__ == "__main__":
    main()
