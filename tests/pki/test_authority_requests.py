"""What the authority makes of a request: what it was asked for as far as the policy goes, as openssl sees it too."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlskit.errors import Code, IdentityError
from mtlskit.pki import profiles
from mtlskit.pki.authority import Answer, Authority
from mtlskit.pki.certificates import public_key_der_of
from mtlskit.pki.keys import KeyType, PrivateKey, generate_key, public_key_der
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import Usage, Wishes, alternative_name, load_request, make_request, subject_name
from mtlskit.pki.revocation import Reason, Revoked
from tests.support.openssl import openssl
from tests.support.x509_builder import DAY, NOW

KINDS = list(KeyType)
KEY = generate_key()
UTF8 = x509.name._ASN1Type.UTF8String
ROOT = Authority.self_signed(subject_name("CN=our ca,O=Example"), now=NOW)
GRANTED = {x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectKeyIdentifier}
GRANTED |= {x509.AuthorityKeyIdentifier, x509.SubjectAlternativeName}


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    with warnings.catch_warnings():  # of the lengths that cryptography finds odd
        warnings.simplefilter("ignore")
        return x509.Name([x509.NameAttribute(oid, text, UTF8, _validate=False) for oid, text in parts])


def asked(
    subject: x509.Name | str = "CN=reporting",
    *wishes: tuple[x509.ExtensionType, bool] | x509.ExtensionType,
    names: Sequence[x509.GeneralName] = (),
    key: PrivateKey | dsa.DSAPrivateKey | ed448.Ed448PrivateKey = KEY,
    password: bytes | None = None,
) -> bytes:
    """A request for anything at all."""
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(subject_name(subject) if isinstance(subject, str) else subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for wish in wishes:
        value, critical = wish if isinstance(wish, tuple) else (wish, False)
        builder = builder.add_extension(value, critical)
    if password is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, password)
    plain = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if plain else hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signed(request: bytes, profile: Profile = Profile.CLIENT, lifetime: timedelta | None = None) -> Answer:
    return ROOT.sign_request(request, profile, now=NOW, lifetime=lifetime, source="client.csr")


def refused(request: bytes, profile: Profile = Profile.CLIENT) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        signed(request, profile)
    assert caught.value.sentence.startswith("client.csr: the request is refused: ")
    assert caught.value.hint
    assert (caught.value.sentence + caught.value.hint).isprintable()
    return caught.value


def sans(answer: Answer) -> list[x509.GeneralName]:
    return list(answer.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def key_usage(**wanted: bool) -> x509.KeyUsage:
    fields = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{field: wanted.get(field, False) for field in (*fields, *more)})


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_agrees_with_what_was_issued(kind: KeyType, profile: Profile, tmp_path: Path) -> None:
    authority = Authority.self_signed(subject_name("CN=our ca,O=Example"), now=NOW, kind=kind)
    key = generate_key(kind)
    wishes = Wishes(
        subject_name("CN=db.example.com,OU=BI,O=Example"),
        (alternative_name("DNS:db.example.com"), alternative_name("IP:2001:db8::1")),
        (Usage(profile.value),),
    )
    answer = authority.sign_request(make_request(key, wishes), profile, now=NOW)
    assert answer.notes == ()
    assert public_key_der_of(answer.certificate) == public_key_der(key)
    ca, leaf, crl = (tmp_path / file for file in ("ca.crt", "leaf.crt", "ca.crl"))
    ca.write_bytes(authority.cert_pem)
    leaf.write_bytes(answer.cert_pem)
    crl.write_bytes(authority.revocation_list((), now=NOW))
    purpose = "sslclient" if profile is Profile.CLIENT else "sslserver"
    openssl(
        *("verify", "-x509_strict", "-check_ss_sig", "-attime", str(int(NOW.timestamp())), "-purpose", purpose),
        *("-crl_check", "-CRLfile", crl, "-CAfile", ca, leaf),
    )
    text = openssl("x509", "-in", leaf, "-noout", "-text", "-nameopt", "RFC2253").decode()
    use = "Client" if profile is Profile.CLIENT else "Server"
    for words in (
        "Subject: CN=db.example.com,OU=BI,O=Example\n",
        "Issuer: CN=our ca,O=Example\n",
        "CA:FALSE\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        f"X509v3 Extended Key Usage: \n                TLS Web {use} Authentication\n",
        "DNS:db.example.com, IP Address:2001:DB8:0:0:0:0:0:1\n",
    ):
        assert words in text
    root = openssl("x509", "-in", ca, "-noout", "-text").decode()
    assert "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n" in root
    assert "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n" in root


@pytest.mark.parametrize("profile", Profile)
def test_wishes_are_left_out_and_told(profile: Profile) -> None:
    other = Profile.SERVER if profile is Profile.CLIENT else Profile.CLIENT
    request = asked(
        "CN=db.example.com",
        (x509.BasicConstraints(ca=True, path_length=None), True),
        key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True, key_agreement=True),
        x509.ExtendedKeyUsage([other.purpose, profile.purpose, ExtendedKeyUsageOID.CODE_SIGNING]),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
        x509.NameConstraints([x509.DNSName("example.com")], None),
        x509.OCSPNoCheck(),
        x509.SubjectKeyIdentifier(b"chosen by them"),
        names=[x509.DNSName("db.example.com")],
        password=b"tell nobody",
    )
    answer = signed(request, profile)
    extensions = answer.certificate.extensions
    assert {type(each.value) for each in extensions} == GRANTED
    assert extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    assert extensions.get_extension_for_class(x509.KeyUsage).value == key_usage(digital_signature=True)
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [profile.purpose]
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
    told = " | ".join(answer.notes)
    for words in (
        "left out: the wish to be a CA (CA:TRUE)",
        "left out: key usage keyAgreement, keyCertSign, cRLSign;",
        f"Auth, 1.3.6.1.5.5.7.3.3; {profile}s get {profile}Auth",
        "left out: the extension 1.2.3.4, critical",
        "left out: the extension 2.5.29.30",
        "left out: the extension 1.3.6.1.5.5.7.48.1.5",
        "left out: the attribute 1.2.840.113549.1.9.7",
    ):
        assert words in told
    assert len(answer.notes) == 7
    assert "tell nobody" not in told


@pytest.mark.parametrize(
    ("profile", "wish", "why_not"),
    [
        (Profile.CLIENT, x509.DNSName("bi.example.com"), ""),
        (Profile.CLIENT, x509.IPAddress(ip_address("192.0.2.7")), ""),
        (Profile.CLIENT, x509.UniformResourceIdentifier("spiffe://example.com/bi"), ""),
        (Profile.CLIENT, x509.RFC822Name("ops@example.com"), ""),
        (Profile.CLIENT, x509.DNSName("*.example.com"), "wildcards are for servers"),
        (Profile.CLIENT, x509.DNSName("192.0.2.7"), "an address is asked for as IP:"),
        (Profile.CLIENT, x509.DNSName("a b"), "not a DNS name"),
        (Profile.CLIENT, x509.DNSName("bank.example\0.evil.example"), "not a DNS name"),
        (Profile.CLIENT, x509.UniformResourceIdentifier("spiffe://" + "x" * 1100), "longer than 1024"),
        (Profile.CLIENT, x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), "no names of this kind"),
        (Profile.CLIENT, x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), "no names of this kind"),
        (Profile.SERVER, x509.DNSName("*.example.com"), ""),
        (Profile.SERVER, x509.IPAddress(ip_address("::1")), ""),
        (Profile.SERVER, x509.DNSName("*.com"), "top-level domain"),
        (Profile.SERVER, x509.DNSName("*"), "not a DNS name"),
        (Profile.SERVER, x509.DNSName("a.*.example"), "not a DNS name"),
        (Profile.SERVER, x509.UniformResourceIdentifier("https://a.example"), "the profile server has no names"),
        (Profile.SERVER, x509.RFC822Name("ops@example.com"), "the profile server has no names"),
    ],
)
def test_alternative_names(profile: Profile, wish: x509.GeneralName, why_not: str) -> None:
    good = x509.DNSName("good.example.com")
    answer = signed(asked(names=[good, wish, good]), profile)
    assert sans(answer) == ([good] if why_not else [good, wish])
    assert why_not in " ".join(answer.notes)
    assert len(answer.notes) == bool(why_not)
    assert all(note.isprintable() and note.startswith("left out: ") for note in answer.notes)


@pytest.mark.parametrize(
    ("common_name", "san"),
    [("db.example.com", "DNS:db.example.com"), ("192.0.2.7", "IP:192.0.2.7"), ("*.example.com", "DNS:*.example.com")],
)
def test_the_common_name_of_a_server_becomes_its_name(common_name: str, san: str) -> None:
    unwanted = x509.RFC822Name("ops@example.com")
    for names in ([], [unwanted]):
        answer = signed(asked(f"CN={common_name},O=Example", names=names), Profile.SERVER)
        assert sans(answer) == [alternative_name(san)]
        assert f"added: {san}, from the common name" in answer.notes[-1]


def test_a_server_may_lack_a_subject_and_a_client_may_not() -> None:
    request = asked(x509.Name([]), names=[x509.DNSName("db.example.com")])
    san = signed(request, Profile.SERVER).certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    assert "no subject" in refused(request).sentence
    assert "names no host" in refused(asked("O=Example"), Profile.SERVER).sentence
    assert "names no host" in refused(asked("CN=our database"), Profile.SERVER).sentence


COMMON, ORGANISATION = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([(COMMON, "a"), (COMMON, "b")], "more than one common name"),
        ([(COMMON, "ad\0min")], "cannot be seen"),
        ([(COMMON, "ad\u202emin")], "cannot be seen"),
        ([(COMMON, "ad\u200bmin")], "cannot be seen"),
        ([(COMMON, "\x1b[31mred")], "cannot be seen"),
        ([(COMMON, " admin")], "cannot be seen"),
        ([(COMMON, "admin"), (ORGANISATION, "")], "the part O of its subject is empty"),
        ([(COMMON, "x" * 65)], "the part CN of its subject has 65 characters"),
        ([(COMMON, "\u00fc" * 40)], "not valid"),
        ([(ORGANISATION, "x" * 129)], "129 characters"),
        ([(NameOID.COUNTRY_NAME, "D")], "do not belong there"),
        ([(NameOID.COUNTRY_NAME, "D\u00fc")], "do not belong there"),
        ([(NameOID.SERIAL_NUMBER, "7;8")], "do not belong there"),
        ([(NameOID.EMAIL_ADDRESS, "\u00fc@example.com")], "do not belong there"),
        ([(NameOID.ORGANIZATIONAL_UNIT_NAME, f"u{number}") for number in range(33)], "33 parts"),
    ],
)
def test_subjects_that_are_refused(parts: list[tuple[x509.ObjectIdentifier, str]], words: str) -> None:
    error = refused(asked(name(*parts)))
    assert error.code is Code.CA_REQUEST_REFUSED
    assert words in error.sentence


def test_unknown_parts_of_a_subject_are_left_out() -> None:
    parts = [(ORGANISATION, "Example"), (NameOID.INN, "7701"), (COMMON, "reporting")]
    answer = signed(asked(name(*parts)))
    assert answer.certificate.subject.rfc4514_string() == "CN=reporting,O=Example"
    assert answer.notes == ("left out: the part 1.2.643.3.131.1.1 of the subject",)
    nothing = asked(name((NameOID.INN, "7701")))
    assert "no subject" in refused(nothing).sentence


def test_a_subject_is_encoded_anew_and_keeps_its_parts_together() -> None:
    odd = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]),
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(COMMON, "app", x509.name._ASN1Type.BMPString),
                    x509.NameAttribute(NameOID.USER_ID, "7", x509.name._ASN1Type.T61String),
                ]
            ),
        ]
    )
    subject = signed(asked(odd)).certificate.subject
    assert len(subject.rdns) == 2
    assert {part._type for part in subject.rdns[1]} == {UTF8}
    assert subject.get_attributes_for_oid(COMMON)[0].value == "app"


def _generate(kind: str) -> PrivateKey | dsa.DSAPrivateKey | ed448.Ed448PrivateKey:
    match kind:
        case "rsa-1024":
            return rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
        case "dsa":
            return dsa.generate_private_key(2048)
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
    return ec.generate_private_key(ec.SECP224R1() if kind == "secp224r1" else ec.BrainpoolP256R1())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("rsa-1024", "RSA 1024 bits"),
        ("dsa", "DSA"),
        ("ed448", "Ed448"),
        ("secp256k1", "EC secp256k1"),
        ("secp224r1", "EC secp224r1"),
        ("brainpool", "EC brainpoolP256r1"),
    ],
)
def test_keys_that_are_refused(kind: str, words: str) -> None:
    error = refused(asked(key=_generate(kind)))
    assert error.code is Code.KEY_WEAK
    assert words in error.sentence


def test_a_key_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(key=generate_key(KeyType.RSA_3072))
    assert signed(request).certificate
    monkeypatch.setattr(profiles, "_MAX_RSA_BITS", 2048)
    assert "RSA 3072 bits" in refused(request).sentence


def test_how_many_names_a_request_may_ask_for() -> None:
    names = [x509.DNSName(f"n{number}.example.com") for number in range(101)]
    assert len(sans(signed(asked(names=names[:100]), Profile.SERVER))) == 100
    assert "asks for 101 alternative names" in refused(asked(names=names)).sentence
    long = [x509.UniformResourceIdentifier(f"spiffe://{number}/" + "x" * 900) for number in range(50)]
    assert "bytes" in refused(asked(names=long)).sentence


def test_a_thousand_wishes_make_a_few_notes() -> None:
    wishes = [
        x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{number}"), b"\x05\x00") for number in range(1000)
    ]
    answer = signed(asked("CN=a", *wishes))
    assert {type(each.value) for each in answer.certificate.extensions} == GRANTED - {x509.SubjectAlternativeName}
    assert len(answer.notes) == 13
    assert answer.notes[-1] == "left out: 988 more wishes"
    assert all(len(note) <= 200 for note in answer.notes)


def test_an_extension_that_is_there_twice() -> None:
    wishes = [x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{n}"), b"\x05\x00") for n in (4, 5)]
    der = x509.load_pem_x509_csr(asked("CN=a", *wishes)).public_bytes(serialization.Encoding.DER)
    with pytest.raises(IdentityError) as caught:
        load_request(der.replace(b"\x2a\x03\x05", b"\x2a\x03\x04"), source="client.csr")
    assert caught.value.code is Code.PEM_DAMAGED


def test_a_request_that_was_changed_is_refused() -> None:
    der = x509.load_pem_x509_csr(asked()).public_bytes(serialization.Encoding.DER)
    with pytest.raises(IdentityError) as caught:
        signed(der.replace(b"reporting", b"superuser"))
    assert caught.value.code is Code.REQUEST_NOT_SIGNED


def test_dates() -> None:
    request = asked()
    for profile, days in ((Profile.CLIENT, 365), (Profile.SERVER, 397)):
        leaf = signed(asked("CN=a.example"), profile).certificate
        assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
        assert leaf.not_valid_after_utc == NOW + days * DAY
    short = signed(request, lifetime=timedelta(seconds=10)).certificate
    assert short.not_valid_after_utc == NOW + timedelta(seconds=10)
    long = signed(request, lifetime=10_000 * DAY)
    assert long.certificate.not_valid_after_utc == ROOT.certificate.not_valid_after_utc
    assert long.notes == ("shortened: it ends with the CA's own certificate, 2036-05-31 12:00:00 UTC",)
    with pytest.raises(ValueError, match="at least a second"):
        signed(request, lifetime=timedelta(milliseconds=999))


@pytest.mark.parametrize(("days", "words"), [(-1, "begins on 2026-06-01"), (4000, "ended on 2036-05-31")])
def test_an_authority_outside_its_dates_signs_nothing(days: int, words: str) -> None:
    with pytest.raises(IdentityError) as caught:
        ROOT.sign_request(asked(), Profile.CLIENT, now=NOW + days * DAY)
    assert caught.value.code is Code.CA_OUT_OF_DATE
    assert words in caught.value.sentence


def test_serials_are_random() -> None:
    request = asked()
    serials = {signed(request).certificate.serial_number for _ in range(20)}
    assert len(serials) == 20
    assert max(serials).bit_length() > 140


def test_an_authority_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Authority.self_signed(x509.Name([]), now=NOW)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
_OIDS = st.sampled_from([COMMON, ORGANISATION, NameOID.INN, NameOID.USER_ID, NameOID.SERIAL_NUMBER])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_OIDS, _TEXT), max_size=6), st.sampled_from(list(Profile)))
def test_any_subject_is_taken_as_it_is_or_refused(
    parts: list[tuple[x509.ObjectIdentifier, str]], profile: Profile
) -> None:
    request = asked(name(*parts), names=[x509.DNSName("a.example")])
    try:
        leaf = signed(request, profile).certificate
    except IdentityError:
        return
    wanted = [(oid, text) for oid, text in parts if oid != NameOID.INN]
    assert [(part.oid, part.value) for part in leaf.subject] == wanted
    assert all(text.isprintable() for _, text in wanted)


_EXTENSIONS: list[x509.ExtensionType] = [
    x509.BasicConstraints(ca=True, path_length=3),
    key_usage(key_cert_sign=True),
    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    x509.InhibitAnyPolicy(0),
    x509.TLSFeature([x509.TLSFeatureType.status_request]),
    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x00"),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(_EXTENSIONS), st.booleans()), max_size=6, unique_by=lambda each: each[0].oid),
    st.lists(st.text(st.characters(codec="ascii"), max_size=40).map(x509.DNSName), max_size=5),
    st.sampled_from(list(Profile)),
)
def test_no_wish_gets_past_the_policy(
    wishes: list[tuple[x509.ExtensionType, bool]], names: list[x509.DNSName], profile: Profile
) -> None:
    answer = signed(asked("CN=a.example", *wishes, names=names), profile)
    extensions = answer.certificate.extensions
    assert {type(each.value) for each in extensions} <= GRANTED
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value == key_usage(digital_signature=True)
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [profile.purpose]
    assert len(answer.notes) >= min(12, len(wishes))


# Revocation lists.


def test_a_list_tells_when_and_why(tmp_path: Path) -> None:
    lines = [Revoked(0x10 + number, NOW - number * DAY, reason) for number, reason in enumerate(Reason)]
    path, ca = tmp_path / "ca.crl", tmp_path / "ca.crt"
    path.write_bytes(ROOT.revocation_list([*lines, Revoked(0x10, NOW, Reason.SUPERSEDED)], now=NOW, lifetime=30 * DAY))
    ca.write_bytes(ROOT.cert_pem)
    text = openssl("crl", "-in", path, "-noout", "-text").decode()
    openssl("crl", "-in", path, "-noout", "-CAfile", ca)
    entries = text.partition("Revoked Certificates:")[2].split("Serial Number: ")[1:]
    assert [entry.split("\n")[0] for entry in entries] == ["10", "11", "12", "13", "14", "15"]
    assert "Next Update: Jul  1 12:00:00 2026 GMT" in text
    for entry, line in zip(entries, lines, strict=True):
        assert f"Revocation Date: {line.at:%b %e %H:%M:%S %Y} GMT" in entry
        assert line.reason.value.replace("-", " ").title() in entry or (
            line.reason is Reason.UNSPECIFIED and "Reason" not in entry
        )


def test_the_number_of_a_list_grows_when_the_clock_goes_back() -> None:
    def number(pem: bytes) -> int:
        return x509.load_pem_x509_crl(pem).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    first = number(ROOT.revocation_list((), now=NOW))
    assert number(ROOT.revocation_list((), now=NOW - DAY, above=first)) == first + 1
    assert number(ROOT.revocation_list((), now=NOW + DAY, above=first)) > first + 1


def test_reasons_are_read_as_we_and_as_openssl_write_them() -> None:
    assert [Reason.named(reason.value) for reason in Reason] == list(Reason)
    assert Reason.named("keyCompromise") is Reason.KEY_COMPROMISE
    for text in ("", "because", "certificateHold", "removeFromCRL"):
        with pytest.raises(ValueError, match="not a reason"):
            Reason.named(text)
