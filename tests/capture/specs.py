"""Specs that the tests share, and the snapshots of their plans.

``python -m tests.capture.specs`` writes the snapshots anew.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nsysmoe.capture.plan import NODE, script
from nsysmoe.capture.spec import Balancing, Engine, Layout, Spec, Workload
from nsysmoe.capture.versions import Version

SNAPSHOTS = Path(__file__).parent / "snapshots"
VERSIONS = (
    "0.10.2",
    "0.11.0",
    "0.11.2",
    "0.13.0",
    "0.15.1",
    "0.20.2",
    "0.25.1",
    "0.26.0",
    "0.33.0",
)

PAPER = Spec(
    model="mistralai/Mixtral-8x7B-v0.1",
    vllm="0.26.0",
    layout=Layout(tensor=1, data=4),
    runs=1,
    engine=Engine(all2all="allgather_reducescatter"),
    balancing=Balancing(redundant=4),
)
TENSOR = replace(
    PAPER,
    layout=Layout(tensor=2, data=1),
    workload=Workload(count=8, input_tokens=64, output_tokens=16),
    balancing=Balancing(window=32, interval=96, is_async=False),
    engine=Engine(dtype="bfloat16", load_format="dummy", layers=8, is_eager=True),
)
SERVER = replace(PAPER, mode="server")


def plans(version: str) -> dict[str, str]:
    """Return the script of every mode that a version has, by the snapshot's name."""
    specs = {"offline-dp4": PAPER, "offline-tp2": TENSOR}
    if Version.parse(version).has("profiler_config"):
        specs["server-dp4"] = SERVER
    return {
        f"{version}-{name}.sh": script(replace(spec, vllm=version), "runs").replace(
            str(NODE), "NODE"
        )
        for name, spec in specs.items()
    }


if __name__ == "__main__":
    SNAPSHOTS.mkdir(exist_ok=True)
    for one in VERSIONS:
        for name, text in plans(one).items():
            (SNAPSHOTS / name).write_text(text, encoding="utf-8")
