"""Definitions against the codecs of other authors: Unitree's own types write, mcap_ros2 reads."""

import random
import types

import pytest
from mcap.records import Schema
from mcap_ros2.decoder import DecoderFactory

from nfpo_deploy.flight_log.schemas import definition_of_record
from nfpo_deploy.transport import codec

pytest.importorskip("unitree_sdk2py", reason="the Unitree SDK is not installed")

NAMES = {
    "unitree_go/LowState": codec.GO_LOW_STATE,
    "unitree_go/LowCmd": codec.GO_LOW_CMD,
    "unitree_go/SportModeState": codec.GO_SPORT_MODE_STATE,
    "unitree_go/WirelessController": codec.GO_WIRELESS_CONTROLLER,
    "unitree_hg/LowState": codec.HG_LOW_STATE,
    "unitree_hg/LowCmd": codec.HG_LOW_CMD,
    "unitree_hg/IMUState": codec.HG_IMU_STATE,
    "unitree_hg/BmsState": codec.HG_BMS_STATE,
}


def decoder(definition):
    schema = Schema(id=1, name=definition.name, encoding="ros2msg", data=definition.text.encode())
    return DecoderFactory().decoder_for("cdr", schema)


def filled(message, rng):
    """The SDK's message with a different small number in every field."""
    for name, value in vars(message).items():
        if name != "sample_info":
            items = [_filled(item, rng) for item in value] if isinstance(value, list) else _filled(value, rng)
            setattr(message, name, items)
    return message


def _filled(value, rng):
    return filled(value, rng) if hasattr(value, "__idl__") else _like(value, rng)


def _like(value, rng):
    # Multiples of 1/8 are exact as float32; numbers below 128 fit into every integer, signed or not.
    return rng.randrange(1000) / 8 if isinstance(value, float) else rng.randrange(128)


def assert_same(decoded, sent, path=""):
    for name, expected in vars(sent).items():
        if name == "sample_info":
            continue
        got = getattr(decoded, name)
        items = zip(got, expected, strict=True) if isinstance(expected, list) else [(got, expected)]
        for index, (one, other) in enumerate(items):
            where = f"{path}.{name}[{index}]"
            if hasattr(other, "__idl__"):
                assert isinstance(one, types.SimpleNamespace), where
                assert_same(one, other, where)
            else:
                assert one == other, where


def sdk_message(name):
    from unitree_sdk2py.idl import default

    family, _, message = name.partition("/")
    if name == "unitree_go/WirelessController":
        return default.unitree_go_msg_dds__WirelessController_()
    return getattr(default, f"{family}_msg_dds__{message}_")()


@pytest.mark.parametrize("name", NAMES)
def test_what_unitrees_types_write_is_decoded_field_by_field(name):
    sent = filled(sdk_message(name), random.Random(name))
    definition = definition_of_record(NAMES[name])
    assert definition.name == name.replace("/", "/msg/")
    assert_same(decoder(definition)(sent.serialize()), sent)


def test_a_definition_names_each_nested_type_once():
    text = definition_of_record(codec.GO_LOW_STATE).text
    for nested in ("IMUState", "MotorState", "BmsState"):
        assert text.count(f"MSG: unitree_go/{nested}\n") == 1
