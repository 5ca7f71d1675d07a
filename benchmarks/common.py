"""What the benchmarks share: timing, the environment, and where results go."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def best_of(
    times: int, function: Callable, *args: Any, clock: Callable[[], float] = time.process_time
) -> tuple[float, Any]:
    """Shortest time of several calls, s, and the last answer.

    The clock counts the processor time of this process, so that other work on the machine does not
    count; give `time.perf_counter` for work on a GPU.
    """
    shortest = float("inf")
    for _ in range(times):
        start = clock()
        answer = function(*args)
        shortest = min(shortest, clock() - start)
    return shortest, answer


def environment(*packages: str) -> dict[str, Any]:
    """Versions and the class of machine; no names of machines or users."""
    gpu = None
    if "torch" in packages:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {
            "python": platform.python_version(),
            "imd-helpers": metadata.version("imd-helpers"),
            **{name: metadata.version(name) for name in packages},
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
        "clock": "processor seconds of one process; wall clock on a GPU",
        "gpu": gpu,
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write results/<name>.json (results/<name>-cuda.json on a machine with a GPU)."""
    path = RESULTS / f"{name}{'-cuda' if result.get('gpu') else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return path.relative_to(RESULTS.parent.parent)
