"""Layers that torch does not have: conditions, short rows, draws, batch statistics.

Embeddings, batch and layer norm and weight norm are torch's own (`torch.nn`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

WARM_UP = 15  # power iterations before the first forward pass, as torch does


def mlp(
    sizes: Sequence[int],
    *,
    activation: nn.Module | None = None,
    norm: Callable[[int], nn.Module] | None = None,
    last: nn.Module | None = None,
) -> nn.Sequential:
    """Linear layers with an activation between them.

    Args:
        sizes: widths from input to output, e.g. ``(8, 64, 64, 2)``.
        activation: between layers; leaky ReLU of slope 0.2 unless given. It is shared.
        norm: makes a layer from a width, put before each activation, e.g. ``nn.BatchNorm1d``.
        last: layer after the output, e.g. ``nn.Tanh()``.
    """
    activation = nn.LeakyReLU(0.2) if activation is None else activation
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(sizes[:-1]):
        layers.append(nn.Linear(width_in, width_out))
        if norm is not None:
            layers.append(norm(width_out))
        layers.append(activation)
    layers.append(nn.Linear(sizes[-2], sizes[-1]))
    return nn.Sequential(*layers, *([] if last is None else [last]))


class Concatenated(nn.Module):
    """A network that sees its input and a condition side by side: a generator or a critic.

    Source: Mirza and Osindero, Conditional Generative Adversarial Nets (2014).
    """

    def __init__(self, body: nn.Module, embedding: nn.Module | None = None) -> None:
        """``body`` takes (batch, width of input + width of condition).

        The embedding maps the condition to (batch, width), e.g. ``nn.Embedding(3, 4)`` for a class;
        without one the condition itself, (batch,) or (batch, width), is used.
        """
        super().__init__()
        self.body, self.embedding = body, embedding

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(batch, width) and the condition to the output of ``body``."""
        return self.body(torch.cat([x, _embedded(self.embedding, condition, x)], dim=-1))


class ProjectionHead(nn.Module):
    """psi(phi(x)) + <v(c), phi(x)>: a score of the sample, and one of how it fits the condition.

    Source: Miyato and Koyama, cGANs with Projection Discriminator (2018), eq. 4.
    """

    def __init__(self, features: nn.Module, width: int, embedding: nn.Module) -> None:
        """``features`` is phi, and maps a sample to (batch, width).

        ``embedding`` is v, and maps a condition to (batch, width): ``nn.Embedding(classes, width)``
        or, for (batch, k) numbers, ``nn.Linear(k, width)``.
        """
        super().__init__()
        self.features, self.embedding = features, embedding
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(batch, …) and the condition to (batch, 1)."""
        phi = self.features(x)  # (batch, width)
        fit = (_embedded(self.embedding, condition, phi) * phi).sum(-1, keepdim=True)  # (batch, 1)
        return self.score(phi) + fit


class AuxiliaryHead(nn.Module):
    """A score, and beside it a prediction of the condition from the same features.

    Source: Odena et al., Conditional Image Synthesis with Auxiliary Classifier GANs (2017).
    """

    def __init__(self, features: nn.Module, width: int, outputs: int) -> None:
        """``features`` maps a sample to (batch, width); outputs are classes or numbers."""
        super().__init__()
        self.features = features
        self.score, self.predict = nn.Linear(width, 1), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, …) to a score (batch, 1) and logits or values (batch, outputs)."""
        phi = self.features(x)  # (batch, width)
        return self.score(phi), self.predict(phi)


class RowConv(nn.Module):
    """A convolution of width 1 or 2 along a short axis, as one matrix product.

    Equal to ``nn.Conv1d`` without padding on (batch, channels, rows), but for (batch, …, rows,
    channels), and several times faster on the CPU for three rows, gradient penalty included.
    """

    def __init__(self, channels_in: int, channels_out: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.dense = nn.Linear(width * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(…, rows, channels_in) to (…, rows - width + 1, channels_out)."""
        if self.width == 2:
            x = torch.cat([x[..., :-1, :], x[..., 1:, :]], dim=-1)
        return self.dense(x)


class RowConvTranspose(nn.Module):
    """A transposed convolution of width 2: (…, k, channels) to (…, k + 1, channels)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = RowConv(channels_in, channels_out, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pad one zero on both sides, then convolve: the same sums."""
        return self.conv(nn.functional.pad(x, (0, 0, 1, 1)))


@torch.no_grad()
def glorot(network: nn.Module, *, normal: bool) -> None:
    """Keras' initial weights for every dense layer, `RowConv` and embedding inside.

    The fan counts the width of a convolution, as Keras does. With ``normal`` weights and biases are
    Glorot normal, instead of Keras' default, uniform weights and zero biases.
    """
    widths = {m.dense: m.width for m in network.modules() if isinstance(m, RowConv)}
    for layer in network.modules():
        if isinstance(layer, nn.Embedding):
            nn.init.xavier_normal_(layer.weight)
        elif isinstance(layer, nn.Linear):
            fan_in = layer.in_features
            fan_out = layer.out_features * widths.get(layer, 1)
            std = math.sqrt(2.0 / (fan_in + fan_out))
            if normal:
                nn.init.normal_(layer.weight, std=std)
                nn.init.normal_(layer.bias, std=math.sqrt(1.0 / layer.out_features))
            else:
                nn.init.uniform_(layer.weight, -math.sqrt(3.0) * std, math.sqrt(3.0) * std)
                nn.init.zeros_(layer.bias)


def draw_weights(network: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    """Draw the weights of every dense layer and convolution inside; biases become zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's ``SAME`` does: the odd zero at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, channels, rows / stride, …), rounded up."""
        pads: list[int] = []
        for axis in (1, 0):  # last axis first
            size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


class SameConvTranspose(nn.ConvTranspose2d):
    """The transpose of `SameConv`, to a size that is given, since several shrink to one."""

    def __init__(
        self, into: int, out: int, kernel: int, stride: tuple[int, int], size: tuple[int, int]
    ) -> None:
        super().__init__(into, out, kernel, stride)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, channels, *size)."""
        full = super().forward(x)
        for axis in (0, 1):
            start = max(full.shape[2 + axis] - self.size[axis], 0) // 2
            full = full.narrow(2 + axis, start, self.size[axis])
        return full


def draw(logits: Tensor) -> Tensor:
    """One of the last of (…, k), as zeros and a one; backwards, the softmax of the noisy logits.

    Source: Jang et al., ICLR 2017 (straight-through Gumbel-softmax).
    """
    uniform = torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)
    soft = (logits - (-uniform.log()).log()).softmax(-1)
    drawn = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return drawn + (soft - soft.detach()) if soft.requires_grad else drawn


class MinibatchDeviation(nn.Module):
    """Append the mean standard deviation of the features over the batch as one more feature.

    A critic that sees it can tell a batch of copies from a batch of real samples.

    Source: Karras et al., Progressive Growing of GANs (2018), section 3.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) to (batch, width + 1)."""
        variance = x.var(dim=0, correction=0)  # (width,)
        # the root has no slope at 0, where all samples are copies: keep it finite
        deviation = (variance + 1e-8).sqrt().mean()
        return torch.cat([x, deviation.expand(len(x), 1)], dim=1)


class SpectralNorm(nn.Module):
    """W / sigma(W), the largest singular value by one step of power iteration a forward pass.

    Equal to ``torch.nn.utils.parametrizations.spectral_norm``, which writes its vectors with
    ``out=`` and so cannot be trained by ``torch.func.vmap``.

    Source:
        Miyato et al., Spectral Normalization for Generative Adversarial Networks (2018), alg. 1.
    """

    def __init__(self, weight: Tensor) -> None:
        """Begin with random vectors and a few iterations on (out, in, …) ``weight``."""
        super().__init__()
        matrix = weight.detach().flatten(1)
        for name, size in zip(("left", "right"), matrix.shape, strict=True):
            self.register_buffer(
                name, functional.normalize(matrix.new_empty(size).normal_(), dim=0)
            )
        for _ in range(WARM_UP):
            self._iterate(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """Divide (out, in, …) weights by their largest singular value."""
        matrix = weight.flatten(1)
        if self.training:
            self._iterate(matrix.detach())
        # copies: a second forward pass moves the vectors before the first one's backward
        left, right = self.left.clone(), self.right.clone()
        return weight / torch.dot(left, matrix @ right)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.left.copy_(functional.normalize(matrix @ self.right, dim=0, eps=1e-12))
        self.right.copy_(functional.normalize(self.left @ matrix, dim=0, eps=1e-12))


def spectral_norm(network: nn.Module) -> nn.Module:
    """Hold the largest singular value of every linear and convolution layer to 1, in place.

    With activations of slope at most 1 the network's Lipschitz constant is then at most 1, up to
    the error of the power iteration; a convolution's matrix is (out, in × kernel), as in the paper.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return network


def _embedded(embedding: nn.Module | None, condition: Tensor, like: Tensor) -> Tensor:
    """The condition as (batch, width) numbers."""
    if embedding is not None:
        return embedding(condition)
    return condition.reshape(*like.shape[:-1], -1).to(like.dtype)
