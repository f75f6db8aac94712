"""torch and transformers, or one line that says how to get them."""

from __future__ import annotations

from nsysmoe.errors import MissingDataError

try:
    import torch
    import transformers
except ImportError as error:
    raise MissingDataError(
        f"running a model needs torch and transformers ({error.name} is not installed): "
        "pip install 'nsysmoe[model]'"
    ) from error

__all__ = ["torch", "transformers"]
