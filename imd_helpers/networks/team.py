"""The processes that train together, under torchrun or alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Team:
    """The processes that train together: one, or those that torchrun started."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Team:
        """The team of this process."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over the team."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def equalise(self, *networks: nn.Module | None) -> None:
        """Give every process the first one's weights."""
        if self.size == 1:
            return
        for network in networks:
            for tensor in network.state_dict().values() if network is not None else ():
                dist.broadcast(tensor, 0)
