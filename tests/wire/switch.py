"""A network switch with faults: python switch.py NAMESPACE:DEVICE:ADDRESS/BITS ...

Makes one TAP device in each network namespace and passes Ethernet frames between them. The kernel's own netem is not
everywhere (it is a module); this needs only /dev/net/tun. Each line on stdin is a JSON object of faults, which
replaces those before:

    loss, duplicate, corrupt, reorder: probability of each for one frame. A reordered frame is held back for 5 ms.
    delay, jitter: seconds; each frame waits delay plus up to jitter.
    forge: corrupted frames carry a valid UDP checksum, so that they reach the program.
    unplugged: names of devices whose frames are dropped in both directions, while their link stays up.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
HELD_BACK_S = 0.005
UDP = 17


def open_tap(namespace, device, address):
    """File descriptor of a new TAP device inside a namespace; the device lives as long as it is open."""
    with open(f"/var/run/netns/{namespace}") as target:
        if ctypes.CDLL(None, use_errno=True).setns(target.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    for command in (f"addr add {address} dev {device}", f"link set {device} up", "link set lo up"):
        subprocess.run(["ip", *command.split()], check=True)
    return tap


def corrupted(frame, forge):
    """One byte of the UDP payload changed; with `forge` the checksum says "not computed"."""
    content = bytearray(frame)
    if len(frame) < 60 or frame[12:14] != b"\x08\x00" or frame[23] != UDP:
        return frame
    udp = 14 + 4 * (frame[14] & 15)
    content[random.randrange(udp + 8, len(content))] ^= 1 << random.randrange(8)
    if forge:
        content[udp + 6 : udp + 8] = b"\0\0"
    return bytes(content)


class Switch:
    """Ports by device name, the present faults, and the frames that wait."""

    def __init__(self, ports):
        self.ports = ports
        self.faults = {}
        self.waiting = []
        self.serial = 0
        self.passed = self.lost = 0

    def receive(self, source):
        """Take what one port has sent."""
        while True:
            try:
                frame = os.read(self.ports[source], 65536)
            except (BlockingIOError, OSError):  # nothing more, or the link is down
                return
            if source not in self.faults.get("unplugged", ()):
                self.pass_on(source, frame)

    def chance(self, fault):
        return random.random() < self.faults.get(fault, 0.0)

    def pass_on(self, source, frame):
        if self.chance("loss"):
            self.lost += 1
            return
        if self.chance("corrupt"):
            frame = corrupted(frame, self.faults.get("forge", False))
        for _ in range(2 if self.chance("duplicate") else 1):
            wait = self.faults.get("delay", 0.0) + random.random() * self.faults.get("jitter", 0.0)
            wait += HELD_BACK_S if self.chance("reorder") else 0.0
            self.serial += 1
            heapq.heappush(self.waiting, (time.monotonic() + wait, self.serial, source, frame))

    def deliver(self):
        """Send what is due; returns seconds until the next frame is, None if none waits."""
        while self.waiting:
            left = self.waiting[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, source, frame = heapq.heappop(self.waiting)
            for name, port in self.ports.items():
                if name == source or name in self.faults.get("unplugged", ()):
                    continue
                try:
                    os.write(port, frame)
                    self.passed += 1
                except (BlockingIOError, OSError):  # the receiver's queue is full, or its link is down
                    self.lost += 1
        return None


def main():
    ports = {}
    for argument in sys.argv[1:]:
        namespace, device, address = argument.split(":")
        ports[device] = open_tap(namespace, device, address)
    switch = Switch(ports)
    print("ready", flush=True)
    by_descriptor = {port: name for name, port in ports.items()}
    while True:
        ready, _, _ = select.select([0, *by_descriptor], [], [], switch.deliver())
        for descriptor in ready:
            if descriptor == 0:
                line = sys.stdin.readline()
                if not line:
                    return
                switch.faults = json.loads(line)
                print(json.dumps({"passed": switch.passed, "lost": switch.lost}), flush=True)
            else:
                switch.receive(by_descriptor[descriptor])


if __name__ == "__main__":
    main()
