"""Numbered equations of the part on descriptors, as the package computes them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from imd_helpers.crystals import CrystalBatch, geometry, symmetry
from imd_helpers.descriptors import amd, bags, coordinate_matrix, coulomb, molecules, smiles, soap
from imd_helpers.descriptors.composition_matrix import ELEMENTS, CompositionMatrix
from imd_helpers.descriptors.fingerprints import magpie_statistics
from imd_helpers.descriptors.methane_grid import MethaneGrid, heat_of_adsorption
from imd_helpers.descriptors.voxel_grid import CUT, SIGMA, VoxelGrid
from imd_helpers.networks import graphs, layers

SKEW = np.array([[4.1, 0.0, 0.0], [0.7, 3.6, 0.0], [-0.4, 0.9, 5.2]])  # Å
FRAC = np.array([[0.1, 0.2, 0.3], [0.6, 0.55, 0.8], [0.85, 0.05, 0.5]])
CRYSTAL = CrystalBatch.from_ragged(SKEW[None], FRAC, [8, 22, 8], [3])


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.{function}")


@pytest.fixture(scope="module")
def ethanol():
    return smiles.embed("CCO", seed=1)


# ---- molecules


@verifies("eq-molecules-coulomb", "descriptors.coulomb.coulomb")
def test_coulomb_matrix_entry_by_entry(agrees):
    """Plain loops over the atoms of water."""
    xyz = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
    z, by_hand = [8, 1, 1], np.zeros((3, 3))
    for i, j in itertools.product(range(3), repeat=2):
        r = math.dist(xyz[i], xyz[j])
        by_hand[i, j] = 0.5 * z[i] ** 2.4 if i == j else z[i] * z[j] / r
    distances = torch.cdist(torch.tensor(xyz), torch.tensor(xyz))[None]
    agrees(coulomb.coulomb(torch.tensor([z]), distances)[0], by_hand, within=1e-12)


@verifies("eq-molecules-scaling", "descriptors.molecules.positions_from_distances")
def test_positions_have_the_distances_that_they_came_from(agrees):
    """Distances of 12 random points, from points that were placed by their distances alone."""
    points = torch.tensor(np.random.default_rng(0).normal(size=(12, 3)))
    back, _ = molecules.positions_from_distances(torch.cdist(points, points))
    agrees(torch.cdist(back, back), torch.cdist(points, points), within=1e-7)


@verifies("eq-molecules-sine", "descriptors.coulomb.SineMatrix")
def test_sine_matrix_entry_by_entry(agrees):
    """The formula for one pair after the other, in a triclinic cell."""
    found = coulomb.SineMatrix(3, order="none").encode(CRYSTAL)[0]
    for i, j in itertools.combinations(range(3), 2):
        step = (np.sin(np.pi * (FRAC[i] - FRAC[j])) ** 2) @ SKEW
        charges = int(CRYSTAL.numbers[0, i] * CRYSTAL.numbers[0, j])
        agrees(found[i, j], charges / np.linalg.norm(step), within=1e-5)


@verifies("eq-molecules-ewald", "descriptors.coulomb.ewald")
def test_ewald_sums_against_madelung(agrees):
    """Madelung's constant of rock salt, -1.7475645946 for ions 1 Å apart."""
    cell, sites = np.ones((3, 3)) - np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    matrix = coulomb.ewald(cell, sites, np.array([1.0, -1.0]), accuracy=1e-14)
    agrees(np.triu(matrix).sum(), -1.7475645946331822, within=1e-9)


@verifies("eq-molecules-ewald", "descriptors.coulomb.ewald")
def test_the_width_of_ewalds_cloud_does_not_matter(agrees):
    """Entries for two widths of the clouds, which move terms from one sum to the other."""
    one, other = (
        coulomb.ewald(SKEW, FRAC, np.ones(3), accuracy=1e-14, screening=alpha)
        for alpha in (0.4, 0.8)
    )
    agrees(one, other, within=1e-8)


@verifies("eq-molecules-uff", "descriptors.bags.uff_terms")
def test_force_field_terms_add_up_to_rdkits_energy(agrees, ethanol):
    """RDKit's own UFF energy of ethanol, with harmonic bonds on both sides, kcal/mol."""
    from rdkit.Chem.rdForceFieldHelpers import UFFGetMoleculeForceField

    ours = sum(bags.uff_terms(ethanol, stretch="harmonic").values())
    agrees(ours, UFFGetMoleculeForceField(ethanol, vdwThresh=1e9).CalcEnergy(), within=1e-6)


@verifies("eq-molecules-uff", "descriptors.bags.morse")
def test_morse_has_the_springs_bottom_and_curvature(agrees):
    """Minus D at the natural distance, and the force constant by second difference."""
    k, depth, h = 700.0, 70.0, 1e-4
    bottom = bags.morse(1.5, 1.5, k, depth)
    bend = bags.morse(1.5 + h, 1.5, k, depth) + bags.morse(1.5 - h, 1.5, k, depth) - 2 * bottom
    agrees(bottom, -depth, within=1e-9)
    agrees(bend / h**2, k, within=1e-4, relative=True)


@verifies("eq-molecules-gaussian", "descriptors.soap.expansion")
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_expansion_against_quadrature(agrees, degree):
    """The integral of a Gaussian times r^l exp(-a r^2) Y_lm, summed over a fine grid."""
    from scipy.special import sph_harm_y

    alpha, sigma, centre = 0.8, 0.5, np.array([0.7, -0.4, 0.9])
    line = np.arange(-5, 5.01, 0.125)
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    r = np.linalg.norm(points, axis=1)
    polar = np.arccos(np.divide(points[:, 2], r, out=np.ones_like(r), where=r > 0))
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    weight = np.exp(-((points - centre) ** 2).sum(1) / (2 * sigma**2) - alpha * r**2) * r**degree
    summed = [
        (weight * sph_harm_y(degree, m, polar, azimuth)).sum() * 0.125**3
        for m in range(-degree, degree + 1)
    ]
    found = soap.expansion(
        degree, centre[None, None], np.ones((1, 1), bool),
        alphas=np.array([alpha]), sigma=sigma, reach=5.0,
    )[0, 0, 0]  # fmt: skip
    normalised = soap.radial_mixing(degree, np.array([alpha]))[0, 0] * np.abs(summed)
    agrees(np.abs(found), normalised, within=1e-6)


@verifies("eq-molecules-soap", "descriptors.soap.Soap")
def test_soap_against_dscribe(agrees, ethanol):
    """The program dscribe, for ethanol."""
    from dscribe.descriptors import SOAP

    batch, kinds = smiles.batch_of([ethanol]), ["H", "C", "O"]
    theirs = SOAP(species=kinds, r_cut=4.0, n_max=4, l_max=3, sigma=0.5, average="outer")
    ours = soap.Soap(kinds, r_cut=4.0, n_max=4, l_max=3, sigma=0.5)
    agrees(ours.encode(batch)[0], theirs.create(batch.atoms()[0]), within=1e-6)


@verifies("eq-symmetry-soap", "descriptors.soap.Soap")
def test_soap_does_not_notice_a_rotation(agrees, ethanol):
    """The same molecule after a random rotation."""
    batch = smiles.batch_of([ethanol])
    turn = torch.tensor(Rotation.random(rng=np.random.default_rng(0)).as_matrix())
    turned = molecules.MoleculeBatch(batch.positions @ turn, batch.numbers)
    power = soap.Soap(["H", "C", "O"], r_cut=4.0, n_max=4, l_max=3)
    agrees(power.encode(turned), power.encode(batch), within=1e-8)


# ---- compositions


@verifies("eq-compositions-matrix", "descriptors.composition_matrix.CompositionMatrix")
def test_composition_matrix_entry_by_entry(agrees):
    """Ones written one by one for SrTiO3 and Mg2SiO4."""
    by_hand = np.zeros((2, 85, 8))
    for row, counts in enumerate(({38: 1, 22: 1, 8: 3}, {12: 2, 14: 1, 8: 4})):
        for number, count in counts.items():
            by_hand[row, ELEMENTS.index(number), count - 1] = 1
    agrees(CompositionMatrix().encode(["SrTiO3", "Mg2SiO4"]), by_hand, within=1e-12)


@verifies("eq-compositions-statistics", "descriptors.fingerprints.magpie_statistics")
def test_mean_and_deviation_of_the_atomic_number(agrees):
    """Mean and mean deviation of the atomic numbers of all atoms of a formula, listed."""
    counts = np.zeros((1, 119))
    counts[0, [38, 22, 8]] = 1, 1, 3
    atoms = np.array([38, 22, 8, 8, 8])
    expected = atoms.mean(), np.abs(atoms - atoms.mean()).mean()
    agrees(magpie_statistics(counts)[0, 3:5], expected, within=1e-9)


@verifies("eq-compositions-embedding", "networks.layers.mlp")
def test_a_first_layer_on_shares_adds_vectors_of_elements(agrees):
    """The sum of the columns of the weights, one for each element, times the shares."""
    torch.manual_seed(0)
    (layer,) = [part for part in layers.mlp((85, 16)) if isinstance(part, torch.nn.Linear)]
    shares = torch.rand(10, 85).softmax(1)
    with torch.no_grad():
        summed = sum(shares[:, [i]] * layer.weight[:, i] for i in range(85))
        agrees(layer(shares) - layer.bias, summed, within=1e-5)


# ---- coordinates


@verifies("eq-coordinates-squeeze", "descriptors.coordinate_matrix.squeeze")
def test_stored_coordinates_lie_between_a_sixth_and_five_sixths(agrees):
    """1/6 at 0, 1/2 in the middle and 5/6 at 1, by exact fractions."""
    frac = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    agrees(coordinate_matrix.squeeze(frac), [1 / 6, 1 / 2, 5 / 6], within=1e-12)


# ---- voxels


def drawn(frac, n):
    """A sum over sites and 27 images of Gaussians, cut as published, on a grid of n points."""
    points = np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing="ij"), -1)
    total = np.zeros((n, n, n))
    for site, shift in itertools.product(frac, itertools.product((-1, 0, 1), repeat=3)):
        step = (points - site - np.array(shift)) @ SKEW
        value = np.exp(-(step**2).sum(-1) / (2 * SIGMA**2))
        total += np.where(value >= CUT, value, 0)
    return total


@verifies("eq-voxels-gaussian", "descriptors.voxel_grid.VoxelGrid")
def test_site_grid_against_plain_loops(agrees):
    """Plain loops over sites, images and points, in a triclinic cell."""
    grid = VoxelGrid(elements=(8, 22), site_points=20, reduce=False)
    sites = grid.split(grid.encode(CRYSTAL))[1]
    agrees(sites[0, 0], drawn(FRAC[[0, 2]], 20), within=1e-5)
    agrees(sites[0, 1], drawn(FRAC[[1]], 20), within=1e-5)


@verifies("eq-voxels-cell", "descriptors.voxel_grid.VoxelGrid.read_cells")
def test_the_metric_comes_back_from_the_blob(agrees):
    """The metric of a triclinic cell, read from a blob that was written by the formula."""
    grid = VoxelGrid()
    d = (np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1) - 16) / 32
    blob = np.exp(-np.einsum("...i,ij,...j", d, SKEW @ SKEW.T, d) / (2 * SIGMA**2))
    blob[blob < CUT] = 0
    lattice = grid.read_cells(torch.tensor(blob[None], dtype=torch.float32))[0][0]
    agrees(lattice @ lattice.T, SKEW @ SKEW.T, within=1e-3)


@verifies("eq-voxels-peak", "descriptors.voxel_grid.VoxelGrid.decode")
def test_an_isolated_atom_comes_back_from_between_the_voxels(agrees):
    """Places of atoms between the points of a grid, 0.3 Å apart, Å."""
    grid = VoxelGrid(elements=(8, 22), site_points=16, reduce=False)
    one = CrystalBatch.from_ragged(4.8 * np.eye(3)[None], FRAC[:1], [8], [1])
    decode = grid.decode(grid.encode(one))
    agrees(decode.crystals.frac[0, :1] * 4.8, FRAC[:1] * 4.8, within=1e-4)


@verifies("eq-voxels-methane", "descriptors.methane_grid.MethaneGrid.energy")
def test_methane_energy_by_a_direct_sum(agrees):
    """A sum over all oxygen atoms within 12 Å, at the centre of a made-up silica cell, K."""
    frac = np.array([[0.1, 0.1, 0.1], [0.1, 0.5, 0.9], [0.9, 0.2, 0.4]])
    cell = CrystalBatch.from_ragged(8.0 * np.eye(3)[None], frac, [14, 8, 8], [3])
    energy, total = MethaneGrid().energy(cell), 0.0
    for site, shift in itertools.product(frac[1:], itertools.product(range(-3, 4), repeat=3)):
        r = np.linalg.norm((0.5 - site - np.array(shift)) * 8.0)
        if r <= 12.0:
            total += 4 * 115.0 * ((3.47 / r) ** 12 - (3.47 / r) ** 6)
    agrees(energy[16, 16, 16], total, within=1e-6)


@verifies("eq-voxels-heat", "descriptors.methane_grid.heat_of_adsorption")
def test_heat_of_adsorption_is_a_slope(agrees):
    """T minus the slope of -log sum exp(-U/T) by 1/T, a finite difference, kJ/mol."""
    energy, t = np.random.default_rng(0).normal(-1500, 400, (8, 8, 8)), 298.0

    def free(beta):
        return -np.log(np.exp(-beta * (energy + 1500)).sum()) + beta * -1500

    h = 1e-7
    mean = (free(1 / t + h) - free(1 / t - h)) / (2 * h)
    agrees(heat_of_adsorption(energy), (t - mean) * 8.314e-3, within=1e-4)


# ---- symmetry


@verifies("eq-symmetry-cell", "crystals.geometry.reduce_lattice")
def test_a_reduced_cell_is_a_whole_number_change_of_basis(agrees):
    """The same volume, and coordinates that lead to the same Cartesian places, Å."""
    lattice = torch.tensor(np.array([[1, 3, 0], [0, 1, -2], [0, 0, 1]]) @ SKEW)
    reduced, change = (part[0] for part in geometry.reduce_lattice(lattice[None]))
    frac = torch.tensor(FRAC)
    agrees(change, change.round(), within=1e-12)
    agrees(torch.linalg.det(change).abs(), 1.0, within=1e-9)
    agrees(frac @ torch.linalg.inv(change) @ reduced, frac @ lattice, within=1e-9)


@verifies("eq-symmetry-multiplicity", "crystals.symmetry.orbits")
@pytest.mark.parametrize("group", [194, 225, 227])
def test_multiplicities_count_the_images(agrees, group):
    """Images of a site under all operations, listed and counted without repeats."""
    lattice = np.diag([4.0, 4.0, 4.0]) if group > 194 else np.array(
        [[4.0, 0, 0], [-2, 12**0.5, 0], [0, 0, 6.5]]
    )  # fmt: skip
    site = np.array([[0.125] * 3, [0.0] * 3, [1 / 3, 2 / 3, 0.25]][(227, 225, 194).index(group)])
    rotations, translations = symmetry.operations(group)
    images = np.unique(np.mod(rotations @ site + translations + 1e-6, 1).round(4), axis=0)
    crystal = CrystalBatch.from_ragged(lattice[None], images, [27] * len(images), [len(images)])
    (orbit,) = symmetry.orbits(crystal)
    agrees(orbit.multiplicity, [len(images)], within=1e-12)


@verifies("eq-symmetry-convolution", "networks.graphs.GraphConvolution")
def test_a_graph_convolution_edge_by_edge(agrees):
    """The sum over edges in plain loops, with one matrix for the joined features."""
    torch.manual_seed(0)
    layer = graphs.GraphConvolution(4, 3).double().eval()
    v, u = torch.randn(5, 4, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    ends = torch.randint(5, (2, 9))
    weights = torch.cat([layer.centre.weight, layer.neighbour.weight, layer.edge.weight], dim=1)
    total = v.clone()
    for edge, (i, j) in enumerate(ends.T.tolist()):
        z = weights @ torch.cat([v[i], v[j], u[edge]]) + layer.centre.bias
        total[i] += torch.sigmoid(z[:4]) * torch.log1p(torch.exp(z[4:]))
    layer.norm = torch.nn.Identity()  # the equation is without the published batch norm
    found = layer(v, ends, u)  # GraphConvolution ends in a softplus, which the equation leaves out
    agrees(torch.log(torch.expm1(found)), total, within=1e-9)


@verifies("eq-symmetry-amd", "descriptors.amd.average_minimum_distances")
def test_distances_in_a_simple_cubic_crystal(agrees):
    """The shells of the simple cubic lattice: 6 at 1, 12 at √2, 8 at √3 and 6 at 2."""
    cube = CrystalBatch.from_ragged(np.eye(3)[None] * 3.0, [[0.2, 0.3, 0.4]], [84], [1])
    shells = np.repeat([1, 2**0.5, 3**0.5, 2], [6, 12, 8, 6]) * 3.0
    agrees(amd.average_minimum_distances(cube, k=32)[0], shells, within=1e-9)
