"""The main job: a simulated robot and the whole ROS 2 graph, driven like a user would, judged by the truth.

`script` says what is asked, `operator` and `drive` ask it over ROS, `analysis` compares with the simulator's
record, `report`, `plot` and `pictures` show the result, `command` is `nfpo walk`.
"""
