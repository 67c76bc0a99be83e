"""Messages of a log as objects, by the definitions that the file itself carries."""

from __future__ import annotations

from typing import Any

from mcap_ros2.decoder import DecoderFactory

from nfpo_deploy.flight_log.reader import LogMessage

MAX_DECODED = 1 << 16
"""Longest message that is decoded, bytes: what a few bytes can claim to hold, a decoder may believe."""


class Decoders:
    """CDR to messages by the definitions in the file.

    Attributes:
        failures: messages that did not fit their own definition.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._factories: dict[bytes, Any] = {}

    def decode(self, message: LogMessage) -> Any | None:
        """An object with the message's fields; None, counted, for one that cannot be decoded."""
        schema = message.schema
        if schema is None or len(message.data) > MAX_DECODED:
            return None
        try:
            key = schema.name.encode() + schema.data
            if key not in self._factories:
                self._factories[key] = DecoderFactory().decoder_for(message.channel.message_encoding, schema)
            decoder = self._factories[key]
            return decoder(message.data) if decoder is not None else None
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except Exception:  # definitions and bytes come from a file that anybody may have written
            self.failures += 1
            return None
