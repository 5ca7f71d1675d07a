"""The graph predictor on a property that is known exactly."""

import numpy as np
import pytest
import torch

from imd_helpers import datasets
from imd_helpers.descriptors.crystal_graph import crystal_graph
from imd_helpers.predictors import GraphPredictor
from imd_helpers.predictors.graphs import GraphReader, atom_features
from imd_helpers.runtime import InputError


@pytest.fixture(scope="module")
def binaries():
    """Small binaries of the data, and their formation energies."""
    known = datasets.load("oqmd_icsd").select(nelements=2)
    known = known[known.n_sites <= 4]
    graph = crystal_graph(known.crystals)
    return graph[graph.ok], known.table["formation_energy"].to_numpy()[graph.ok]


def test_an_atom_has_the_92_published_features():
    features = atom_features()
    assert features.shape == (119, 92)
    assert set(features.unique().tolist()) == {0.0, 1.0}
    assert features[0].sum() == 0
    assert (features[1:97].sum(1) >= 8).all()  # nine properties; noble gases lack one
    parts = features[26].split([19, 7, 12, 4, 50])  # iron: group 8, period 4, 8 electrons, d
    assert [int(part.argmax()) for part in parts[:4]] == [8, 3, 7, 2]


def test_the_network_has_as_many_weights_as_the_published_one():
    """txie-93/cgcnn at its defaults: 64 features a site, 3 convolutions, 128 hidden, regression."""
    width, edges = 64, 41
    layer = (2 * width + edges + 1) * 2 * width + 2 * 2 * width + 2 * width  # dense, two norms
    published = 93 * width + 3 * layer + (width + 1) * 128 + 129
    reader = GraphReader(width=width, convolutions=3, stop=8.0, step=0.2, dropout=0.5)
    assert sum(p.numel() for p in reader.parameters()) == published == 80_833
    kinds = [type(layer).__name__ for layer in reader.head]
    assert kinds == ["Softplus", "Linear", "Softplus", "Dropout", "Linear"]
    assert reader.head[3].p == 0.5


def test_it_learns_formation_energies(binaries):
    graph, energy = binaries
    test = np.arange(len(energy)) % 5 == 0
    model = GraphPredictor(epochs=10, width=16, convolutions=2, batch=32, lr=1e-2)
    model.fit(graph[~test], energy[~test])
    error = np.abs(model.predict(graph[test]) - energy[test]).mean()
    guess = np.abs(np.median(energy[~test]) - energy[test]).mean()
    assert error < guess / 2


def test_the_same_seed_gives_the_same_predictions(binaries):
    graph, energy = binaries
    one, two = (
        GraphPredictor(epochs=1, width=8, batch=64, seed=3).fit(graph, energy).predict(graph[:9])
        for _ in range(2)
    )
    assert np.array_equal(one, two)


def test_wrong_input_is_explained(binaries):
    graph, energy = binaries
    with pytest.raises(InputError, match="knows nothing"):
        GraphPredictor().predict(graph)
    with pytest.raises(InputError, match="NaN or infinity"):
        GraphPredictor().fit(graph, np.full(len(energy), np.nan))
    with pytest.raises(InputError, match="at least one batch"):
        GraphPredictor().fit(graph[:5], energy[:5])
    model = GraphPredictor(epochs=1, width=8).fit(graph, energy)
    broken = type(graph)(
        torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long), torch.zeros(0),
        torch.tensor([0]), torch.tensor([8]), np.array([False]), ("no edges",),
    )  # fmt: skip
    assert np.isnan(model.predict(broken)).all()
