"""Sim-to-sim validation: a policy walks through a set of scenarios with the runtime's own modules, and is scored.

`scenario` is the schema of scenario files, `terrain` and `bodies` make the worlds, `stack` runs the deployed modules in
process, `run` runs a scenario and `scores` turns what happened into numbers.
"""
