"""Lets the campaign spoil a Python process from inside; found through PYTHONPATH, so production code has no hook.

A process that starts with NFPO_SABOTEUR set listens on `<that folder>/<process id>` for the same JSON requests as the
simulator's control socket: {"fault": "hold_gil", "seconds": 0.5} or {"fault": "exhaust_memory"}.
"""

from __future__ import annotations

import os

FOLDER = "NFPO_SABOTEUR"
SPARE_BYTES = 1 << 20


def _serve(folder: str) -> None:
    import json
    import socket
    import time

    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    server.bind(os.path.join(folder, str(os.getpid())))
    kept: list[bytearray] = []
    while True:
        data, sender = server.recvfrom(4096)
        request = json.loads(data)
        # Answered before it is done: afterwards this process may have nothing left to answer with.
        answer = {"ok": True, "id": request.get("id"), "applied_ns": time.monotonic_ns()}
        server.sendto(json.dumps(answer).encode(), sender)
        if request["fault"] == "hold_gil":
            _hold_gil(float(request["seconds"]))
        elif request["fault"] == "exhaust_memory":
            _exhaust_memory(kept)


def _hold_gil(seconds: float) -> None:
    import ctypes

    # PyDLL keeps the interpreter's lock during the call, as an endless regular expression or a bad extension does.
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


def _exhaust_memory(kept: list[bytearray]) -> None:
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    size = SPARE_BYTES
    while size >= 64:
        try:
            kept.append(bytearray(size))
        except MemoryError:
            size //= 2


if os.environ.get(FOLDER):
    import threading

    threading.Thread(target=_serve, args=(os.environ[FOLDER],), name="saboteur", daemon=True).start()
