"""Private and loopback addresses in every spelling (T3, F82)."""

from __future__ import annotations

import pytest

from fluxasync._core.addresses import is_loopback_address, private_address


def listed(text: str) -> list[str]:
    return text.split()


PRIVATE = listed("""
    127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254
    100.64.0.1 100.127.255.255 0.0.0.0 0.1.2.3 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::8.8.8.8 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1
    2001:db8::1 100::1 3fff::1 5f00::1 64:ff9b:1::a00:1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    2002:7f00:1:: 2002:c0a8:101::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
    localhost 0x7f.1 2130706433 127.1 1.2.3 example.com 1.2.3.4:80 [::1]
""")

PUBLIC = listed("""
    1.1.1.1 8.8.8.8 172.15.0.1 172.32.0.1 100.63.255.255 100.128.0.1 223.255.255.255
    2606:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1
""")

LOOPBACK = listed("localhost LOCALHOST 127.0.0.1 127.9.9.9 ::1 [::1] ::ffff:127.0.0.1")

NOT_LOOPBACK = listed("""
    0.0.0.0 :: 10.0.0.1 localhost.evil.com 127.0.0.1.evil.com 0x7f.1 2002:7f00:1::
    64:ff9b::7f00:1 ::ffff:10.0.0.1 example.com
""")


@pytest.mark.parametrize("address", ["", *PRIVATE], ids=lambda address: f"T3 F82 {address!r}")
def test_addresses_that_are_not_public_are_private(address: str) -> None:
    """An address of this machine, its network or a cloud's metadata service is private in every
    spelling."""
    assert private_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    """Public addresses are allowed, also through NAT64."""
    assert not private_address(address)


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_is_loopback(host: str) -> None:
    """All names and addresses of this machine are loopback."""
    assert is_loopback_address(host)


@pytest.mark.parametrize("host", NOT_LOOPBACK)
def test_other_hosts_are_not_loopback(host: str) -> None:
    """A host that only resembles this machine is not loopback."""
    assert not is_loopback_address(host)
