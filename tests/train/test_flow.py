"""The flow against independent truth: autograd Jacobians, numerical integration, closed-form Gaussians."""

import math

import pytest
import torch

from nfpo_train.flow import AffineCouplingFlow, FlowDistribution

TRANSFORMS = ("affine", "volume_preserving")


def trained_like(module: torch.nn.Module, scale: float = 0.4) -> None:
    """Move the couplings away from the identity that they start as."""
    torch.manual_seed(0)
    for head in module.heads if isinstance(module, AffineCouplingFlow) else module.flow.heads:
        torch.nn.init.normal_(head.weight, std=scale)
        torch.nn.init.normal_(head.bias, std=scale)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dim", [2, 5, 12, 29])
def test_inverse_undoes_forward_to_float_precision(transform, dim):
    flow = AffineCouplingFlow(dim, 8, 4, 32, transform, 1.0).double()
    trained_like(flow)
    projected = flow.project(torch.randn(64, 8, dtype=torch.double))
    x = torch.randn(64, dim, dtype=torch.double)
    y, log_det = flow(x, projected)
    back, inverse_log_det = flow.inverse(y, projected)
    assert not torch.allclose(x, y, atol=1e-2), "the flow is still the identity: the test proves nothing"
    torch.testing.assert_close(back, x, atol=1e-10, rtol=0)
    torch.testing.assert_close(log_det, -inverse_log_det, atol=1e-10, rtol=0)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_log_determinant_equals_autograd_jacobian(transform):
    flow = AffineCouplingFlow(6, 4, 4, 16, transform, 0.7).double()
    trained_like(flow)
    for _ in range(5):
        projected = flow.project(torch.randn(1, 4, dtype=torch.double))
        x = torch.randn(1, 6, dtype=torch.double)
        jacobian = torch.autograd.functional.jacobian(lambda v, p=projected: flow(v[None], p)[0][0], x[0])
        _, log_det = flow(x, projected)
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(log_det.item(), abs=1e-10)


def test_volume_preserving_determinant_is_one_and_affine_is_not():
    x, context = torch.randn(32, 12), torch.randn(32, 8)
    for transform in TRANSFORMS:
        flow = AffineCouplingFlow(12, 8, transform=transform)
        trained_like(flow)
        _, log_det = flow(x, flow.project(context))
        assert (log_det.abs().max() < 1e-5) == (transform == "volume_preserving")


def test_scales_stay_within_the_bound_however_large_the_network_output():
    bound = 0.5
    flow = AffineCouplingFlow(4, 4, 2, 16, "affine", bound)
    trained_like(flow, scale=100.0)
    x = torch.randn(128, 4) * 50
    scale, _ = flow._scale_shift(0, x[:, flow.kept_0], flow.project(torch.randn(128, 4) * 50))
    assert scale.abs().max() <= bound
    assert scale.abs().max() > 0.99 * bound, "the bound was never reached"


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_density_integrates_to_one_in_two_dimensions(transform):
    distribution = FlowDistribution(2, context_dim=3, hidden_dim=16, transform=transform, init_std=0.8)
    trained_like(distribution, scale=0.6)
    axis = torch.linspace(-24, 24, 1001)
    grid = torch.cartesian_prod(axis, axis)
    output = torch.tensor([[0.3, -0.2, 0.5, -1.0, 0.8]]).expand(len(grid), -1)
    with torch.no_grad():
        distribution.update(output)
        total = distribution.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_samples_follow_the_density(transform):
    """Histogram of draws against the log-density on the same cells: total variation small."""
    distribution = FlowDistribution(2, context_dim=2, hidden_dim=16, transform=transform)
    trained_like(distribution, scale=0.6)
    n, edges = 400_000, torch.linspace(-6, 6, 25)
    output = torch.tensor([[0.0, 0.0, 1.0, -1.0]])
    with torch.no_grad():
        distribution.update(output.expand(n, -1))
        counts = torch.histogramdd(distribution.sample(), bins=[edges, edges]).hist / n
        fine = torch.linspace(-6, 6, 241)
        centres = (fine[1:] + fine[:-1]) / 2
        grid = torch.cartesian_prod(centres, centres)
        distribution.update(output.expand(len(grid), -1))
        mass = (distribution.log_prob(grid).exp() * (fine[1] - fine[0]) ** 2).reshape(24, 10, 24, 10).sum((1, 3))
    assert 0.5 * (counts - mass).abs().sum().item() < 0.02


def test_starts_as_the_diagonal_gaussian():
    distribution = FlowDistribution(12, init_std=0.7)
    output = torch.randn(32, 44)
    distribution.update(output)
    actions = torch.randn(32, 12)
    expected = torch.distributions.Normal(output[:, :12], 0.7).log_prob(actions).sum(-1)
    torch.testing.assert_close(distribution.log_prob(actions), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(distribution.deterministic_output(output), output[:, :12])
    expected_entropy = 12 * 0.5 * (1 + math.log(2 * math.pi)) + 12 * math.log(0.7)
    assert distribution.entropy.mean().item() == pytest.approx(expected_entropy, abs=1e-4)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_entropy_equals_the_mean_negative_log_density_of_samples(transform):
    distribution = FlowDistribution(6, context_dim=4, transform=transform, init_std=0.5)
    trained_like(distribution)
    output = torch.randn(1, 10).expand(200_000, -1)
    with torch.no_grad():
        distribution.update(output)
        from_samples = -distribution.log_prob(distribution.sample())
        standard_error = from_samples.std().item() / math.sqrt(len(from_samples))
        assert distribution.entropy.mean().item() == pytest.approx(from_samples.mean().item(), abs=8 * standard_error)


def test_kl_estimate_agrees_with_the_closed_form_of_two_gaussians():
    old, new = FlowDistribution(4, init_std=1.0), FlowDistribution(4, init_std=1.1)
    n = 400_000
    old_output = torch.zeros(1, 36).expand(n, -1)
    new_output = torch.cat([torch.full((1, 4), 0.1), torch.zeros(1, 32)], dim=1).expand(n, -1)
    with torch.no_grad():
        old.update(old_output)
        new.update(new_output)
        actions = old.sample()
        old.log_prob(actions)
        new.log_prob(actions)
        estimate = old.kl_divergence(old.params, new.params)
    truth = torch.distributions.kl_divergence(
        torch.distributions.Normal(torch.zeros(4), 1.0), torch.distributions.Normal(torch.full((4,), 0.1), 1.1)
    ).sum()
    assert (estimate >= 0).all()
    assert estimate.mean().item() == pytest.approx(truth.item(), rel=0.03)


def test_params_before_log_prob_is_an_error_not_a_stale_value():
    distribution = FlowDistribution(3)
    distribution.update(torch.randn(5, 35))
    with pytest.raises(RuntimeError, match="log_prob"):
        _ = distribution.params


def test_gradients_reach_every_parameter():
    distribution = FlowDistribution(6, context_dim=4, transform="affine")
    trained_like(distribution)
    output = torch.randn(16, 10, requires_grad=True)
    distribution.update(output)
    (distribution.log_prob(torch.randn(16, 6)).sum() + distribution.entropy.sum()).backward()
    assert output.grad is not None and output.grad.abs().min() > 0
    for name, parameter in distribution.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 1}, "at least 2 action dimensions"),
        ({"num_layers": 1}, "num_layers"),
        ({"transform": "spline"}, "spline"),
        ({"scale_bound": 0.0}, "scale_bound"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AffineCouplingFlow(**({"dim": 4, "context_dim": 2} | arguments))
    if "dim" not in arguments and "num_layers" not in arguments:
        return
    with pytest.raises(ValueError, match="init_std"):
        FlowDistribution(4, init_std=5.0, std_range=(0.1, 2.0))
