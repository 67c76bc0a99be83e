"""Named failures of the robot runtime. Each message names the bad value, what was expected and the remedy."""

from __future__ import annotations


class NfpoError(Exception):
    """Base of every error that the runtime raises on purpose."""


class PolicyError(NfpoError):
    """A policy file cannot be run: unreadable, missing metadata, or it does not fit the robot."""


class ClearanceError(NfpoError):
    """A policy may not run on hardware: it was not validated, or something has changed since."""


class ObservationError(NfpoError):
    """An observation cannot be built: unknown term, wrong size or non-finite value."""


class EstimatorError(NfpoError):
    """No estimate can be made: a sensor value is non-finite or impossible, or the legs are not supported."""


class TransportError(NfpoError):
    """The Unitree channel cannot be used: interface, DDS version, message size or checksum."""


class SafetyError(NfpoError):
    """The safety layer refuses a configuration or a request."""


class GraphError(NfpoError):
    """The node graph cannot be described or started."""


class MessageError(NfpoError):
    """A ROS message does not fit the robot: other joint order, wrong length."""


class ParameterError(NfpoError):
    """A node parameter has the wrong type or value."""


class WebError(NfpoError):
    """The web page cannot be offered: token, port, or a model that cannot be drawn."""
