"""Refuses connections to addresses that the server must not choose, or that must not see the key.

Sockets are created here for an address that is already looked up, so the spelling of a host does
not matter. A proxy looks names up itself: there the URL's host decides.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from attrs import define, field

from .._core.addresses import is_link_local, is_loopback_address, private_address, private_host
from .._core.errors import TransportError
from .connection_pool import ConnectionUse

_REFUSED = "downloads from private addresses are refused"


@define
class AddressGuard:
    """The private addresses that images may be downloaded from.

    `allow_private` allows them once the gateway itself has answered from a private address, so a
    public provider cannot name them.
    """

    allow_loopback: bool = False  #: this machine's own, for an API on this machine
    allow_private: bool = False
    _is_gateway_private: bool = field(default=False, init=False)

    @property
    def is_private(self) -> bool:
        """Whether private addresses are allowed now."""
        return self.allow_private and self._is_gateway_private

    def answered(self, use: ConnectionUse, *, is_proxied: bool) -> None:
        """Note where the gateway's latest answer came from."""
        if self.allow_private:
            self._is_gateway_private = not is_proxied and _is_private_peer(use)

    def download_socket(self, address: Any) -> socket.socket:
        """Create a socket for a download; refuse a private address."""
        host = str(address[4][0])
        if private_address(host) and not self._may_fetch_from(host):
            raise OSError(errno.EACCES, _REFUSED)
        return _new_socket(address)

    def check_proxied(self, host: str) -> None:
        """Raise TransportError for a private host, whose address only the proxy looks up."""
        if private_host(host) and not self._may_fetch_from(host):
            raise TransportError(_REFUSED, sent=False, permanent=True)

    def _may_fetch_from(self, host: str) -> bool:
        if self.allow_loopback and is_loopback_address(host):
            return True
        # link-local: where clouds serve the machine's credentials
        return self.is_private and not is_link_local(host)


def plain_api_socket(address: Any) -> socket.socket:
    """Create a socket for an API that is called over http; refuse a public address, where the key
    would be seen on the way."""
    if not private_address(str(address[4][0])):
        raise OSError(errno.EACCES, "http is allowed to private addresses only; this one is public")
    return _new_socket(address)


def _new_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


def _is_private_peer(use: ConnectionUse) -> bool:
    """Return whether a server has a private address; False where that is not known."""
    transport = None if use.line is None else use.line.transport
    peer = None if transport is None else transport.get_extra_info("peername")
    return peer is not None and private_address(str(peer[0]))
