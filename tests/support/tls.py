"""TLS in front of a local server, with certificates of a CA that only the tests know."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

#: the name of the server; `.invalid` is never found by DNS, so only a proxy can reach it
HOST = "flux.example.invalid"


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts the CA."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def ca_file(folder: Path) -> Path:
    """Write the CA's certificate into a folder."""
    path = folder / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


def sloppy_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a CA, and a key with a certificate of HOST without an Authority Key Identifier, as some
    proxies of companies make them. Return both paths."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    kinds: list[tuple[x509.Name, x509.ExtensionType, bool]] = [
        (issuer, x509.BasicConstraints(ca=True, path_length=None), True),
        (subject, x509.SubjectAlternativeName([x509.DNSName(HOST)]), False),
    ]
    made = []
    for (name, extension, critical), key in zip(kinds, keys, strict=True):
        builder = x509.CertificateBuilder(issuer, name, key.public_key(), 1 + len(made))
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        signed = builder.add_extension(extension, critical).sign(keys[0], hashes.SHA256())
        made.append(signed.public_bytes(Encoding.PEM))
    private = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ca, leaf = folder / "company.pem", folder / "leaf.pem"
    ca.write_bytes(made[0])
    leaf.write_bytes(private + made[1])
    return ca, leaf


@asynccontextmanager
async def tls_front(
    target_port: int, *names: str, certificate: Path | None = None
) -> AsyncIterator[int]:
    """Accept TLS for these names (default: HOST), or with the certificate in a file, and pass the
    bytes to a local port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if certificate is not None:
        context.load_cert_chain(certificate)
    else:
        authority().issue_cert(*(names or (HOST,))).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(_copy(reader, here), _copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
