"""Graph convolutions: the published equation, written out edge by edge."""

import pytest
import torch
from torch.nn import functional

from imd_helpers.networks.graphs import GraphConvolution, GraphNetwork, mean_by_graph


@pytest.fixture
def graph():
    torch.manual_seed(0)
    edge_index = torch.tensor([[0, 0, 0, 1, 2, 3, 4], [1, 1, 2, 0, 0, 4, 4]])
    return torch.randn(5, 6), edge_index, torch.rand(7, 3), torch.tensor([0, 0, 0, 1, 1])


def test_the_sum_is_that_of_the_paper(graph):
    sites, edge_index, edges, _ = graph
    layer = GraphConvolution(6, 3).eval()
    weight = torch.cat([layer.centre.weight, layer.neighbour.weight, layer.edge.weight], dim=1)
    expected = torch.zeros(5, 6)
    for e, (i, j) in enumerate(edge_index.T.tolist()):
        z = torch.cat([sites[i], sites[j], edges[e]])
        gate, core = (weight @ z + layer.centre.bias).split(6)
        expected[i] += torch.sigmoid(gate) * functional.softplus(core)
    scale = layer.norm.eps + 1.0  # running mean 0 and variance 1
    found = layer(sites, edge_index, edges)
    assert torch.allclose(found, functional.softplus(sites + expected / scale**0.5), atol=1e-5)


def test_the_published_layer_has_a_norm_before_the_gate_and_one_behind_the_sum(graph):
    """Both norms in training mode, over all edges and over all sites, written out."""
    sites, edge_index, edges, _ = graph
    layer = GraphConvolution(6, 3, published=True)
    i, j = edge_index
    weight = torch.cat([layer.centre.weight, layer.neighbour.weight, layer.edge.weight], dim=1)
    z = torch.cat([sites[i], sites[j], edges], dim=1) @ weight.T + layer.centre.bias

    def normed(x):
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    gate, core = normed(z).split(6, dim=1)
    messages = torch.sigmoid(gate) * functional.softplus(core)
    total = torch.stack([messages[i == site].sum(0) for site in range(5)])
    expected = functional.softplus(sites + normed(total))
    assert torch.allclose(layer(sites, edge_index, edges), expected, atol=1e-5)


@pytest.mark.parametrize("published", [False, True])
def test_graphs_do_not_see_each_other_and_order_does_not_count(graph, published):
    sites, edge_index, edges, owner = graph
    network = GraphNetwork(6, 3, width=8, published=published, dropout=0.5 * published).eval()
    both = network(sites, edge_index, edges, owner, 2)
    first = network(sites[:3], edge_index[:, :5], edges[:5], owner[:3], 1)
    assert torch.allclose(both[:1], first, atol=1e-6)
    order = torch.randperm(5)
    back = torch.argsort(order)
    shuffle = torch.randperm(7)
    moved = network(sites[order], back[edge_index][:, shuffle], edges[shuffle], owner[order], 2)
    assert torch.allclose(moved, both, atol=1e-6)
    assert both.shape == (2,)
    both.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_mean_by_graph():
    sites = torch.tensor([[1.0], [3.0], [5.0]])
    mean = mean_by_graph(sites, torch.tensor([0, 0, 2]), 3)
    assert mean.tolist() == [[2.0], [0.0], [5.0]]
