"""Conditional affine couplings (RealNVP, Dinh et al. 2017) with bounded scales.

One layer splits x into a kept part a and a changed part b (even and odd dimensions in turn) and maps
    y_a = x_a,   y_b = x_b · exp(s(x_a, c)) + t(x_a, c),   log|det ∂y/∂x| = Σ s,
with c the context that the state network puts out. Scales are bounded by s = l·tanh(ŝ/l) (Zhou et al. 2026,
NFPO, bounds them by tanh with a limit l; this form has unit slope at zero for every l). The volume-preserving
variant subtracts the mean of a layer's scales, so that log|det| = 0: couplings then reshape the density and
the base σ alone sets the entropy.
"""

from __future__ import annotations

import torch
from torch import nn

TRANSFORMS = ("affine", "volume_preserving")


class AffineCouplingFlow(nn.Module):
    """Stack of couplings T(·; c): R^N → R^N, the identity at initialisation."""

    def __init__(
        self,
        dim: int,
        context_dim: int,
        num_layers: int = 4,
        hidden_dim: int = 64,
        transform: str = "volume_preserving",
        scale_bound: float = 1.0,
    ) -> None:
        """Create the couplings.

        Args:
            dim: N, at least 2: a coupling needs a part to keep and a part to change.
            context_dim: width of the context c.
            num_layers: couplings; consecutive ones change complementary halves, so at least 2.
            hidden_dim: width of each coupling's hidden layer.
            transform: "affine" or "volume_preserving".
            scale_bound: l above; |s| < l for affine, < 2l for volume-preserving.

        Raises:
            ValueError: an argument is out of range.
        """
        super().__init__()
        if dim < 2:
            raise ValueError(f"coupling flows need at least 2 action dimensions, got {dim}; use a Gaussian there")
        if num_layers < 2:
            raise ValueError(f"num_layers must be at least 2 so that every dimension changes, got {num_layers}")
        if transform not in TRANSFORMS:
            raise ValueError(f"transform {transform!r} is not one of {TRANSFORMS}")
        if not scale_bound > 0:
            raise ValueError(f"scale_bound must be above zero, got {scale_bound}")
        self.dim, self.num_layers, self.transform = dim, num_layers, transform
        self.scale_bound = float(scale_bound)
        self.hidden_dim = hidden_dim
        even = torch.arange(0, dim, 2)
        odd = torch.arange(1, dim, 2)
        # Layer k keeps one half and changes the other; `order` undoes the split by indexing (a, b) → x.
        self.halves = [(even, odd) if k % 2 == 0 else (odd, even) for k in range(num_layers)]
        for k, (kept, changed) in enumerate(self.halves):
            self.register_buffer(f"kept_{k}", kept, persistent=False)
            self.register_buffer(f"changed_{k}", changed, persistent=False)
            self.register_buffer(f"order_{k}", torch.argsort(torch.cat([kept, changed])), persistent=False)
        # One projection serves all layers: the context is the wide input, and it is the same for each of them.
        self.context_net = nn.Linear(context_dim, num_layers * hidden_dim)
        self.kept_nets = nn.ModuleList(nn.Linear(len(a), hidden_dim, bias=False) for a, _ in self.halves)
        self.heads = nn.ModuleList(nn.Linear(hidden_dim, 2 * len(b)) for _, b in self.halves)
        for head in self.heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def project(self, context: torch.Tensor) -> torch.Tensor:
        """Context's share of every layer's hidden units, (B, K·H); reused by `forward` and `inverse`."""
        return self.context_net(context)

    def forward(self, x: torch.Tensor, projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Y = T(x; c) and log|det ∂y/∂x|. Shapes (B, N), (B, K·H) → (B, N), (B,)."""
        log_det = x.new_zeros(x.shape[0])
        for k in range(self.num_layers):
            kept, changed, order = self._indices(k)
            a, b = x[:, kept], x[:, changed]
            s, t = self._scale_shift(k, a, projected)
            x = torch.cat([a, b * torch.exp(s) + t], dim=1)[:, order]
            log_det = log_det + s.sum(dim=1)
        return x, log_det

    def inverse(self, y: torch.Tensor, projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """X = T⁻¹(y; c) and log|det ∂x/∂y|, shapes as in `forward`."""
        log_det = y.new_zeros(y.shape[0])
        for k in reversed(range(self.num_layers)):
            kept, changed, order = self._indices(k)
            a, b = y[:, kept], y[:, changed]
            s, t = self._scale_shift(k, a, projected)
            y = torch.cat([a, (b - t) * torch.exp(-s)], dim=1)[:, order]
            log_det = log_det - s.sum(dim=1)
        return y, log_det

    def _indices(self, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return getattr(self, f"kept_{k}"), getattr(self, f"changed_{k}"), getattr(self, f"order_{k}")

    def _scale_shift(self, k: int, a: torch.Tensor, projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        context = projected[:, k * self.hidden_dim : (k + 1) * self.hidden_dim]
        hidden = nn.functional.elu(self.kept_nets[k](a) + context)
        raw_scale, shift = self.heads[k](hidden).chunk(2, dim=1)
        scale = self.scale_bound * torch.tanh(raw_scale / self.scale_bound)
        if self.transform == "volume_preserving":
            scale = scale - scale.mean(dim=1, keepdim=True)
        return scale, shift
