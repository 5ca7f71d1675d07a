"""A CUDA graph for the CPU: records the operations of one iteration and replays them.

As with a real graph, replaying runs no Python of the iteration: the recorded operations read and
write the recorded tensors, and what the recording does on the host (reading a value, counting in a
Python variable) either fails or is frozen.
"""

from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imd_helpers.networks.capture import CudaGraph

HOST = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select")


class Tape(TorchDispatchMode):
    """Notes every operation with its tensors; refuses those that need the host."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.__name__.split(".")[0]
        if name in HOST:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        out = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, out))
        return out

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, out in self.calls:
            fresh = function(*args, **kwargs)
            given = {place(leaf) for leaf in tree_leaves((args, kwargs)) if is_tensor(leaf)}
            for old, new in zip(tree_leaves(out), tree_leaves(fresh), strict=True):
                # an operation in place, or a view, has written where it should already
                if is_tensor(old) and place(old) not in given:
                    old.copy_(new)


def is_tensor(leaf):
    return isinstance(leaf, torch.Tensor)


def place(tensor):
    return tensor.untyped_storage().data_ptr()


class TapeGraph(CudaGraph):
    """Stands in for `CudaGraph` where there is no GPU."""

    adam: ClassVar[dict[str, bool]] = {"fused": True}  # no step count is read on the host
    made: ClassVar[list] = []

    def __init__(self):
        super().__init__()
        self.python_runs = 0
        self.made.append(self)

    def run(self, iteration):
        self.python_runs += 1
        iteration()

    def record(self, iteration):
        self.tape = Tape()
        with self.tape:
            self.run(iteration)
        self.fresh = True  # unlike a GPU's, this recording has already run the operations

    def replay(self):
        if not self.fresh:
            self.tape.replay()
        self.fresh = False
