"""Every parser of a file, a packet or a user's text; a test holds this table complete."""

from __future__ import annotations

from tests.fuzz import of_flights, of_packets, of_policies, of_records, of_robots
from tests.fuzz.parser import Parser

PARSERS: dict[str, Parser] = {
    parser.name: parser
    for module in (of_robots, of_policies, of_packets, of_records, of_flights)
    for parser in module.PARSERS
}

EXCUSED: dict[str, str] = {
    "nfpo_deploy/realtime.py": "reads what the kernel says of its own threads",
    "nfpo_deploy/ros/flight_recorder.py": "hashes the policy's file",
    "nfpo_deploy/transport/interface.py": "reads what the kernel says of an interface",
    "nfpo_deploy/transport/peers.py": "hands packets to transport/spdp.py, which is fuzzed",
    "robots/mjcf.py": "reads the model of a robot folder, which is installed with the program",
    "nfpo_train/export_onnx.py": "reads back the file that it has just written",
    "sim2real_checks/faults/detect.py": "reads the log of a graph that it has started itself",
    "sim2real_checks/faults/saboteur/sitecustomize.py": "is put into processes that are to be broken",
    "sim2real_checks/faults/spoiled.py": "reads a policy that the policy loader has accepted before",
    "sim2real_checks/faults/tap.py": "reads what its own child process wrote",
    "sim2real_checks/replay/command.py": "hashes policies before the policy loader checks them",
    "sim2real_checks/robot_sim/lowstate_faults.py": "damages samples that it has encoded itself",
    "sim2real_checks/robot_sim/messages.py": "encodes; the bytes are its own",
    "sim2real_checks/soak/halts.py": "reads what its own child process wrote",
    "sim2real_checks/soak/run.py": "reads what its own child process wrote",
    "sim2real_checks/validation/clearing.py": "hashes what the loaders of policy and scenarios have accepted before",
    "sim2real_checks/validation/evidence.py": "reads pictures that its own child process made",
    "sim2real_checks/validation/model_file.py": "hashes a model and hands it to MuJoCo, as docs/security.md says",
    "sim2real_checks/validation/training_moments.py": "reads a policy that the policy loader has accepted before",
    "sim2real_checks/validation/broken.py": "breaks a policy that the policy loader has accepted before",
}
"""Source files that read something and need no fuzzing, each with the reason."""

KNOWN: dict[str, str] = {}
"""Findings that are not repaired yet, a pattern by parser. An entry goes when its parser is repaired."""
