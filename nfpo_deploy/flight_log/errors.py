"""Failures of the flight log."""

from __future__ import annotations

from nfpo_deploy.errors import NfpoError


class FlightLogError(NfpoError):
    """A log cannot be written or read: bad setting, folder without room or permission, damaged file."""
