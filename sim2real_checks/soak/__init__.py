"""Soak: a long walk with random commands on a busy computer, in which nothing may go wrong and nothing may grow.

`wandering` makes the commands, `burner` the load, `witness` looks at the wire, `run` brings all together, `judge` says
what was wrong, `report` shows it; `command` is `nfpo soak`.
"""
