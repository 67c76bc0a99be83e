"""Fault campaign: break one thing at a time while the simulated robot stands or walks, and measure what follows.

`catalogue` says what is broken and what must follow, `rig` runs a graph, `inject` breaks it, `measure` turns the
simulator's record into numbers, `judge` compares them with what was expected, `report` shows them; `command` is
`nfpo faults`.
"""
