"""How many slots the memory of GPUs has room for."""

from __future__ import annotations

from nsysmoe.errors import PlacementError


def slots_within(
    budget_bytes: float, expert_bytes: float, layers: int, experts: int, gpus: int
) -> int:
    """Return the physical experts of a layer that a memory budget allows, over all GPUs.

    Every GPU holds as many, in every layer. The budget is for what a GPU holds beyond its share of
    the experts, so a share that is no whole number (experts do not divide) is paid from it too.

    Args:
        budget_bytes: Of each GPU, over all layers.
        expert_bytes: Weights of one expert of one layer.
        layers: MoE layers.
        experts: Logical experts of a layer.
        gpus: Devices.

    Raises:
        PlacementError: The budget does not even hold the experts.
    """
    each = int(experts / gpus + budget_bytes / (expert_bytes * layers) + 1e-9)
    if each * gpus < experts:
        needed = (-(-experts // gpus) - experts / gpus) * expert_bytes * layers
        raise PlacementError(
            f"{experts} experts do not divide among {gpus} GPUs: {needed / 1e9:,.2f} GB a GPU are "
            f"needed to hold them, the budget is {budget_bytes / 1e9:,.2f} GB"
        )
    return each * gpus
