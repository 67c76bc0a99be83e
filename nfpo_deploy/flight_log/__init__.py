"""The flight recorder's log: MCAP segments that survive a cut, incidents that are kept, and their reader. No ROS."""
