"""Recorded flights: run again through the deployed code (`nfpo replay`), and beside the simulator (`nfpo compare`)."""
