"""Normalizing-flow policy as an rsl_rl `Distribution`.

The actor's network puts out a mean μ(s) and a context c(s); the action is
    a = μ(s) + σ ⊙ T(z; c(s)),   z ~ N(0, I),
with T a stack of couplings that is the identity at first, so that training starts as a diagonal Gaussian. Then
    log π(a|s) = log N(z; 0, I) + log|det ∂z/∂y| − Σ log σ,   y = (a − μ)/σ,   z = T⁻¹(y; c).
"""

from __future__ import annotations

import math

import torch
from rsl_rl.modules.distribution import Distribution
from torch import nn

from nfpo_train.flow.couplings import AffineCouplingFlow

LOG_2PI = math.log(2.0 * math.pi)
KL_LOG_RATIO_LIMIT = 20.0
"""exp stays finite; only the KL estimate is limited, never the loss."""


class FlowDistribution(Distribution):
    """Flow action distribution for rsl_rl's `MLPModel`; name it in `distribution_cfg["class_name"]`."""

    def __init__(
        self,
        output_dim: int,
        context_dim: int = 32,
        num_layers: int = 4,
        hidden_dim: int = 64,
        transform: str = "volume_preserving",
        scale_bound: float = 1.0,
        init_std: float = 1.0,
        std_range: tuple[float, float] = (0.02, 10.0),
    ) -> None:
        """Create the flow.

        Args:
            output_dim: number of actions N, at least 2.
            context_dim: outputs of the actor's network that condition the couplings, beside the N means.
            num_layers: couplings.
            hidden_dim: width of a coupling's hidden layer.
            transform: "volume_preserving" (entropy in closed form) or "affine".
            scale_bound: limit l of s = l·tanh(ŝ/l).
            init_std: initial σ.
            std_range: σ is kept in this range.

        Raises:
            ValueError: an argument is out of range.
        """
        super().__init__(output_dim)
        if not 0 < std_range[0] <= init_std <= std_range[1]:
            raise ValueError(f"need 0 < std_range[0] <= init_std <= std_range[1], got {std_range} and {init_std}")
        self.context_dim = context_dim
        self.flow = AffineCouplingFlow(output_dim, context_dim, num_layers, hidden_dim, transform, scale_bound)
        self.log_std_param = nn.Parameter(torch.full((output_dim,), math.log(init_std)))
        self.log_std_range = (math.log(std_range[0]), math.log(std_range[1]))
        self._mean: torch.Tensor | None = None
        self._projected: torch.Tensor | None = None
        self._log_std: torch.Tensor | None = None
        self._log_prob: torch.Tensor | None = None

    @property
    def input_dim(self) -> int:
        """Outputs that the actor's network must have: N means and the context."""
        return self.output_dim + self.context_dim

    def update(self, mlp_output: torch.Tensor) -> None:
        """Condition on the network's output, (B, N + context_dim)."""
        self._mean, context = mlp_output.split([self.output_dim, self.context_dim], dim=-1)
        self._projected = self.flow.project(context)
        self._log_std = self.log_std_param.clamp(*self.log_std_range)
        self._log_prob = None

    @torch.no_grad()
    def sample(self) -> torch.Tensor:
        """Draw one action for each row, (B, N); carries no gradient, as PPO needs none."""
        y, _ = self.flow(torch.randn_like(self._mean), self._projected)
        return self._mean + self._log_std.exp() * y

    def deterministic_output(self, mlp_output: torch.Tensor) -> torch.Tensor:
        """Action of z = 0, (B, N)."""
        return self.transform_noise(mlp_output, torch.zeros_like(mlp_output[..., : self.output_dim]))

    def transform_noise(self, mlp_output: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Action of a given z: (B, N + context_dim), (B, N) → (B, N)."""
        mean, context = mlp_output.split([self.output_dim, self.context_dim], dim=-1)
        y, _ = self.flow(noise, self.flow.project(context))
        return mean + self.log_std_param.clamp(*self.log_std_range).exp() * y

    def as_deterministic_output_module(self) -> nn.Module:
        """Module that maps the network's output to the action of z = 0."""
        return _DeterministicFlow(self)

    @property
    def mean(self) -> torch.Tensor:
        """Action of z = 0; a flow's expectation has no closed form."""
        y, _ = self.flow(torch.zeros_like(self._mean), self._projected)
        return self._mean + self._log_std.exp() * y

    @property
    def std(self) -> torch.Tensor:
        """Base σ, (B, N)."""
        return self._log_std.exp().expand_as(self._mean)

    @property
    def entropy(self) -> torch.Tensor:
        """Differential entropy, (B,).

        H(a) = N/2·(1 + log 2π) + Σ log σ + E_z[log|det ∂T/∂z|] by the change of variables. The expectation is zero
        for volume-preserving couplings; otherwise one fresh z for each row estimates it without bias, with the
        reparametrised gradient.
        """
        closed_form = 0.5 * self.output_dim * (1.0 + LOG_2PI) + self._log_std.sum()
        if self.flow.transform == "volume_preserving":
            return closed_form.expand(self._mean.shape[0])
        _, log_det = self.flow(torch.randn_like(self._mean), self._projected)
        return closed_form + log_det

    @property
    def params(self) -> tuple[torch.Tensor, ...]:
        """(B, 1) log-probability of the outputs last given to `log_prob`: all that `kl_divergence` needs."""
        if self._log_prob is None:
            raise RuntimeError("FlowDistribution.params is defined after log_prob(outputs), as PPO calls it")
        return (self._log_prob.unsqueeze(-1),)

    def log_prob(self, outputs: torch.Tensor) -> torch.Tensor:
        """Exact log density of (B, N) actions, (B,)."""
        y = (outputs - self._mean) * torch.exp(-self._log_std)
        z, log_det = self.flow.inverse(y, self._projected)
        self._log_prob = (
            log_det - 0.5 * (z.square().sum(dim=-1) + self.output_dim * LOG_2PI) - self._log_std.sum(dim=-1)
        )
        return self._log_prob

    def kl_divergence(self, old_params: tuple[torch.Tensor, ...], new_params: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Estimate KL(old ‖ new) for each row, (B,), from actions drawn from the old policy.

        With r = π_new/π_old, E_old[r − 1] = 0, so k3 = (r − 1) − log r is an unbiased estimate of
        E_old[−log r] = KL(old ‖ new), never negative and of lower variance (Schulman 2020, "Approximating KL").
        """
        log_ratio = (new_params[0] - old_params[0]).squeeze(-1).clamp(-KL_LOG_RATIO_LIMIT, KL_LOG_RATIO_LIMIT)
        return torch.expm1(log_ratio) - log_ratio


class _DeterministicFlow(nn.Module):
    """Export-friendly wrapper around `FlowDistribution.deterministic_output`."""

    def __init__(self, distribution: FlowDistribution) -> None:
        super().__init__()
        self.distribution = distribution

    def forward(self, mlp_output: torch.Tensor) -> torch.Tensor:
        return self.distribution.deterministic_output(mlp_output)
