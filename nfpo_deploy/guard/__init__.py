"""The guard: a small process that damps the robot when the bridge is dead or hung, because motors keep what they got.

It shares nothing with the bridge but the wire: no ROS, no gate, no memory. Two of them run in a graph, so that one
remains when the bridge and one guard die together.
"""
