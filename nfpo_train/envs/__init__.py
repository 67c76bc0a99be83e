"""Vectorised training environments that implement rsl_rl's `VecEnv`."""
