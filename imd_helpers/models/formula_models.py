"""Networks that write formulas: a VAE, an RNN, and REINFORCE on the RNN."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals import elements
from ..crystals.compositions import keys, reduced
from ..crystals.samples import Samples
from ..descriptors.composition_matrix import ELEMENTS, MAX_COUNT, CompositionMatrix, fits
from ..networks import checkpoint, losses
from ..networks.epochs import fit_epochs, seeded, shuffled
from ..runtime import InputError, data_path, lookup, whole
from .formula_tokens import END, LENGTH, PAD, START, VOCABULARY, decode_tokens, encode_tokens

FORMAT = "imd-formula-model-1"
CHECKPOINTS = ("vae", "rnn", "free", "anchored", "loophole")

Reward = Callable[[np.ndarray], np.ndarray]


class FormulaModel(nn.Module):
    """What both networks share: samples, from ``draw``, by torch's global random numbers."""

    kind: ClassVar[str]  # name in files
    settings: dict[str, int]  # what rebuilds the network
    draw: Callable[[int], np.ndarray]  # n -> (n, 119) counts, zeros where there is no formula

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions: reduced counts; zeros where the network wrote no formula.

        Raises:
            InputError: n below 1.
        """
        with seeded(seed):
            return Samples.from_counts(reduced(self.draw(whole("n", n, least=1))))


# ---- variational autoencoder


class FormulaVae(FormulaModel):
    """Variational autoencoder on the composition matrix.

    The decoder gives each of the 85 elements nine probabilities, for "absent" and the counts 1 to
    8, all independent once the latent vector is known.

    Args:
        width: of the hidden layers.
        latent: numbers in the latent vector.
    """

    kind = "formula-vae"
    read = staticmethod(CompositionMatrix.matrices)  # (n, 119) counts to (n, 85, 8)

    def __init__(self, width: int = 256, latent: int = 16) -> None:
        super().__init__()
        self.settings = {"width": width, "latent": latent}
        cells = len(ELEMENTS) * MAX_COUNT
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(cells, width), nn.ReLU(), nn.Linear(width, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, width),
            nn.ReLU(),
            nn.Linear(width, len(ELEMENTS) * (MAX_COUNT + 1)),
            nn.Unflatten(1, (len(ELEMENTS), MAX_COUNT + 1)),
        )

    def encode(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent vector, (batch, latent) each, of (batch, 85, 8)."""
        return self.encoder(matrix).chunk(2, dim=1)

    def log_likelihood(self, latent: Tensor, matrix: Tensor) -> Tensor:
        """(batch,) log p(x | z) in nats of (batch, 85, 8) matrices."""
        absent = 1 - matrix.sum(2, keepdim=True)
        nine = torch.cat([absent, matrix], dim=2)  # (batch, 85, 9) one-hot
        return (self.decoder(latent).log_softmax(2) * nine).sum((1, 2))

    def terms(self, matrix: Tensor, *, beta: float = 1.0) -> dict[str, Tensor]:
        """``loss`` (minus the evidence bound), and its two parts, each a mean over the batch."""
        mean, log_variance = self.encode(matrix)
        fit = self.log_likelihood(losses.reparameterise(mean, log_variance), matrix)
        kl = losses.gaussian_kl(mean, log_variance)
        return {
            "loss": -losses.elbo(fit, kl, beta=beta),
            "reconstruction": -fit.mean(),
            "kl": kl.mean(),
        }

    @torch.no_grad()
    def draw(self, n: int) -> np.ndarray:
        """(n, 119) counts, drawn by the decoder's probabilities at random latent vectors.

        Rows that are no formula (fewer than 2 or more than 8 elements) become zeros.
        """
        latent = torch.randn(n, self.settings["latent"]).to(next(self.parameters()).device)
        logits = self.decoder(latent)  # (n, 85, 9)
        noisy = logits - torch.empty_like(logits).exponential_().log()  # Gumbel's trick
        counts = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        counts[:, list(ELEMENTS)] = noisy.argmax(2).cpu().numpy()  # 0 = absent
        counts[~fits(counts)] = 0
        return counts


# ---- autoregressive network


class FormulaRnn(FormulaModel):
    """Autoregressive network: a gated recurrent unit that writes a formula token by token.

    Args:
        width: of the recurrent state.
        embedding: numbers for a token.
    """

    kind = "formula-rnn"
    read = staticmethod(encode_tokens)  # (n, 119) counts to (n, 17)

    def __init__(self, width: int = 128, embedding: int = 48) -> None:
        super().__init__()
        self.settings = {"width": width, "embedding": embedding}
        self.embedding = nn.Embedding(VOCABULARY, embedding)
        self.recurrent = nn.GRU(embedding, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY - 2)  # padding and start are never written

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length, vocabulary) logits of each token, given those before it."""
        start = torch.full_like(tokens[:, :1], START)
        hidden, _ = self.recurrent(self.embedding(torch.cat([start, tokens[:, :-1]], dim=1)))
        return self._logits(hidden)

    def _logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.pad(self.head(hidden), (2, 0), value=-torch.inf)

    def terms(self, tokens: Tensor) -> dict[str, Tensor]:
        """``loss``: mean negative log-likelihood of a token."""
        used = int((tokens != PAD).sum(1).max())  # no work on columns that are all padding
        tokens = tokens[:, :used]
        return {"loss": losses.next_token_loss(self(tokens), tokens, padding=PAD)}

    def log_probability(self, tokens: Tensor) -> Tensor:
        """(batch,) log probability of whole sequences, in nats."""
        return losses.sequence_log_probability(self(tokens), tokens, padding=PAD)

    @torch.no_grad()
    def write(self, n: int) -> Tensor:
        """(n, 17) tokens, drawn one after the other with torch's global random numbers."""
        where = next(self.parameters()).device
        tokens = torch.zeros(n, LENGTH, dtype=torch.long, device=where)
        last, state = torch.full((n, 1), START, device=where), None
        writing = torch.ones(n, dtype=torch.bool, device=where)
        for place in range(LENGTH):
            hidden, state = self.recurrent(self.embedding(last), state)
            last = torch.multinomial(self._logits(hidden[:, 0]).softmax(1), 1)  # (n, 1)
            tokens[:, place] = torch.where(writing, last[:, 0], PAD)
            writing = writing & (last[:, 0] != END)
            if not writing.any():
                break
        return tokens

    def draw(self, n: int) -> np.ndarray:
        """(n, 119) counts of random sentences."""
        return decode_tokens(self.write(n))


# ---- training


def train_epochs(
    model: FormulaModel,
    counts: np.ndarray,
    *,
    epochs: int,
    batch: int = 256,
    lr: float = 2e-3,
    seed: int = 0,
    **options: Any,
) -> list[dict[str, float]]:
    """Train a VAE or an RNN in place, and return one row an epoch: the mean of each term.

    Adam's learning rate falls to zero along a cosine.

    Args:
        model: the network.
        counts: (n, 119) training compositions.
        epochs: passes over them.
        batch: compositions in a step.
        lr: learning rate at the start.
        seed: of order and noise.
        options: passed to the model's ``terms``, e.g. ``beta=0.5``.

    Raises:
        InputError: a composition that does not fit, or a loss that is not finite.
    """
    where = next(model.parameters()).device
    data = model.read(CompositionMatrix().read(counts).checked()).to(where)
    with seeded(seed):
        return fit_epochs(
            model,
            lambda: shuffled(len(data), batch),
            lambda rows: model.terms(data[rows.to(where)], **options),
            epochs=epochs,
            lr=lr,
            falling=epochs * math.ceil(len(data) / batch),
        )


def reinforce(
    policy: FormulaRnn,
    reward: Reward,
    *,
    steps: int,
    batch: int = 128,
    lr: float = 1e-3,
    prior_weight: float = 0.0,
    seed: int = 0,
    probe: Callable[[np.ndarray], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train a policy, in place, to write formulas of high reward; the prior is what it was before.

    Args:
        policy: a trained `FormulaRnn`.
        reward: maps (m, 119) counts that are formulas to (m,) numbers; a sample that is no formula
            has reward 0.
        steps: of the policy.
        batch: formulas in a step, at least 2.
        lr: Adam's learning rate.
        prior_weight: reward that a nat of distance from the prior costs; 0 sets the policy free.
        seed: of the samples.
        probe: called with the (batch, 119) counts of each step; what it returns is recorded.

    Returns:
        One row a step: ``reward``, ``formula`` and ``distinct`` shares, ``kl`` from the prior in
        nats, and what the probe returned.

    Raises:
        InputError: a reward that is not finite or of another shape.

    Source:
        Williams, Machine Learning 8 (1992) 229; prior: Jaques et al., Sequence Tutor (2017).
    """
    prior = copy.deepcopy(policy).requires_grad_(False)
    adam = torch.optim.Adam(policy.parameters(), lr=lr)
    rows = []
    with seeded(seed):
        for step in range(1, steps + 1):
            tokens = policy.write(batch)  # (batch, 17)
            counts = reduced(decode_tokens(tokens))
            earned = torch.as_tensor(_rewards(reward, counts)).to(tokens.device)  # (batch,)
            tokens = tokens[:, : int((tokens != PAD).sum(1).max())]
            log_p = policy.log_probability(tokens)
            with torch.no_grad():
                log_p0 = prior.log_probability(tokens)
            total = losses.prior_reward(earned, log_p, log_p0, weight=prior_weight)
            adam.zero_grad(set_to_none=True)
            losses.reinforce_loss(log_p, total).backward()  # sentences of high reward: likelier
            adam.step()
            row = {
                "step": step,
                "reward": float(earned.mean()),
                "formula": float(counts.any(1).mean()),
                "distinct": len(set(keys(counts))) / batch,
                "kl": float((log_p.detach() - log_p0).mean()),
            }
            rows.append(row | (probe(counts) if probe else {}))
    return rows


def _rewards(reward: Reward, counts: np.ndarray) -> np.ndarray:
    """(n,) float32 rewards, 0 for rows that are no formula."""
    out = np.zeros(len(counts), dtype=np.float32)
    good = counts.any(1)
    if good.any():
        values = np.asarray(reward(counts[good]), dtype=np.float32)
        if values.shape != (int(good.sum()),) or not np.isfinite(values).all():
            raise InputError(
                f"the reward returned shape {values.shape} for {int(good.sum())} formulas, finite: "
                f"{bool(np.isfinite(values).all())}; it must give one finite number a formula"
            )
        out[good] = values
    return out


# ---- on disk

_KINDS: dict[str, Any] = {kind.kind: kind for kind in (FormulaVae, FormulaRnn)}


def save(model: FormulaModel, path: Path | str, *, about: dict[str, Any]) -> Path:
    """Write weights, half as wide as in memory, with what is needed to rebuild the network.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    header = {"format": FORMAT, "kind": model.kind, "settings": model.settings, **about}
    return checkpoint.write(path, tensors, header)


def load(path: Path | str) -> Any:
    """Read what `save` wrote, ready to ``.sample``.

    Raises:
        CheckpointError: missing, truncated or foreign weights.
    """
    tensors, header = checkpoint.read(path, expect=FORMAT)
    model = _KINDS[lookup("kind of model", header["kind"], _KINDS)](**header["settings"])
    checkpoint.load_into(model, {k: v.float() for k, v in tensors.items()}, source=str(path))
    return model.eval()


def checkpoint_path(name: str) -> Path:
    """Weights that come with the package, see `CHECKPOINTS`.

    Raises:
        UnknownNameError: no such weights.
    """
    lookup("checkpoint", name, CHECKPOINTS)
    return data_path("checkpoints", "vae_rnn_rl", f"{name}.safetensors")
