"""torch and transformers, or one line that says how to get them."""

from __future__ import annotations

from nsysmoe.errors import MissingDataError

try:
    import torch
    import transformers
except ImportError as error:
    reason = f"{error.name} is not installed" if error.name else str(error).splitlines()[0]
    raise MissingDataError(
        f"running a model needs torch and transformers ({reason}): pip install 'nsysmoe[model]'"
    ) from error

__all__ = ["torch", "transformers"]
