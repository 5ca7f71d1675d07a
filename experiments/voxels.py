"""Train the autoencoders of the chapter `voxels` for longer than the page can wait.

    python experiments/voxels.py

Three runs with the settings of the page and more steps: grids as they come; grids moved by a random
number of voxels each time they are seen; and the same with a decoder that pads with zeros instead
of going round. All are judged on the test split, as it comes and moved, and written to `run.json`
with principal components of as many numbers beside them.
"""

from __future__ import annotations

import time

import numpy as np
import record
import torch
from torch import Tensor, nn

from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.voxel_grid import largest_site_error

POINTS, LATENT, WIDTH = 16, 64, 16
STEPS, BATCH, RATE, SEED = 1200, 64, 4e-3, 0
RIGHT = 0.3  # Å
SETTINGS = {"points": POINTS, "latent": LATENT, "width": WIDTH, "steps": STEPS, "batch": BATCH,
            "rate": RATE, "seed": SEED, "right_within": RIGHT}  # fmt: skip
PAGE = record.chapter(
    "2_descriptors/voxels", until="parameters = [*encoder.parameters(), *decoder.parameters()]"
)
VOXELS = PAGE.coarse


def with_zeros(entries: int, exits: int) -> list[nn.Module]:
    """Twice as many points; what leaves on one side does not come in on the other."""
    return [nn.ConvTranspose3d(entries, exits, 4, stride=2, padding=1)]


def train(grids: Tensor, *, moved: bool) -> tuple[nn.Module, list[dict], float]:
    torch.manual_seed(SEED)
    encoder, decoder = PAGE.autoencoder(WIDTH, LATENT, POINTS)
    network = nn.Sequential(*encoder, *decoder)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    scale, rows, start = grids.square().mean(), [], time.process_time()
    for step in range(STEPS):
        x = grids[torch.randint(len(grids), (BATCH,))]
        if moved:
            x = x.roll(torch.randint(POINTS, (3,)).tolist(), (-3, -2, -1))
        loss = (network(x) - x).square().mean() / scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            rows.append({"step": step + 1, "loss": round(float(loss.detach()), 5)})
    return network.eval(), rows, time.process_time() - start


@torch.no_grad()
def judge(rebuild, crystals: CrystalBatch, known: np.ndarray, shift: tuple[int, ...]) -> dict:
    """Error of the numbers, and crystals of which every site came back."""
    frac = crystals.frac + torch.tensor(shift, dtype=torch.float64) / POINTS
    crystals = CrystalBatch(crystals.lattice, (frac % 1.0) * crystals.mask[:, :, None],
                            crystals.numbers)  # fmt: skip
    written = VOXELS.written(crystals)
    cell, sites = VOXELS.split(VOXELS.encode(crystals))
    back = torch.cat([rebuild(part) for part in sites.flatten(0, 1)[:, None].split(256)])
    decoded = VOXELS.decode(VOXELS.join(cell, back.view_as(sites)))
    right = largest_site_error(written, decoded) < RIGHT
    truth = sites.flatten(0, 1)[:, None]
    return {
        "n": len(right),
        "right": int(right.sum()),
        "n_new_prototypes": int((~known).sum()),
        "right_of_new_prototypes": int(right[~known].sum()),
        "relative_squared_error": float((back - truth).square().mean() / truth.square().mean()),
    }


def components(grids: Tensor):
    """Rebuild by principal components."""
    flat = grids.flatten(1)
    torch.manual_seed(SEED)
    _, _, axes = torch.svd_lowrank(flat - flat.mean(0), q=LATENT, niter=2)
    mean = flat.mean(0)
    return lambda x: ((x.flatten(1) - mean) @ axes @ axes.T + mean).view_as(x)


def autoencoders() -> None:
    """Train and judge all of them."""
    crystals, grids, held_out = PAGE.train, PAGE.grids, PAGE.held_out
    known = ~PAGE.new
    roads = {
        "principal components": (components(grids), [], 0.0),
        "as they come": train(grids, moved=False),
        "moved at random": train(grids, moved=True),
    }
    PAGE.grow = with_zeros
    roads["moved, decoder pads with zeros"] = train(grids, moved=True)
    runs = {
        name: {
            "test": judge(rebuild, held_out, known, (0, 0, 0)),
            "test_moved": judge(rebuild, held_out, known, (3, 5, 7)),
            "seconds": round(seconds, 1),
            "history": rows,
        }
        for name, (rebuild, rows, seconds) in roads.items()
    }
    about = {"settings": SETTINGS, "train_crystals": len(crystals)}
    path = record.CHECKPOINTS / "voxels" / "run.json"
    record.write(path, {**about, "runs": runs, **record.stamp(), "clock": "processor seconds"})


TASKS = (autoencoders,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
