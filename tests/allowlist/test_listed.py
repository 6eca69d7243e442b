"""Lists that others publish."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.allowlist.listed import LARGEST_LIST, MOST_LISTED, parse_listed, read_listed
from mtlskit.allowlist.plan import Wanted
from mtlskit.errors import Code, ConfigError, MtlskitError

LINES = """\
# published 2024-07-31

203.0.113.7            # Frankfurt, blue
203.0.113.8/32 ; Dublin
198.51.100.0/24, 198.51.101.0/24
2001:db8::/32
203.0.113.7
"""


def read(text: str) -> list[tuple[str, str]]:
    found = parse_listed(text.encode(), source="v")
    assert {want.origin for want in found} == {"list:v"}
    return [(str(want.cidr), want.description) for want in found]


def ranges(text: str) -> list[str]:
    return [cidr.removesuffix("/32") for cidr, _ in read(text)]


def test_plain_lines() -> None:
    listed = read_listed(LINES.encode(), source="https://example.com/list.txt")
    origin = "list:https://example.com/list.txt"
    assert listed.ipv6 == 1
    assert listed.wanted == (
        Wanted(IPv4Network("203.0.113.7"), "Frankfurt, blue", origin),
        Wanted(IPv4Network("203.0.113.8"), "Dublin", origin),
        Wanted(IPv4Network("198.51.100.0/24"), "https://example.com/list.txt", origin),
        Wanted(IPv4Network("198.51.101.0/24"), "https://example.com/list.txt", origin),
    )


AWS = {
    "syncToken": "1", "createDate": "2024-07-31-01-16-17",
    "prefixes": [{"ip_prefix": "203.0.113.0/24", "region": "eu-west-1", "service": "S3", "network_border_group": "x"}],
    "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32", "region": "eu-west-1", "service": "S3"}],
}  # fmt: skip
GOOGLE = {
    "creationTime": "2024-07-31T01:16:17",
    "prefixes": [{"ipv6Prefix": "2001:db8::/44"}, {"ipv4Prefix": "203.0.113.0/24", "scope": "us-east4"}],
}  # fmt: skip
AZURE = {
    "changeNumber": 3,
    "values": [
        {
            "name": "PowerBI",
            "properties": {"platform": "Azure", "addressPrefixes": ["203.0.113.0/24"], "networkFeatures": ["API"]},
        }
    ],
}
ATLASSIAN = {"items": [{"network": "203.0.113.0", "mask_len": 24, "cidr": "203.0.113.0/24", "product": ["jira"]}]}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (["203.0.113.7", "198.51.100.0/24"], ["203.0.113.7", "198.51.100.0/24"]),
        ([["203.0.113.7"], [["198.51.100.1"]]], ["203.0.113.7", "198.51.100.1"]),
        (AWS, ["203.0.113.0/24"]),
        (GOOGLE, ["203.0.113.0/24"]),
        (AZURE, ["203.0.113.0/24"]),
        (ATLASSIAN, ["203.0.113.0/24"]),
        ({"result": {"ipv4_cidrs": ["203.0.113.7"], "etag": "x"}, "success": True, "errors": []}, ["203.0.113.7"]),
        ({"eu": {"ips": ["203.0.113.7"]}, "us": {"ips": ["203.0.113.8"]}}, ["203.0.113.7", "203.0.113.8"]),
        ([{"IP": "203.0.113.7"}, {"ip": None}, 5], ["203.0.113.7"]),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json(document: object, found: list[str], indent: int | None) -> None:
    assert ranges(json.dumps(document, indent=indent)) == found


def test_json_is_described_by_what_stands_beside_or_around_it() -> None:
    text = json.dumps([{"name": "EU", "items": [{"cidr": "203.0.113.7"}, {"cidr": "203.0.113.8", "comment": "a\nb"}]}])
    assert read(text) == [("203.0.113.7/32", "EU"), ("203.0.113.8/32", "a b")]
    assert read(json.dumps([{"cidr": "203.0.113.7", "name": 5}])) == [("203.0.113.7/32", "v")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cidr,description\n203.0.113.7,EU\n", [("203.0.113.7/32", "EU")]),
        ("Region;Address\nEU;203.0.113.7\n", [("203.0.113.7/32", "EU")]),
        ("name\tip\nEU\t203.0.113.7\n", [("203.0.113.7/32", "EU")]),
        ('"cidr","description"\r\n"203.0.113.7","EU, ""blue"""\r\n', [("203.0.113.7/32", 'EU, "blue"')]),
        ("203.0.113.7,EU\n203.0.113.8,US\n", [("203.0.113.7/32", "v"), ("203.0.113.8/32", "v")]),
        ("# list\ncidr,region\n\n203.0.113.7,EU\n# end\n", [("203.0.113.7/32", "EU")]),
        ("from,to,cidr\n203.0.113.0,203.0.113.255,203.0.113.0/24\n", [("203.0.113.0/24", "v")]),
        ("id,x,note\n1,203.0.113.7,203.0.113.9\n2,203.0.113.8,\n", [("203.0.113.7/32", "v"), ("203.0.113.8/32", "v")]),
        ("ip\n203.0.113.7\n", [("203.0.113.7/32", "v")]),
        ('"cidr"\n"203.0.113.7"\n', [("203.0.113.7/32", "v")]),
        ("203.0.113.7,203.0.113.8,\n203.0.113.9,\n", [(f"203.0.113.{n}/32", "v") for n in (7, 8, 9)]),
        ("203.0.113.7 # EU, blue\n203.0.113.8\n", [("203.0.113.7/32", "EU, blue"), ("203.0.113.8/32", "v")]),
        ("cidr,name\n,none\n203.0.113.7\n".replace("7\n", "7,\n"), [("203.0.113.7/32", "v")]),
    ],
)
def test_csv(text: str, found: list[tuple[str, str]]) -> None:
    assert read(text) == found


def test_a_byte_order_mark_and_windows_line_ends() -> None:
    assert ranges("\ufeff203.0.113.7\r\n203.0.113.8\r\n") == ["203.0.113.7", "203.0.113.8"]


def test_a_list_names_no_owner() -> None:
    assert read("203.0.113.7 # x [mtlskit:a/b]") == [("203.0.113.7/32", "x [a/b]")]
    assert len(read(f"203.0.113.7 # {'x' * 300}")[0][1]) == 100


BAD = [
    ("", Code.ALLOW_SOURCE, "v: names no IPv4 address"),
    ("# nothing\n", Code.ALLOW_SOURCE, "v: names no IPv4 address"),
    ("[]", Code.ALLOW_SOURCE, "v: names no IPv4 address"),
    ('{"date": "203.0.113.7"}', Code.ALLOW_SOURCE, "v: names no IPv4 address"),
    ("2001:db8::/32\n::1\n", Code.ALLOW_SOURCE, "v: names no IPv4 address: all 2 entries are IPv6"),
    ("<!doctype html>", Code.ALLOW_SOURCE, "v: a web page"),
    ('[\n"203.0.113.7",\n"203', Code.ALLOW_SOURCE, "v:3: not JSON: Unterminated string"),
    ("[" * 100_000, Code.ALLOW_SOURCE, "v: not usable JSON: nested too deeply"),
    ("[" * 30 + '"203.0.113.7"' + "]" * 30, Code.ALLOW_SOURCE, "v: lists within lists"),
    ("[" + "1" * 5000 + "]", Code.ALLOW_SOURCE, "v: not usable JSON"),
    ("start,end\n203.0.113.0,203.0.113.255\n", Code.ALLOW_SOURCE, "v: two columns hold addresses"),
    ("203.0.113.7\nexample.com\n", Code.ALLOW_BAD_CIDR, 'v:2: "example.com" is not an IPv4 address'),
    ("ip\nip\n203.0.113.7", Code.ALLOW_BAD_CIDR, 'v:2: "ip" is not'),
    ("203.0.113.7\n\n203.0.113.7/24 # x\n", Code.ALLOW_BAD_CIDR, "v:3: 203.0.113.7/24 has bits beyond"),
    ("10.0.0.1\n", Code.ALLOW_PRIVATE, "v:1: 10.0.0.1/32 is private"),
    ("203.0.113.7\n0.0.0.0/0\n", Code.ALLOW_TOO_WIDE, "v:2: 0.0.0.0/0 would let everybody in"),
    ("cidr,name\n203.0.113.7,a\nnone,b\n", Code.ALLOW_BAD_CIDR, 'v:3: "none" is not'),
    ('[\n"203.0.113.7",\n{"a": 1},\n{"ip": "x"}]', Code.ALLOW_BAD_CIDR, 'v:4: "x" is not'),
    ("203.0.113.7\npostgres://ann:s3cret@db\n", Code.ALLOW_BAD_CIDR, "v:2: what stands here is not"),
    ("203.0.113.7\n" * (MOST_LISTED + 1), Code.ALLOW_SOURCE, f"v: more than {MOST_LISTED} entries"),
    ("#" * (LARGEST_LIST + 1), Code.ALLOW_SOURCE, f"v: larger than {LARGEST_LIST} bytes"),
]


@pytest.mark.parametrize(("text", "code", "start"), BAD, ids=range(len(BAD)))
def test_half_a_list_is_none(text: str, code: Code, start: str) -> None:
    with pytest.raises(MtlskitError) as caught:
        parse_listed(text.encode(), source="v")
    assert caught.value.sentence.startswith(start)
    assert caught.value.code is code
    assert caught.value.hint


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(MtlskitError, match="v:2: not UTF-8"):
        parse_listed(b"203.0.113.7\n\xff\n", source="v")


def test_a_further_word() -> None:
    assert parse_listed(b"0.0.0.0/0", source="v", wide_ok=True)[0].cidr == IPv4Network("0.0.0.0/0")
    with pytest.raises(ConfigError):
        parse_listed(b"10.0.0.0/8", source="v", wide_ok=True)


@given(st.text(st.sampled_from('[]{}",;:#\n\t 0123.7/aip')), st.booleans())
def test_any_text_is_read_or_refused(text: str, prefixed: bool) -> None:
    told = ""
    try:
        listed = read_listed((f"203.0.113.7\n{text}" if prefixed else text).encode(), source="v")
    except MtlskitError as exc:
        told = exc.sentence
    assert told.startswith("v") or listed.wanted


def test_a_key_in_the_url_of_a_list_goes_nowhere() -> None:
    """Descriptions are read by everybody who may see the add-on; errors and plans stand in logs."""
    source = "https://lists.example.com/ips?key=secret#secret"
    [found] = read_listed(b"192.0.2.1", source=source).wanted
    assert (found.description, found.origin) == ("https://lists.example.com/ips", "list:https://lists.example.com/ips")
    for content in (b"192.0.2.1\nnonsense", b"", b"<html>", b"\xff", b"["):
        with pytest.raises(MtlskitError) as caught:
            read_listed(content, source=source)
        assert caught.value.sentence.startswith("https://lists.example.com/ips:")
        assert "secret" not in caught.value.sentence + caught.value.hint
    assert read_listed(b"192.0.2.1", source="lists/why?.txt").wanted[0].description == "lists/why?.txt"


@pytest.mark.parametrize("word", ["[mtlskit:mtlskit:a/b]", "[mtls\x07kit:a/b]", "[mtlskit:[mtlskit:a/b]a/b]"])
def test_no_word_of_a_list_becomes_a_tag(word: str) -> None:
    [found] = read_listed(f"192.0.2.1 # {word}".encode(), source="x").wanted
    assert "[mtlskit:" not in found.description


def test_lines_of_texts_that_are_written_otherwise_are_not_sought_for_ever() -> None:
    texts = ",".join(f'"\\u0031.0.{number // 256}.{number % 256}"' for number in range(200))
    found = read_listed(f"[{texts}]".encode(), source="x")
    assert len(found.wanted) == 200
    with pytest.raises(ConfigError, match=r"^x:1: "):
        read_listed(f'[{texts},"nonsense"]'.encode(), source="x")
