"""How one iteration of a training is run: as it is written, or recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from ..runtime import InputError


class Eager:
    """Runs each iteration as it is written."""

    adam: ClassVar[dict[str, bool]] = {}  # options that the optimizers then need

    def __call__(self, iteration: Callable[[], None]) -> None:
        """Run one iteration."""
        iteration()


class Capture:
    """Runs a few iterations as they are, records one, and replays the record from then on."""

    adam: ClassVar[dict[str, bool]] = {}
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
        """An iteration before the recording."""
        raise NotImplementedError

    def record(self, iteration: Callable[[], None]) -> None:
        """Note the operations of one iteration without running them."""
        raise NotImplementedError

    def replay(self) -> None:
        """Run the recorded operations on the tensors they were recorded with."""
        raise NotImplementedError


class CudaGraph(Capture):
    """A recorded iteration as one CUDA graph: all its kernels are launched at once.

    torch advances the GPU's random numbers at each replay as if the code had run.
    """

    # the step count lies on the GPU, so that a replay can raise it
    adam: ClassVar[dict[str, bool]] = {"fused": True, "capturable": True}

    def run(self, iteration: Callable[[], None]) -> None:
        """On a side stream, as a recording is."""
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            iteration()
        main.wait_stream(side)

    def record(self, iteration: Callable[[], None]) -> None:
        """Into a graph with memory of its own."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            iteration()

    def replay(self) -> None:
        """Launch the graph."""
        self.graph.replay()


CAPTURES: dict[str, type[Capture]] = {"cuda": CudaGraph}

REFUSED = (
    "this game cannot be captured ({reason}): its losses read a value on the host, or move data "
    "from the host to the GPU; keep all tensors on the GPU, or train with capture=False"
)
