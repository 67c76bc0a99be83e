"""SROS 2 with the ROS wheels: their Fast DDS has no security, and says so instead of starting without it."""

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

NODE = """
import sys
import rclpy
rclpy.init(args=sys.argv)
rclpy.create_node("node")
print("started")
"""
FILES = ("identity_ca.cert.pem", "permissions_ca.cert.pem", "cert.pem", "key.pem", "governance.p7s", "permissions.p7s")


@pytest.fixture
def keystore(tmp_path):
    """An enclave whose files are there; nobody reads them before it is known that there is something to read them."""
    enclave = tmp_path / "keystore/enclaves/nfpo"
    enclave.mkdir(parents=True)
    for name in FILES:
        (enclave / name).write_text("not a certificate")
    return tmp_path / "keystore"


def start(tools, keystore, strategy):
    environment = tools.environment("confined") | {
        "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": strategy, "ROS_SECURITY_KEYSTORE": str(keystore),
        "ROS_SECURITY_ENCLAVE_OVERRIDE": "/nfpo",
    }  # fmt: skip
    command = [sys.executable, "-c", NODE]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("strategy", ["Enforce", "Permissive"])
def test_a_node_with_an_enclave_does_not_start_unprotected(tools, keystore, strategy):
    result = start(tools, keystore, strategy)
    assert result.returncode != 0 and "started" not in result.stdout
    # On a ROS installation whose Fast DDS has security, the certificates are read and refused instead.
    assert "doesn't have the security libraries" in result.stderr or "ecurity" in result.stderr


def test_a_node_without_its_keystore_does_not_start_when_security_is_enforced(tools, tmp_path):
    result = start(tools, tmp_path / "nowhere", "Enforce")
    assert result.returncode != 0 and "SECURITY ERROR" in result.stderr
