"""Universal interatomic potentials behind one interface: CHGNet, and two SevenNets beside it.

All carry their weights in their wheels, so nothing is downloaded. Their energies are on different
scales and must never meet in one hull: CHGNet 0.3.0 learned energies that include the corrections
MP2020 of the Materials Project, both SevenNets learned raw PBE(+U) energies.

A potential answers for every arrangement of atoms, also for one that it never learned anything
about, and may then be wrong by any amount. So crystals pass a distance gate first.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import torch

from ..crystals import CrystalBatch
from ..crystals.rules import RULES, GeometryRule, geometry_verdict
from ..runtime import InputError, lookup, need, whole

POTENTIALS = {  # names, and what a reader calls them
    "chgnet": "CHGNet",
    "sevennet": "SevenNet-0",
    "sevennet_l3i5": "SevenNet-l3i5",
}
JUDGES = ("chgnet", "sevennet_l3i5")  # the pair that DFT bears out best, see `data/calibration`
GATE: GeometryRule = RULES["imd"]
GPA = 160.21766208  # GPa in 1 eV/Å^3
MOST_ANGLES = 300_000  # of CHGNet, in one batch: ten times what 128 atoms of a real crystal have
MOST_ATOMS = 128  # in one batch: larger ones are no faster, and cost memory


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a potential says about n crystals; NaN where it says nothing."""

    energy: np.ndarray  # (n,) eV/atom
    forces: np.ndarray  # (n, sites, 3) eV/Å, 0 at padding
    # (n, 3, 3) eV/Å^3, derivative of the energy by the strain over the volume: positive where the
    # crystal would like to shrink
    stress: np.ndarray
    failed: dict[int, str]  # index -> why there is no answer


class Potential(ABC):
    """What all potentials share: the gate, batches, and one broken crystal that stops nothing."""

    name: str
    label: str  # name and version of the weights
    package: str  # that holds them
    extra: str  # of this package that installs it
    scale: str  # which energies it learned
    corrected = True  # the corrections MP2020 are in them, or have no place there

    def definition(self) -> dict[str, Any]:
        """Model, package and energy scale, for reports."""
        version = metadata.version(self.package)
        return {"potential": self.label, self.package: version, "energy_scale": self.scale}

    def energies(self, crystals: CrystalBatch, *, gate: GeometryRule | None = GATE) -> np.ndarray:
        """(n,) energies in eV/atom, NaN where there is none; see `evaluate` for the reasons.

        Args:
            crystals: n crystals.
            gate: crystals that break this rule get no energy; None for crystals that are known to
                be real.
        """
        energy = np.full(len(crystals), np.nan)
        for rows in self._batches(crystals, 16, gate, {}):
            for i, found in self._answers(crystals, rows, forces=False, failed={}):
                energy[i] = found[0]
        return energy

    def evaluate(
        self, crystals: CrystalBatch, *, batch: int = 8, gate: GeometryRule | None = GATE
    ) -> Evaluation:
        """Energies, forces and stresses of at most ``batch`` crystals at once; see `energies`."""
        n, sites = crystals.numbers.shape
        out = Evaluation(
            np.full(n, np.nan), np.zeros((n, sites, 3)), np.full((n, 3, 3), np.nan), {}
        )
        for rows in self._batches(crystals, batch, gate, out.failed):
            for i, (energy, forces, stress) in self._answers(crystals, rows, True, out.failed):
                out.energy[i], out.stress[i] = energy, stress
                out.forces[i, : len(forces)] = forces
        out.forces[np.isnan(out.energy)] = np.nan
        return out

    @abstractmethod
    def _run(self, crystals: CrystalBatch, forces: bool) -> list[tuple[Any, ...]]:
        """Each crystal's (energy in eV/atom, forces, stress); the latter two only if asked for."""

    def _batches(
        self, crystals: CrystalBatch, batch: int, gate: GeometryRule | None, failed: dict[int, str]
    ) -> Iterator[list[int]]:
        """Rows that pass the gate, in batches; why the others do not is added to ``failed``."""
        verdict = geometry_verdict(crystals, gate or GeometryRule("any", "no gate"))
        for i in np.flatnonzero(~verdict.ok):
            failed[int(i)] = f"distance gate: {verdict.reason(int(i))}"
        rows = np.flatnonzero(verdict.ok)
        return _of_similar_size(rows, crystals.n_sites.numpy(), whole("batch", batch, least=1))

    def _answers(
        self, crystals: CrystalBatch, rows: list[int], forces: bool, failed: dict[int, str]
    ) -> list[tuple[int, tuple[Any, ...]]]:
        try:
            found = self._run(crystals[rows], forces)
        except Exception as error:  # find the odd one, and keep the others
            if len(rows) == 1:
                failed[rows[0]] = f"{self.label}: {type(error).__name__}: {error}"
                return []
            return [a for i in rows for a in self._answers(crystals, [i], forces, failed)]
        good = []
        for i, answer in zip(rows, found, strict=True):
            if all(np.isfinite(part).all() for part in answer):
                good.append((i, answer))
            else:
                failed[i] = f"{self.label}: the energy or a force is not finite"
        return good


class Chgnet(Potential):
    """CHGNet 0.3.0: Deng et al., Nat. Mach. Intell. 5 (2023) 1031."""

    name, label, package, extra = "chgnet", "CHGNet 0.3.0", "chgnet", "judge"
    scale = "PBE(+U) with the corrections MP2020, learned"

    def __init__(self) -> None:
        from chgnet.model import CHGNet

        self.model = CHGNet.load(
            model_name="0.3.0", use_device="cpu", check_cuda_mem=False, verbose=False
        )
        self.model.eval()
        # generated cells may hold an atom without neighbours; its energy is poor, not missing
        self.model.graph_converter.set_isolated_atom_response("ignore")

    def _run(self, crystals: CrystalBatch, forces: bool) -> list[tuple[Any, ...]]:
        graphs = [self.model.graph_converter(each) for each in crystals.structures()]
        angles = sum(len(graph.bond_graph) for graph in graphs)
        if angles > MOST_ANGLES:
            raise InputError(
                f"{angles:,} angles between bonds, more than {MOST_ANGLES:,}: the cell has "
                "collapsed, or is too large for the memory"
            )
        if not forces:
            with torch.no_grad():
                out = self.model(graphs, task="e")["e"]
            return [(e,) for e in out.double().numpy()]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting a tensor")  # CHGNet's affair
            out = self.model(graphs, task="efs")
        energy = out["e"].detach().double().numpy()
        forces_of = [f.detach().double().numpy() for f in out["f"]]
        # CHGNet divides by a signed volume, which would pull a left-handed cell uphill
        hand = crystals.lattice.det().sign().numpy()[:, None, None]
        stress = hand * np.stack([s.detach().double().numpy() / GPA for s in out["s"]])
        return list(zip(energy, forces_of, stress, strict=True))


class Sevennet(Potential):
    """SevenNet-0 (11Jul2024): Park et al., J. Chem. Theory Comput. 20 (2024) 4857."""

    name, label, package, extra = "sevennet", "SevenNet-0", "sevenn", "hull"
    scale, corrected = "PBE(+U), uncorrected", False
    weights = "7net-0"

    def __init__(self) -> None:
        from sevenn.util import load_checkpoint

        checkpoint = load_checkpoint(self.weights)
        self.model = checkpoint.build_model().eval()
        self.model.set_is_batch_data(True)
        self.cutoff = float(checkpoint.config["cutoff"])

    def _run(self, crystals: CrystalBatch, forces: bool) -> list[tuple[Any, ...]]:
        data = self._graphs(crystals)
        n_atoms = crystals.n_sites.numpy()
        if not forces:
            with torch.no_grad():
                data = self._without_forces(data)
            return [(e,) for e in data["inferred_total_energy"].double().numpy() / n_atoms]
        data = self.model(data)
        energy = data["inferred_total_energy"].detach().double().numpy() / n_atoms
        all_forces = data["inferred_force"].detach().double().numpy()
        xx, yy, zz, xy, yz, zx = -data["inferred_stress"].detach().double().numpy().T
        stress = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]).transpose(2, 0, 1)
        return list(zip(energy, np.split(all_forces, n_atoms.cumsum()[:-1]), stress, strict=True))

    def _graphs(self, crystals: CrystalBatch) -> Any:
        from ase import Atoms
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph
        from torch_geometric.data import Batch

        graphs = []
        for lattice, frac, numbers in crystals.each():
            atoms = Atoms(numbers, scaled_positions=frac, cell=lattice, pbc=True)
            graph = unlabeled_atoms_to_graph(atoms, self.cutoff)
            graphs.append(AtomGraphData.from_numpy_dict(graph))
        return Batch.from_data_list(graphs)

    def _without_forces(self, data: Any) -> Any:
        """The layers of the model but the last, which differentiates the energy."""
        data = self.model._preprocess(data)
        for name, layer in self.model.named_children():
            if name != "force_output":
                data = layer(data)
        return data


class SevennetL3i5(Sevennet):
    """SevenNet-l3i5 (12Dec2024): the same architecture, harmonics to degree 3, five layers.

    Its card: https://github.com/MDIL-SNU/SevenNet, model `SevenNet-l3i5`.
    """

    name, label = "sevennet_l3i5", "SevenNet-l3i5"
    weights = "7net-l3i5"


_CLASSES: dict[str, type[Potential]] = {
    each.name: each for each in (Chgnet, Sevennet, SevennetL3i5)
}


def potential(name: str | Potential = "chgnet") -> Potential:
    """Load ``chgnet``, ``sevennet`` or ``sevennet_l3i5`` once; a potential is returned as it is.

    Raises:
        UnknownNameError: no such potential.
        InputError: its package is not installed.
    """
    if isinstance(name, Potential):
        return name
    return _load(lookup("potential", name, POTENTIALS))


@cache
def _load(name: str) -> Potential:
    kind = _CLASSES[name]
    need(kind.package, extra=kind.extra)
    return kind()


@dataclass(frozen=True)
class Witnesses:
    """What several potentials say about one crystal."""

    verdict: str  # ``stable``, ``unstable`` or ``undecided``
    reasons: tuple[str, ...]  # one sentence a potential
    found: dict[str, Any] = field(repr=False)  # potential -> its answer; without those with none


def by_all(
    potentials: Sequence[str | Potential],
    ask: Callable[[Potential], Any],
    say: Callable[[Any], str],
    *,
    stable: str,
    unstable: str,
) -> Witnesses:
    """Ask several potentials the same question about one crystal.

    ``unstable`` takes two witnesses: potentials are known to be too soft, so one alone never
    condemns a crystal. Where they disagree, or one gives no answer, the verdict is ``undecided``.

    Args:
        potentials: at least one, or their names.
        ask: gives an answer with a ``verdict``, or raises `InputError`.
        say: an answer as a sentence.
        stable: the verdict of an answer that speaks for the crystal.
        unstable: of one against it.

    Raises:
        InputError: no potential.
        UnknownNameError: no such potential.
    """
    if not potentials:
        raise InputError("no potential given: name at least one, better two")
    models, reasons, found = [potential(each) for each in potentials], [], {}
    for model in models:
        try:
            found[model.name] = ask(model)
            reasons.append(f"{model.label}: {say(found[model.name])}")
        except InputError as error:
            reasons.append(f"{model.label}: {error}")
    said = [answer.verdict for answer in found.values()]
    verdict = "undecided"
    if len(said) == len(models) and set(said) == {stable}:
        verdict = "stable"
    elif len(said) == len(models) > 1 and set(said) == {unstable}:
        verdict = "unstable"
    return Witnesses(verdict, tuple(reasons), found)


def _of_similar_size(rows: Sequence[int], n_sites: np.ndarray, batch: int) -> Iterator[list[int]]:
    """Rows in batches of at most ``batch`` crystals and `MOST_ATOMS` atoms, small ones first."""
    chosen: list[int] = []
    for i in sorted(rows, key=lambda i: (n_sites[i], i)):
        if chosen and (len(chosen) == batch or (len(chosen) + 1) * n_sites[i] > MOST_ATOMS):
            yield chosen
            chosen = []
        chosen.append(int(i))
    if chosen:
        yield chosen
