"""The run as rsl_rl's own PPO sees it: its configuration, and the learning-rate schedule that it lacks."""

from __future__ import annotations

from typing import Any

from rsl_rl.algorithms import PPO
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from nfpo_train.config import TrainConfig


def rsl_rl_config(cfg: TrainConfig) -> dict[str, Any]:
    """The run as rsl_rl's nested dict; flow and Gaussian differ in `distribution_cfg` alone."""
    algo = cfg.algorithm
    if cfg.policy == "flow":
        distribution = {
            "class_name": "nfpo_train.flow.distribution:FlowDistribution",
            "context_dim": cfg.flow.context_dim,
            "num_layers": cfg.flow.num_layers,
            "hidden_dim": cfg.flow.hidden_dim,
            "transform": cfg.flow.transform,
            "scale_bound": cfg.flow.scale_bound,
            "init_std": algo.init_std,
            "std_range": tuple(algo.std_range),
        }
    else:
        distribution = {
            "class_name": "GaussianDistribution",
            "init_std": algo.init_std,
            "std_range": tuple(algo.std_range),
            "std_type": "log",
        }
    network = {"class_name": "MLPModel", "activation": "elu", "obs_normalization": True}
    return {
        "num_steps_per_env": algo.steps_per_env,
        "save_interval": cfg.checkpoint_interval,
        "obs_groups": {"actor": ["policy"], "critic": ["policy", "critic"]},
        "actor": {**network, "hidden_dims": list(algo.actor_hidden), "distribution_cfg": distribution},
        "critic": {**network, "hidden_dims": list(algo.critic_hidden)},
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": algo.epochs,
            "num_mini_batches": algo.mini_batches,
            "clip_param": algo.clip,
            "gamma": algo.gamma,
            "lam": algo.lam,
            "value_loss_coef": algo.value_loss_coef,
            "entropy_coef": algo.entropy_coef,
            "learning_rate": algo.learning_rate,
            "max_grad_norm": algo.max_grad_norm,
            "schedule": "adaptive" if algo.schedule == "adaptive" else "fixed",
            "desired_kl": algo.desired_kl,
        },
        "multi_gpu": None,
    }


def make_algorithm(env: VecEnv, cfg: TrainConfig) -> PPO:
    """PPO over the environment's observations, built by rsl_rl itself."""
    observations: TensorDict = env.get_observations()
    return PPO.construct_algorithm(observations, env, rsl_rl_config(cfg), str(env.device))


def set_learning_rate(alg: PPO, cfg: TrainConfig, iteration: int) -> None:
    """Apply the "linear" schedule for one iteration; the other schedules are rsl_rl's own."""
    algo = cfg.algorithm
    if algo.schedule != "linear":
        return
    done = min(1.0, iteration / cfg.iterations)
    alg.learning_rate = algo.learning_rate + done * (algo.final_learning_rate - algo.learning_rate)
    for group in alg.optimizer.param_groups:
        group["lr"] = alg.learning_rate
