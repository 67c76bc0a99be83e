"""NFPO inside rsl_rl's own PPO: the same loop learns a task whose answer is known."""

import pytest
import torch
from rsl_rl.algorithms import PPO
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from nfpo_train.config import AlgorithmConfig, TrainConfig
from nfpo_train.ppo import rsl_rl_config, set_learning_rate


class ReachTarget(VecEnv):
    """One-step task: the best action is a linear function of the observation; reward −|a − A·o|²."""

    num_envs, num_actions, max_episode_length, device = 256, 3, 1, "cpu"

    def __init__(self):
        self.cfg = {}
        self.episode_length_buf = torch.zeros(self.num_envs)
        self.matrix = torch.tensor([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.3]])
        self._draw()

    def _draw(self):
        self.obs = torch.randn(self.num_envs, 2)

    def get_observations(self):
        return TensorDict({"policy": self.obs, "critic": self.obs}, batch_size=[self.num_envs])

    def best(self):
        return self.obs @ self.matrix.T

    def step(self, actions):
        reward = -(actions - self.best()).square().sum(1)
        self._draw()
        done = torch.ones(self.num_envs, dtype=torch.bool)
        return self.get_observations(), reward, done, {"log": {}}


@pytest.mark.parametrize(
    ("policy", "transform"), [("flow", "volume_preserving"), ("flow", "affine"), ("gaussian", "affine")]
)
def test_ppo_finds_the_known_optimum(policy, transform):
    torch.manual_seed(1)
    cfg = TrainConfig(policy=policy, algorithm=AlgorithmConfig(actor_hidden=(32, 32), critic_hidden=(32, 32)))
    settings = rsl_rl_config(cfg)
    if policy == "flow":
        settings["actor"]["distribution_cfg"]["transform"] = transform
    settings["algorithm"] |= {"learning_rate": 3e-3, "schedule": "fixed", "entropy_coef": 0.0}
    settings["num_steps_per_env"] = 8
    env = ReachTarget()
    alg = PPO.construct_algorithm(env.get_observations(), env, settings, "cpu")

    def error():
        with torch.inference_mode():
            return (alg.actor(env.get_observations()) - env.best()).square().mean().sqrt().item()

    before = error()
    alg.train_mode()
    for _ in range(40):
        with torch.inference_mode():
            for _ in range(8):
                obs, reward, done, extras = env.step(alg.act(env.get_observations()))
                alg.process_env_step(obs, reward, done, extras)
            alg.compute_returns(env.get_observations())
        losses = alg.update()
    assert all(torch.isfinite(torch.tensor(v)) for v in losses.values())
    assert error() < 0.12 < before


def test_adaptive_learning_rate_reacts_to_the_flow_s_kl_estimate():
    torch.manual_seed(0)
    cfg = TrainConfig(algorithm=AlgorithmConfig(schedule="adaptive", learning_rate=1e-2))
    settings = rsl_rl_config(cfg) | {"num_steps_per_env": 4}
    env = ReachTarget()
    alg = PPO.construct_algorithm(env.get_observations(), env, settings, "cpu")
    with torch.inference_mode():
        for _ in range(4):
            obs, reward, done, extras = env.step(alg.act(env.get_observations()))
            alg.process_env_step(obs, reward, done, extras)
        alg.compute_returns(env.get_observations())
    alg.update()
    assert alg.learning_rate < 1e-2, "steps this large exceed the desired KL"


def test_flow_and_gaussian_differ_in_the_distribution_alone():
    flow, gaussian = (rsl_rl_config(TrainConfig(policy=p)) for p in ("flow", "gaussian"))
    assert flow["actor"].pop("distribution_cfg") != gaussian["actor"].pop("distribution_cfg")
    assert flow == gaussian


def test_linear_schedule_falls_from_first_to_last_rate():
    class Optimizer:
        param_groups = [{"lr": 0.0}]

    class Alg:
        learning_rate, optimizer = 0.0, Optimizer()

    cfg, alg = TrainConfig(), Alg()
    seen = []
    for iteration in (0, cfg.iterations // 2, cfg.iterations, 2 * cfg.iterations):
        set_learning_rate(alg, cfg, iteration)
        assert alg.optimizer.param_groups[0]["lr"] == alg.learning_rate
        seen.append(alg.learning_rate)
    assert seen[0] == 4e-4 and seen[2] == seen[3] == pytest.approx(4e-5)
    assert seen[1] == pytest.approx(2.2e-4, rel=0.01)
