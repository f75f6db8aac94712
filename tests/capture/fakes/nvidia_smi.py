"""Plays nvidia-smi on a node with two idle GPUs, or as FAKE_GPUS says."""

import os

print(
    os.environ.get(
        "FAKE_GPUS",
        "0, NVIDIA H100 80GB HBM3, 4, 81559, 580.1\n1, NVIDIA H100 80GB HBM3, 4, 81559, 580.1",
    )
)
