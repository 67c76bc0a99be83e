"""Unitree's two families of low-level messages: which codec and which IDL type a robot's LowState and LowCmd have.

`unitree_go` serves Go2, B2 and H1 with 20 motor slots, `unitree_hg` serves G1 and H1-2 with 35. Both use the same
topic names, so that a program of the wrong family hears nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE, HG_LOW_CMD, HG_LOW_STATE, MessageCodec
from robots.loader import RobotSpec


@dataclass(frozen=True)
class MessageFamily:
    """The messages of one family."""

    name: str
    low_state: MessageCodec
    low_cmd: MessageCodec

    def low_state_type(self) -> type:
        """IDL type of rt/lowstate, from the SDK."""
        return self._types().LowState_

    def low_cmd_type(self) -> type:
        """IDL type of rt/lowcmd, from the SDK."""
        return self._types().LowCmd_

    def _types(self) -> Any:
        if self.name == "unitree_hg":
            from unitree_sdk2py.idl.unitree_hg.msg import dds_ as hg

            return hg
        from unitree_sdk2py.idl.unitree_go.msg import dds_ as go

        return go


GO = MessageFamily("unitree_go", GO_LOW_STATE, GO_LOW_CMD)
HG = MessageFamily("unitree_hg", HG_LOW_STATE, HG_LOW_CMD)
FAMILIES = {family.name: family for family in (GO, HG)}


def family_of(spec: RobotSpec) -> MessageFamily:
    """The family that a robot speaks.

    Raises:
        TransportError: one that this version does not know; the message lists those that it does.
    """
    family = FAMILIES.get(spec.message_family)
    if family is None:
        raise TransportError(
            f"robot {spec.name!r} uses message family {spec.message_family!r}; known: {', '.join(FAMILIES)}"
        )
    return family
