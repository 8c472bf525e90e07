"""Whether anything answers at the address of a cluster, found out in seconds."""

from __future__ import annotations

import os
import socket

ANSWER_WITHIN_S = 5.0


def silence_at(address: str) -> str | None:
    """Why nobody can be reached at ``address`` ("host:port", or "auto": ``$RAY_ADDRESS``); None if somebody can.

    Ray itself tries for a quarter of an hour before it gives up. Other forms of addresses are left to it.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None
