"""Decides which network addresses and hosts are not public.

A hostile server could name this machine, its network or a cloud's metadata service in an answer.
The decision uses the resolved address, so the spelling (0x7f.1, ::ffff:127.0.0.1) does not matter.
Multicast and the NAT64 form of 127.0.0.1 are global to `ipaddress`, but not here.
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network

#: its last 32 bits are an IPv4 address (RFC 6052)
_NAT64 = IPv6Network("64:ff9b::/96")

#: not global, although some releases of Python 3.11 to 3.13 say so: IPv4-compatible (RFC 4291),
#: local NAT64 (RFC 8215), site-local (RFC 3879), documentation (RFC 9637), segment routing (9602)
_NOT_GLOBAL = (
    IPv6Network("::/8"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("fec0::/10"),
    IPv6Network("3fff::/20"),
    IPv6Network("5f00::/16"),
)


def private_address(address: str) -> bool:
    """Return whether an IP address is not a public unicast address.

    True for private, loopback, link-local, shared (CGNAT), unique-local, multicast, reserved and
    unspecified addresses, for IPv6 forms that carry such an IPv4 address, and for text that is
    not an address.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return True
    if isinstance(found, IPv6Address):
        if (inner := _embedded(found)) is not None:
            return _is_not_public(inner)
        if any(found in network for network in _NOT_GLOBAL):
            return True
    return _is_not_public(found)


#: top-level names of local networks (RFC 6761, 6762, 8375; ICANN's .internal), .svc of
#: Kubernetes, and names that ICANN does not delegate because networks use them (.corp, .home: 2018)
_LOCAL_NAMES = (
    ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".localdomain", ".corp",
    ".home",
)  # fmt: skip


@lru_cache(maxsize=256)
def private_host(host: str) -> bool:
    """Return whether a URL's host is certainly not public, without a DNS query.

    True for private addresses in any spelling (0x7f.1, 2130706433), names without a dot, names
    of local networks, and hosts with percent signs.
    """
    name = unicodedata.normalize("NFKC", host).lower().strip("[]").rstrip(".")
    if ":" in name:
        return private_address(name)
    try:
        return private_address(socket.inet_ntoa(socket.inet_aton(name)))
    except (OSError, ValueError):  # a name
        return "." not in name or "%" in name or name.endswith(_LOCAL_NAMES)


@lru_cache(maxsize=256)
def is_loopback_address(host: str) -> bool:
    """Return whether a host is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    # only the IPv4-mapped form stays in the machine; tunnelled forms go to the network
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found.is_loopback if mapped is None else mapped.is_loopback


def is_link_local(host: str) -> bool:
    """Return whether a host is a link-local address, as the metadata services of clouds have."""
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    inner = _embedded(found) if isinstance(found, IPv6Address) else None
    return found.is_link_local if inner is None else inner.is_link_local


def _is_not_public(address: IPv4Address | IPv6Address) -> bool:
    return not address.is_global or address.is_multicast


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
