"""Normalizing-flow action distributions for rsl_rl."""

from nfpo_train.flow.couplings import AffineCouplingFlow
from nfpo_train.flow.distribution import FlowDistribution

__all__ = ["AffineCouplingFlow", "FlowDistribution"]
