"""What a rank finds in its environment: torchrun's variables, threads, and the network interface."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import UsageError

LOOPBACK = "127.0.0.1"
_SIOCGIFADDR = 0x8915


def rank_environment(
    rank: int, ranks: int, local_rank: int, local_ranks: int, master: tuple[str, int]
) -> dict[str, str]:
    """The variables that torchrun sets and torch.distributed's ``env://`` reads."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_ranks),
        "MASTER_ADDR": master[0],
        "MASTER_PORT": str(master[1]),
    }


def host_environment(
    local_ranks: int, master: str, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Variables that all ranks of this host share. What the user has set is left alone.

    OMP_NUM_THREADS: cores that this process may use, divided among the host's ranks; more threads
    than cores make a CPU run several times slower. GLOO_SOCKET_IFNAME: the interface that leads to the
    first rank's address; gloo otherwise takes what the host's own name resolves to, on many machines
    127.0.1.1, which other hosts cannot reach, or nothing.
    """
    chosen = {"OMP_NUM_THREADS": str(max(1, cores() // local_ranks))}
    interface = interface_of(local_address_to(master))
    if interface is not None:
        chosen["GLOO_SOCKET_IFNAME"] = interface
    return {name: value for name, value in chosen.items() if not given.get(name)}


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the quota of its container if there is one."""
    found = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        return found if limit == "max" else max(1, min(found, int(limit) // int(period)))
    except (OSError, ValueError):
        return found


def interface_addresses() -> dict[str, str]:
    """{interface: its IPv4 address} of this host, loopback last."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            try:
                fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request, True)
            except OSError:
                continue  # an interface without an IPv4 address
            found[name] = socket.inet_ntoa(request.tobytes()[20:24])
    return dict(sorted(found.items(), key=lambda item: item[1].startswith("127.")))


def interface_of(address: str | None) -> str | None:
    """The interface that has an address, or None."""
    return next((name for name, own in interface_addresses().items() if own == address), None)


def local_address_to(address: str) -> str | None:
    """The address of this host from which packets to `address` leave; None if there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))  # sends nothing: the kernel only looks up the route
        except OSError:
            return None
        return str(sock.getsockname()[0])


def listen(port: int | None, address: str = "") -> socket.socket:
    """A listening socket on `port` (None: any that is free). UsageError if the port is in use."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port or 0))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"port {port} of {socket.gethostname()}: {error.strerror}: another run may use it; give"
            " --port with a free one, or leave it out"
        ) from None
    return sock


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with listen(None, LOOPBACK) as sock:
        return int(sock.getsockname()[1])
