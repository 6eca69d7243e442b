"""DER with one number in it changed, all lengths around it made right again: hostile files out of good ones."""

from __future__ import annotations

from mtlskit.pki.der import DerError, read_element

__all__ = ["as_ber", "encode", "with_integer"]

_CONSTRUCTED = 0x20
_INTEGER = 0x02
_OCTET_STRING = 0x04


def encode(tag: int, content: bytes) -> bytes:
    """One element. A length is written in the shortest form, as DER wants it (X.690, 10.1)."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def with_integer(data: bytes, old: int, new: int) -> bytes:
    """`data` with each INTEGER that is `old` as `new`, also in octet strings that hold DER, as in PKCS #12."""
    changed = b""
    while data:
        element, data = read_element(data)
        content = element.content
        if element.tag == _INTEGER and int.from_bytes(content, "big", signed=True) == old:
            content = new.to_bytes(new.bit_length() // 8 + 1, "big", signed=True)
        elif element.tag & _CONSTRUCTED:
            content = with_integer(content, old, new)
        elif element.tag == _OCTET_STRING and content[:1] == b"\x30":
            try:
                content = with_integer(content, old, new)
            except DerError:  # ciphertext that happens to begin like a sequence
                content = element.content
        changed += encode(element.tag, content)
    return changed


def as_ber(data: bytes, *, inside: bool) -> bytes:
    """`data` with indefinite lengths and octet strings in pieces, as browsers write archives.

    `inside`: also what octet strings hold. (A MAC over that would no longer be right.)
    """
    changed = b""
    while data:
        element, data = read_element(data)
        content = element.content
        if element.tag & _CONSTRUCTED:
            changed += bytes([element.tag, 0x80]) + as_ber(content, inside=inside) + b"\0\0"
        elif element.tag == _OCTET_STRING:
            if inside and content[:1] == b"\x30":
                try:
                    content = as_ber(content, inside=True)
                except DerError:
                    content = element.content
            pieces = encode(_OCTET_STRING, content[:5]) + encode(_OCTET_STRING, content[5:])
            changed += bytes([_OCTET_STRING | _CONSTRUCTED, 0x80]) + pieces + b"\0\0"
        else:
            changed += element.raw
    return changed
