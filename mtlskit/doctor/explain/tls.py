"""What TLS libraries say of certificates and keys: OpenSSL (libpq, librdkafka, Python), Java, Go, Node, .NET.

Alerts are not here: they have a table of their own, which the proxy uses as well (`mtlskit.wire.alerts`).
"""

from __future__ import annotations

from typing import Final

from mtlskit.doctor.explain.known import Known, known
from mtlskit.errors import Code

__all__ = ["TLS"]

_SHOW: Final = "mtlskit certs show --connect HOST:PORT --kind postgres"

TLS: Final[tuple[Known, ...]] = (
    known(
        r"does not match host name|hostname mismatch|IP address mismatch|is not valid for '"
        r"|could not be verified by hostnameverifier|No (?:subject alternative )?names? matching|No subject alternative"
        r" (?:DNS |names)|x509: certificate is (?:valid|not valid) for|cannot validate certificate for"
        r""
        r"|relies on legacy Common Name field|ERR_TLS_CERT_ALTNAME_INVALID"
        r"|does not match certificate's altnames|RemoteCertificateNameMismatch"
        r"|num=6[234]:",
        Code.TLS_NAME_MISMATCH,
        "TLS: the server's certificate is for another name",
        "the certificate is in order, and none of its names is the host that was asked for: an alias, an address"
        " instead of a name, or another server",
        'use a name that is in the certificate; with mtlskit: verify = "name:HOST", or verify = "ca" with a CA of'
        " its own (Heroku's Kafka needs that)",
        _SHOW,
    ),
    known(
        r"certificate has expired|certificate is not yet valid|CertificateExpired|CertificateNotYetValid"
        r"|has expired or is not yet valid|CERT_HAS_EXPIRED|num=(?:9|10):",
        Code.TLS_SERVER_EXPIRED,
        "TLS: a certificate of the server's chain is outside its dates",
        "it has expired, or begins in the future; a clock that is wrong looks the same",
        "check this host's clock first, then have the server's certificate renewed",
        "date -u",
        _SHOW,
    ),
    known(
        r"key values mismatch|KEY_VALUES_MISMATCH|private key does not match",
        Code.KEY_MISMATCH,
        "OpenSSL: key and certificate do not belong together",
        "one of the two was renewed and the other was not, or files were mixed up",
        "compare them, and take both from one place",
        "mtlskit certs show client.crt --key client.key",
    ),
    known(
        r"has group or world access|permissions should be (?:u=rw|0600)|unprotected private key",
        Code.KEY_EXPOSED,
        "the client: others may read the private key",
        "libpq refuses a key file that its group or everybody can read",
        "take the rights away",
        "chmod 600 client.key",
    ),
    known(
        r"bad decrypt|bad password read|PEM_read_bio|maybe wrong password|pkcs12 cipherfinal error|mac verify failure"
        r"|keystore password was incorrect|keystore was tampered with",
        Code.KEY_PASSPHRASE_WRONG,
        "the TLS library: the key cannot be decrypted",
        "the passphrase is wrong, or missing",
        "give the right one, or export the identity anew",
        "mtlskit certs export --help",
    ),
    known(
        r"ee key too small|EE_KEY_TOO_SMALL|ca key too small|dh key too small",
        Code.KEY_WEAK,
        "OpenSSL: a key is too short for this system's security level",
        "RSA below 2048 bits, refused since about 2020",
        "have the certificate issued for a new key",
        "mtlskit keys new",
    ),
    known(
        r"md too weak|MD_TOO_WEAK",
        Code.SIGNATURE_WEAK,
        "OpenSSL: a certificate is signed with MD5 or SHA-1",
        "this system's security level refuses such signatures",
        "have the certificate issued anew",
    ),
    known(
        r"no start line|Could not read (?:any )?(?:certificate|private key|key)|Could not (?:read|open) SSL"
        r"|DECODER routines::unsupported|not enough data|PEM lib\b|bad base64 decode|Unable to load (?:PEM|certificate)"
        r"|could not load (?:client )?certificate file|No (?:password|key) .{0,20}PKCS",
        Code.PEM_WRONG_KIND,
        "the TLS library: a file does not hold what it is named for",
        "DER or PKCS #12 where PEM belongs, certificate and key exchanged, or a key in a form that the client does"
        " not read (JDBC wants PKCS #8)",
        "see what is in it, and export it in the form of this client",
        "mtlskit certs show FILE",
        "mtlskit certs export --help",
    ),
    known(
        r"root certificate file \"(?P<file>[^\"]+)\" does not exist",
        Code.FILE_MISSING,
        "libpq: there is no {file}",
        "sslmode=verify-ca and verify-full need the CA of the server in a file",
        "towards a tunnel use sslmode=disable; straight, set sslrootcert",
        "mtlskit status",
    ),
    known(
        r"self[- ]signed certificate in certificate chain|SELF_SIGNED_CERT_IN_CHAIN|num=19:"
        r"|unable to get (?:local )?issuer certificate|UNABLE_TO_(?:GET|VERIFY)|unable to verify the first certificate"
        r"|num=(?:2|20|21):|PKIX path (?:building|validation) failed|unable to find valid certification path"
        r"|x509: certificate signed by unknown authority|remote certificate is invalid|RemoteCertificateChainErrors"
        r"|self[- ]signed certificate|DEPTH_ZERO_SELF_SIGNED_CERT|num=18:|CERTIFICATE_VERIFY_FAILED"
        r"|certificate verify failed",
        Code.TLS_CHAIN_NOT_TRUSTED,
        "TLS: the client does not trust the server's certificate",
        "it leads to no CA that the client knows: Heroku's databases and Kafkas have CAs of their own, which no"
        " system ships",
        "connect through the tunnel, or give the client the server's CA (PREFIXroot.crt of Heroku's bundle,"
        " KAFKA_TRUSTED_CERT for Kafka)",
        _SHOW,
    ),
    known(
        r"wrong version number|WRONG_VERSION_NUMBER|first record does not look like a TLS handshake"
        r"|Unrecognized SSL message|plaintext connection\?|packet length too long|http request\b.{0,20}SSL"
        r"|NotSslRecord|HTTP_REQUEST",
        Code.TLS_HANDSHAKE_FAILED,
        "TLS: the other side does not speak TLS there",
        "a client with TLS at a plain port (the tunnel's door is one), or a Postgres port, where TLS begins after an"
        " SSLRequest",
        "towards a tunnel switch TLS off in the client; else check the port",
        "mtlskit status",
    ),
    known(
        r"unsupported protocol|UNSUPPORTED_PROTOCOL|no protocols available|NO_PROTOCOLS_AVAILABLE|protocol is disabled"
        r"|No appropriate protocol|server selected unsupported protocol version",
        Code.TLS_VERSION,
        "TLS: the two sides have no version in common",
        "one of them knows only TLS 1.0 or 1.1",
        "update the older side; mtlskit speaks 1.2 and 1.3",
        _SHOW,
    ),
    known(
        r"no shared cipher|NO_SHARED_CIPHER|no cipher(?:s)? (?:match|available)|no cipher suites in common",
        Code.TLS_HANDSHAKE_FAILED,
        "TLS: the two sides have no cipher in common",
        "the settings of one side are too narrow or too old",
        "compare what both offer",
        _SHOW,
    ),
    known(
        r"SSL error: (?:Broken pipe|Connection reset)",
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "JDBC: the server cut the TLS connection right after the handshake",
        "under TLS 1.3 a server looks at the client certificate when the client believes that the handshake is done;"
        " cut then, it has most likely refused it: expired, revoked, or of another CA",
        "look at the certificate; the tunnel and the doctor wait for the server's reason, which this driver does not",
        "mtlskit doctor",
        "mtlskit certs list",
    ),
)
