"""What went wrong with TLS, in words"""

from __future__ import annotations

from OpenSSL.SSL import Error, SysCallError, X509VerificationCodes, ZeroReturnError
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.tls_errors import certificate_fault, refused_certificate, tls_fault


class TlsErrorsTests(SynchronousTestCase):
    """Errors of OpenSSL, and others."""

    def test_words(self) -> None:
        """The first of OpenSSL's reasons that has plainer words is told in those, else the last as it is."""
        for reasons, words in (
            (
                ["sslv3 alert certificate unknown"],
                "it does not believe the certificate that it was shown",
            ),
            (
                ["ssl/tls alert certificate unknown"],
                "it does not believe the certificate that it was shown",
            ),
            (
                ["peer did not return a certificate", "unexpected message"],
                "it shows no certificate",
            ),
            (["excessive message size", "ee key too small"], "ee key too small"),
        ):
            error = Error([("SSL routines", "", reason) for reason in reasons])
            self.assertEqual(tls_fault(error), words)

    def test_certificates(self) -> None:
        """Why a certificate is not believed is said in words, of any code; and so it is when it comes back."""
        expired = certificate_fault(X509VerificationCodes.ERR_CERT_HAS_EXPIRED)
        self.assertEqual(expired, "its certificate has expired")
        self.assertEqual(tls_fault(refused_certificate(expired)), expired)
        self.assertIn("9999", certificate_fault(9999))

    def test_nothing_of_tls(self) -> None:
        """The end of a stream is no fault of TLS, however OpenSSL puts it."""
        for error in (
            None,
            ConnectionDone(),
            SysCallError(-1, "Unexpected EOF"),
            Error([]),
            Error(),
            ZeroReturnError(),
        ):
            self.assertEqual(tls_fault(error), "")
