"""``vllm serve`` whose workers can import the extension that lies beside this file.

Run by path with the interpreter that has vLLM; every argument is vLLM's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    # vLLM's own processes import the extension.
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    from vllm.entrypoints.cli.main import main

    sys.argv[0] = "vllm"
    sys.exit(main())
