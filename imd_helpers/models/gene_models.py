"""Two models of today on one gene: a transformer that writes it in order, and masked diffusion.

Both have one network and one budget, and learn from genes of `oqmd_icsd`; see `genes`. They are
small versions of the book's own, after the ideas of their sources; crystals come from genes by
`genes.Transfer`, not by the networks.

Source:
    Written in order: Cao et al., Space group informed transformer (2025); Kazeev et al., Wyckoff
    Transformer (2025). Masked diffusion: Austin et al., D3PM (2021); Sahoo et al., MDLM (2024).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..crystals.samples import Samples
from ..crystals.symmetry import N_SPACE_GROUPS
from ..networks import TrainConfig, losses
from ..networks.fit import Turn
from ..runtime import InputError, settle, whole
from . import genes
from .gan import Condition, Gan, GanConfig
from .genes import HEAVIEST, LETTERS

KINDS = (N_SPACE_GROUPS + 1, len(LETTERS) + 1, HEAVIEST + 1)  # groups, letters, elements; 0 = none


@dataclass(frozen=True)
class GeneConfig(GanConfig):
    """Size and training of both; width 1.0 is 96 numbers an orbit."""

    orbits: int = 10  # of a gene, at most
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1
    batch: int = 64
    data: str = "oqmd_icsd"
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            steps=2_000, lr_generator=2e-3, fall=0.8, betas_generator=(0.9, 0.98), log_every=50
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "orbits", "layers", "heads", least=1)

    @property
    def length(self) -> int:
        """Numbers in a gene."""
        return 1 + 2 * self.orbits


# ---- the network


class GeneNetwork(nn.Module):
    """A transformer over the space group and the orbits of a gene.

    With ``causal`` a place sees only the places before it. Of each of its three kinds of token it
    knows one more than there are: the hidden one, that also stands where a gene begins.
    """

    def __init__(self, config: GeneConfig, *, causal: bool) -> None:
        super().__init__()
        width, self.causal = config.heads * config.channels(96 // config.heads), causal
        self.group, self.letter, self.element = (nn.Embedding(k + 1, width) for k in KINDS)
        self.place = nn.Parameter(0.02 * torch.randn(1 + config.orbits, width))
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, config.dropout, "gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.body = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.to_group, self.to_letter, self.to_element = (nn.Linear(width, k) for k in KINDS)
        for embedding in (self.group, self.letter, self.element):
            nn.init.normal_(embedding.weight, std=0.3)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, 1 + 2 orbits) tokens to (batch, 1 + orbits, width), one row a place."""
        orbit = self.letter(tokens[:, 1::2]) + self.element(tokens[:, 2::2])
        x = torch.cat([self.group(tokens[:, :1]), orbit], dim=1)
        if self.causal:  # what a place says is of itself, so it is shown the place before it
            start = self.group.weight[-1].expand(len(x), 1, -1)
            x = torch.cat([start, x[:, :-1]], dim=1)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        x = x + self.place[: x.shape[1]]
        hidden = self.body(x, mask=mask if self.causal else None, is_causal=self.causal)
        return self.norm(hidden)

    def logits(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, 1, 231), (batch, orbits, 28) and (batch, orbits, 95) of each token.

        In order, an element knows the letter that it stands on.
        """
        hidden = self(tokens)
        orbit = seen = hidden[:, 1:]
        if self.causal:
            seen = orbit + self.letter(tokens[:, 1::2])
        return self.to_group(hidden[:, :1]), self.to_letter(orbit), self.to_element(seen)

    def log_likelihood(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """(batch, 1 + 2 orbits) logarithms of the probability of each ``wanted`` token."""
        said = self.place.new_zeros(wanted.shape)
        for places, logits in zip(PLACES, self.logits(tokens), strict=True):
            said[:, places] = -functional.cross_entropy(
                logits.transpose(1, 2), wanted[:, places], reduction="none"
            )
        return said


PLACES = (slice(0, 1), slice(1, None, 2), slice(2, None, 2))  # of groups, letters and elements


# ---- both models


class GeneModel(Gan):
    """What both share: data, decoding, and a loss from the network's log-likelihood."""

    Config = GeneConfig
    VARIANTS: ClassVar = {"icsd": GeneConfig()}
    SMOKE: ClassVar = {"width": 0.25, "layers": 1, "steps": 60, "log_every": 5, "save_every": 60}
    PROFILES: ClassVar = {"": {"smoke": SMOKE, "colab": {}, "full": {}}}
    LEARNT = ("lengths",)
    HALF = True
    averaged = "network"
    causal: ClassVar[bool]
    conditions = ("space_group", "given")

    def build(self) -> dict[str, nn.Module]:
        """The network."""
        self.learnt.setdefault("lengths", [1] * self.config.orbits)
        return {"network": GeneNetwork(self.config, causal=self.causal)}

    @classmethod
    def read(cls, config: GeneConfig, split: str | None = "train") -> np.ndarray:
        """(n, 1 + 2 orbits) genes of a split that are short enough."""
        written = genes.known_genes(split, most=config.orbits)[1]
        return written[written[:, 0] > 0, : config.length]

    @classmethod
    def learn(cls, data: np.ndarray, config: GeneConfig) -> dict[str, Any]:
        """How many crystals have one orbit, how many two, and so on."""
        return {"lengths": np.bincount(n_orbits(data), minlength=config.orbits + 1)[1:].tolist()}

    def prepare(self, data: np.ndarray, *, seed: int = 0) -> None:
        """Keep the genes on the device, sorted by length."""
        ordered = data[np.argsort(n_orbits(data), kind="stable")]
        self.data = torch.as_tensor(ordered, device=self.device)
        self.orbits = torch.as_tensor(n_orbits(ordered), device=self.device)

    def real(self) -> tuple[Tensor, None]:
        """A batch of genes of one length, each length as often as it is there."""
        n = self.orbits[torch.randint(len(self.data), (1,), device=self.device)]
        first, end = torch.searchsorted(self.orbits, torch.cat([n, n + 1])).tolist()
        rows = torch.randint(first, end, (self.config.batch,), device=self.device)
        return self.data[rows, : self.room(int(n))], None

    def room(self, orbits: int) -> int:
        """Tokens that the network is shown of a gene of so many orbits: up to the end's."""
        return 1 + 2 * min(orbits + self.causal, self.config.orbits)

    def turns(self, config: TrainConfig) -> list[Turn]:
        """One network, one loss."""
        return [Turn("network", self.terms, ("network",))]

    def terms(self) -> dict[str, Tensor]:
        """Minus the mean logarithm of probability of a gene, or the bound on it, in nats."""
        self.network.train()
        return {"loss": self.bound(self.real()[0]).mean()}

    def bound(self, tokens: Tensor) -> Tensor:
        """(batch,) nats: minus log p of each gene, or what is an upper bound on it on average."""
        raise NotImplementedError

    @torch.no_grad()
    def nats(self, tokens: np.ndarray, *, rounds: int = 1, seed: int = 0) -> np.ndarray:
        """(n,) `bound` of genes, without dropout, as a mean over ``rounds`` draws."""
        self.network.eval()
        lengths, out = n_orbits(tokens), np.zeros(len(tokens))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for n in np.unique(lengths):
                rows = np.flatnonzero(lengths == n)
                part = torch.as_tensor(tokens[rows, : self.room(int(n))], device=self.device)
                drawn = torch.stack([self.bound(part) for _ in range(rounds)])
                out[rows] = drawn.mean(0).cpu().numpy()
        return out

    def begun(self, n: int, condition: Condition) -> Tensor:
        """(n, 1 + 2 orbits) hidden tokens, but for those that are asked for.

        The condition names a ``space_group``, or tokens that are ``given``: (n, 1 + 2 orbits)
        genes in which -1 is still to be written; n is a piece at most.
        """
        tokens = torch.zeros(n, self.config.length, dtype=torch.long, device=self.device)
        for places, hidden in zip(PLACES, KINDS, strict=True):
            tokens[:, places] = hidden
        if "given" in condition:
            given = torch.as_tensor(condition["given"], device=self.device)
            if given.shape != tokens.shape or bool((given > tokens).any()):
                raise InputError(
                    f"given of shape {tuple(given.shape)}: expected tokens of {n} genes, "
                    f"{tuple(tokens.shape)}, with -1 for those to be written"
                )
            tokens = torch.where(given < 0, tokens, given)
        if "space_group" in condition:
            group = condition["space_group"]
            tokens[:, 0] = whole("space_group", group, least=1, most=N_SPACE_GROUPS)
        return tokens

    def decode(self, raw: Tensor) -> Samples:
        """Crystals of genes, with a reason where no known crystal occupies their positions."""
        room = genes.WIDTH - raw.shape[1]
        return genes.training_transfer().decode(functional.pad(raw.cpu(), (0, room)))

    def sample_genes(self, n: int, *, condition: Condition | None = None, seed: int = 0) -> Tensor:
        """What `sample` decodes: (n, 1 + 2 orbits)."""
        asked = {"condition": condition, "seed": seed}
        return torch.cat([self.raw(index, size, **asked) for index, size in self.pieces(n)])


def n_orbits(written: np.ndarray) -> np.ndarray:
    """(n,) orbits of (n, 1 + 2 orbits) genes."""
    return (written[:, 1::2] != 0).sum(1)


def drawn(logits: Tensor) -> Tensor:
    """One of the last of (…, k), by softmax."""
    return torch.distributions.Categorical(logits=logits).sample()


class GeneTransformer(GeneModel):
    """Writes a gene in order: group, letter, element, letter, …, until it writes no letter."""

    name, format = "gene_transformer", "imd-gene-transformer-1"
    causal = True

    def bound(self, tokens: Tensor) -> Tensor:
        """(batch,) minus log p, exactly: the sum over all tokens that are not forced."""
        said = self.network.log_likelihood(tokens, tokens)
        ended = (tokens[:, 1::2] == 0).cumsum(1)  # 1 at the letter that ends the gene
        said[:, 1::2] *= ended <= 1
        said[:, 2::2] *= ended == 0
        return -said.sum(1)

    def draw(self, n: int, condition: Condition) -> Tensor:
        """(n, 1 + 2 orbits) genes, orbit after orbit; what is given stays."""
        tokens, on = self.begun(n, condition), torch.arange(n, device=self.device)
        group = drawn(self.network.to_group(self.network(tokens[:, :1])[:, 0]))
        tokens[:, 0] = torch.where(tokens[:, 0] == KINDS[0], group, tokens[:, 0])
        for place in range(1, self.config.length, 2):
            hidden = self.network(tokens[on, : place + 2])[:, -1]
            letter, element = tokens[on, place], tokens[on, place + 1]
            letter = torch.where(letter < KINDS[1], letter, drawn(self.network.to_letter(hidden)))
            said = self.network.to_element(hidden + self.network.letter(letter))
            element = torch.where(element < KINDS[2], element, drawn(said))
            tokens[on, place], tokens[on, place + 1] = letter, element * (letter > 0)
            tokens[on[letter == 0], place:] = 0
            on = on[letter > 0]
            if not len(on):
                break
        return tokens


class GeneDiffusion(GeneModel):
    """Uncovers a gene: all tokens are hidden at time 1, none at time 0, each at a random time.

    How many orbits there are is drawn before, as often as in the training crystals.
    """

    name, format = "gene_diffusion", "imd-gene-diffusion-1"
    causal = False
    PASSES: ClassVar[int] = 16  # of the network, for one batch of samples
    conditions = ("space_group", "given", "passes")

    def hide(self, tokens: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens at a (batch,) time, each hidden with that probability, and which are."""
        where = torch.rand(tokens.shape, device=tokens.device) < time[:, None]
        covered = self.begun(len(tokens), {})[:, : tokens.shape[1]]
        return torch.where(where, covered, tokens), where

    def bound(self, tokens: Tensor) -> Tensor:
        """(batch,) at a random time each: minus log p of what is hidden, over the time.

        With minus log p of the number of orbits; all genes have as many.
        """
        n, counts = len(tokens), self.learnt["lengths"]
        even = torch.arange(n, device=tokens.device) / n  # times spread over [0, 1]
        time = ((torch.rand(1, device=tokens.device) + even) % 1.0).clamp(min=1e-3)
        seen, hidden = self.hide(tokens, time)
        said = self.network.log_likelihood(seen, tokens) * hidden
        length = math.log(sum(counts) / counts[tokens.shape[1] // 2 - 1])
        return losses.masked_diffusion_bound(said, time) + length

    def draw(self, n: int, condition: Condition) -> Tensor:
        """(n, 1 + 2 orbits) genes, uncovered in the ``passes`` that are asked for, or PASSES."""
        tokens = self.begun(n, condition)
        lengths = (tokens[:, 1::2] > 0).sum(1)
        if "given" not in condition:
            lengths = 1 + drawn(torch.tensor(self.learnt["lengths"]).log().expand(n, -1))
        passes = whole("passes", condition.get("passes", self.PASSES), least=1)
        for length in lengths.unique().tolist():
            rows, end = (lengths == length).nonzero()[:, 0], self.room(length)
            tokens[rows, :end] = self.uncover(tokens[rows, :end], passes)
            tokens[rows, end:] = 0
        return tokens

    def uncover(self, tokens: Tensor, passes: int) -> Tensor:
        """Genes of one length without hidden tokens."""
        hidden = tokens == self.begun(len(tokens), {})[:, : tokens.shape[1]]
        for now, then in itertools.pairwise(np.linspace(1.0, 0.0, 1 + passes)):
            shown = torch.rand(tokens.shape, device=tokens.device) < losses.uncovered(now, then)
            found = torch.zeros_like(tokens)
            for places, logits in zip(PLACES, self.network.logits(tokens), strict=True):
                found[:, places] = drawn(logits)
            tokens = torch.where(hidden & shown, found, tokens)
            hidden &= ~shown
        return tokens
