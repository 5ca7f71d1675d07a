"""Message passing over edges, as in crystal graph convolutional networks.

Knows tensors only: features of sites, edges and their features, and which graph a site belongs to.

Source: Xie & Grossman, Phys. Rev. Lett. 120 (2018) 145301; ``published`` layers as in its code,
`cgcnn/model.py` of txie-93/cgcnn, commit 12d1ba9, which `cgcnn/model_PU_learning.py` of
kaist-amsg/Synthesizability-PU-CGCNN, commit dcc9372, repeats.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphConvolution(nn.Module):
    """Each site adds up gated messages from its edges.

    ``v_i + BN(sum over edges of sigmoid(z W_f + b_f) * softplus(z W_s + b_s))`` with
    ``z = (v_i, v_j, u_ij)``, then softplus. The two weight matrices are kept in three parts, for
    centre, neighbour and edge: those of the sites then act once a site and not once an edge.

    Source: Xie & Grossman (2018), eq. 5; batch norm and the last softplus as in its code, where a
    second batch norm acts on all 2 F numbers of an edge before they are split (line 82).
    """

    def __init__(self, width: int, edge_width: int, *, published: bool = False) -> None:
        """Features of sites and of edges have these widths; with the second batch norm or without.

        Without it the layer is equation 5, and does not depend on which edges share a batch.
        """
        super().__init__()
        self.centre = nn.Linear(width, 2 * width)
        self.neighbour = nn.Linear(width, 2 * width, bias=False)
        self.edge = nn.Linear(edge_width, 2 * width, bias=False)
        self.edge_norm = nn.BatchNorm1d(2 * width) if published else nn.Identity()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, sites: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        """New (sites, width) from old ones, (2, edges) indices and (edges, edge_width)."""
        i, j = edge_index
        z = self.centre(sites)[i] + self.neighbour(sites)[j] + self.edge(edges)
        gate, core = self.edge_norm(z).chunk(2, dim=-1)  # (edges, width) each
        messages = torch.sigmoid(gate) * functional.softplus(core)
        total = torch.zeros_like(sites).index_add(0, i, messages)  # (sites, width)
        return functional.softplus(sites + self.norm(total))


class GraphNetwork(nn.Module):
    """Convolutions, the mean over the sites of each graph, and two layers to one number."""

    def __init__(
        self,
        site_width: int,
        edge_width: int,
        *,
        width: int = 32,
        convolutions: int = 2,
        published: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Input widths, hidden width and depth.

        ``published`` adds the batch norm of the edges and a softplus on the mean (line 165);
        ``dropout`` acts before the last layer, published 0.5 for classes and none for regression.
        """
        super().__init__()
        self.embed = nn.Linear(site_width, width)
        self.convolutions = nn.ModuleList(
            GraphConvolution(width, edge_width, published=published) for _ in range(convolutions)
        )
        self.head = nn.Sequential(
            nn.Softplus() if published else nn.Identity(),
            nn.Linear(width, 2 * width),
            nn.Softplus(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, 1),
        )

    def forward(
        self, sites: Tensor, edge_index: Tensor, edges: Tensor, owner: Tensor, n_graphs: int
    ) -> Tensor:
        """(n_graphs,) numbers.

        Args:
            sites: (sites, site_width).
            edge_index: (2, edges) centre and neighbour.
            edges: (edges, edge_width).
            owner: (sites,) the graph of each site.
            n_graphs: how many graphs.
        """
        v = self.embed(sites)
        for convolution in self.convolutions:
            v = convolution(v, edge_index, edges)
        return self.head(mean_by_graph(v, owner, n_graphs))[:, 0]


def mean_by_graph(sites: Tensor, owner: Tensor, n_graphs: int) -> Tensor:
    """(n_graphs, width) mean of the (sites, width) of each graph; zero for one without sites."""
    total = sites.new_zeros(n_graphs, sites.shape[1]).index_add(0, owner, sites)
    number = torch.bincount(owner, minlength=n_graphs).clamp_min(1)
    return total / number[:, None]
