"""The certificates that are trusted: the system's, SSL_CERT_FILE and SSL_CERT_DIR, or `ssl=`.

OpenSSL reads both variables but ignores a file that it cannot read, so the file is checked first.
REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE belong to other programs and are only named in errors.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from .._core.errors import ConfigError

#: variables of other programs that hold the same file
_OF_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: OpenSSL's words for a certificate that only strict checks refuse (python/cpython#138193)
_STRICT = ("key identifier", "not marked critical", "key usage")
#: OpenSSL's codes for a certificate whose CA is not trusted (x509_vfy.h)
_UNTRUSTED = frozenset({2, 18, 19, 20, 21})


def trusted(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return a context for SSL_CERT_FILE and SSL_CERT_DIR; None where neither is set.

    Raises ConfigError for a file without certificates and for a folder that is none.
    """
    file, folder = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if not file and not folder:
        return None
    if file:
        _check_file(file)
    # like PATH, it may list several
    if folder and not any(os.path.isdir(each) for each in folder.split(os.pathsep)):
        raise ConfigError(f"SSL_CERT_DIR: {folder[:100]} is not a folder")
    context = ssl.create_default_context()
    # as curl and OpenSSL check; strict since Python 3.13, which refuses certificates that many
    # companies' proxies make (without an Authority Key Identifier)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # the file may hold an intermediate CA only; allowed since Python 3.13 by default
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])
    return context


def _check_file(path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ConfigError(
            f"SSL_CERT_FILE: {path[:100]} holds no readable certificate; it must be a PEM file, "
            "which begins with -----BEGIN CERTIFICATE-----"
        ) from None
    except OSError as error:
        raise ConfigError(f"SSL_CERT_FILE: {path[:100]}: {error.strerror}") from None


def advice(error: BaseException, environ: Mapping[str, str]) -> str:
    """Return what to do about a certificate that is not trusted; "" for another error."""
    failed = getattr(error, "certificate_error", error)
    words = str(getattr(failed, "verify_message", "")).lower()
    if any(each in words for each in _STRICT):
        return (
            "; Python checks it strictly: set SSL_CERT_FILE to the PEM file of its CA, or give "
            "ssl= a context without ssl.VERIFY_X509_STRICT"
        )
    if getattr(failed, "verify_code", None) not in _UNTRUSTED:
        return ""
    if environ.get("SSL_CERT_FILE"):
        return "; the file of SSL_CERT_FILE does not have the CA that signed it"
    step = "; if your network has its own CA: set SSL_CERT_FILE to its PEM file, or give ssl="
    other = next((name for name in _OF_OTHERS if environ.get(name)), None)
    return step if other is None else f'{step} (export SSL_CERT_FILE="${other}")'
