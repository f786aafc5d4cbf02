"""Ports of this machine."""

from __future__ import annotations

import socket


def port_is_taken(port: int) -> bool:
    """Whether something listens on 127.0.0.1:port on this machine."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
