"""Checks of a robot, its wire and this computer before the first start; they command nothing, but for the wiggle."""
