"""One iteration of a training, recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from ..runtime import InputError


class CudaGraph:
    """Runs a few iterations as they are, records one as a CUDA graph, and replays it from then on.

    All kernels of an iteration are launched at once; torch advances the GPU's random numbers at
    each replay as if the code had run.
    """

    # options of the optimizers: the step count lies on the GPU, so that a replay can raise it
    adam: ClassVar[dict[str, bool]] = {"fused": True, "capturable": True}
    warm_up = 3  # libraries choose their kernels and workspaces before the recording

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, iteration: Callable[[], None]) -> None:
        """Run one iteration, recorded or not."""
        self.runs += 1
        if self.runs <= self.warm_up:
            self.run(iteration)
            return
        if self.runs == self.warm_up + 1:
            try:
                self.record(iteration)
            except RuntimeError as error:
                raise InputError(REFUSED.format(reason=str(error).splitlines()[0])) from error
        self.replay()

    def run(self, iteration: Callable[[], None]) -> None:
        """An iteration before the recording, on a side stream, as a recording is."""
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            iteration()
        main.wait_stream(side)

    def record(self, iteration: Callable[[], None]) -> None:
        """Note the operations of one iteration without running them."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            iteration()

    def replay(self) -> None:
        """Run the recorded operations on the tensors they were recorded with."""
        self.graph.replay()


CAPTURES: dict[str, type[CudaGraph]] = {"cuda": CudaGraph}

REFUSED = (
    "this game cannot be captured ({reason}): its losses read a value on the host, or move data "
    "from the host to the GPU; keep all tensors on the GPU, or train with capture=False"
)
