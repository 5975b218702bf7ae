"""What went wrong with TLS, in words that an operator understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from OpenSSL.SSL import Error, SysCallError, X509VerificationCodes

_CERTIFICATES: Final[Mapping[int, str]] = {
    X509VerificationCodes.ERR_CERT_NOT_YET_VALID: "its certificate is not valid yet",
    X509VerificationCodes.ERR_CERT_HAS_EXPIRED: "its certificate has expired",
    X509VerificationCodes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is signed by itself alone",
    X509VerificationCodes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "its certificate comes from an unknown CA",
    X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT: "its certificate comes from an unknown CA",
    X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate comes from an unknown CA",
    X509VerificationCodes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate comes from an unknown CA",
    X509VerificationCodes.ERR_CERT_SIGNATURE_FAILURE: "its certificate is not signed by its CA",
    X509VerificationCodes.ERR_INVALID_PURPOSE: "its certificate is for something else",
}
"""Why a certificate is not believed: OpenSSL's codes (x509_vfy.h)."""
_REASONS: Final[Mapping[str, str]] = {
    "peer did not return a certificate": "it shows no certificate",
    "certificate required": "it wants a certificate, and was shown none",
    "wrong version number": "it does not speak TLS",
    "packet length too long": "it does not speak TLS",
    "record layer failure": "it does not speak TLS",
    "http request": "it does not speak TLS",
    "unsupported protocol": "it speaks no version of TLS that is allowed",
    "protocol version": "it speaks no version of TLS that is allowed",
    "no shared cipher": "it has no cipher in common",
    "handshake failure": "it refused the handshake",
    "unknown ca": "it does not know the CA of the certificate that it was shown",
    "certificate expired": "it was shown a certificate that has expired",
    "bad certificate": "it does not believe the certificate that it was shown",
    "certificate unknown": "it does not believe the certificate that it was shown",
}
"""OpenSSL's reasons (err.h), and the alerts that it tells of as such: the end of each."""


def refused_certificate(reason: str) -> Error:
    """What to raise about a certificate that is not believed, where OpenSSL asks."""
    return Error([("certificate", "", reason)])


def certificate_fault(code: int) -> str:
    """Why OpenSSL does not believe a certificate."""
    return _CERTIFICATES.get(code, f"its certificate is not believed (OpenSSL's code {code})")


def tls_fault(error: BaseException | None) -> str:
    """What went wrong at the other end; empty when it was nothing of TLS."""
    if not isinstance(error, Error) or isinstance(error, SysCallError):
        return ""
    queue = error.args[0] if error.args else ()  # without one, OpenSSL 4 tells the end of a stream
    reasons = [reason for _, _, reason in queue]
    plainer = (
        words for one in reasons for ending, words in _REASONS.items() if one.endswith(ending)
    )
    return next(plainer, reasons[-1] if reasons else "")
