"""A chain out of a heap of certificates: its order, its gaps, what stands there twice and what does not belong."""

from __future__ import annotations

from itertools import permutations

from mtlskit.pki.chains import assemble, follow, is_ca, is_self_signed
from tests.support.x509_builder import DAY, NOW, Made, make_certificate

ROOT = make_certificate("root", ca=True, usages=None, digital_signature=False)
UPPER = make_certificate("upper", issuer=ROOT, ca=True, usages=None, digital_signature=False)
LOWER = make_certificate("lower", issuer=UPPER, ca=True, usages=None, digital_signature=False)
LEAF = make_certificate("leaf", issuer=LOWER)
STRANGER = make_certificate("stranger")
WHOLE = [LEAF, LOWER, UPPER, ROOT]


def certificates(*made: Made) -> list[object]:
    return [each.certificate for each in made]


def test_every_order_gives_the_same_chain() -> None:
    for order in permutations(WHOLE):
        for key in (None, LEAF.key):
            chain = assemble([made.certificate for made in order], key)
            assert list(chain.certificates) == certificates(*WHOLE)
            assert (chain.gaps, chain.open_end, chain.leftovers) == ((), None, ())
            assert chain.reordered is (list(order) != WHOLE)
            assert bool(chain.notes) is chain.reordered


def test_a_chain_without_its_root_is_open_and_has_no_gap() -> None:
    chain = assemble([LEAF.certificate, LOWER.certificate])
    assert (chain.gaps, chain.open_end) == ((), "CN=upper")


def test_a_gap_is_named() -> None:
    chain = assemble([LEAF.certificate, UPPER.certificate, ROOT.certificate])
    assert list(chain.certificates) == certificates(LEAF)
    assert chain.gaps == ("the issuer CN=lower of CN=leaf is not in the file",)
    assert chain.notes == ("certificates that are no part of the chain are left out: CN=upper; CN=root",)


def test_an_issuer_of_the_right_name_that_did_not_sign_is_named() -> None:
    namesake = make_certificate("lower", ca=True, usages=None)
    (gap,) = assemble([LEAF.certificate, namesake.certificate]).gaps
    assert gap.startswith("the certificate of CN=lower in the file did not sign CN=leaf")


def test_duplicates_are_dropped_with_a_note() -> None:
    chain = assemble([LEAF.certificate, LOWER.certificate, LEAF.certificate, UPPER.certificate, ROOT.certificate])
    assert list(chain.certificates) == certificates(*WHOLE)
    assert chain.duplicates == (LEAF.certificate,)
    assert chain.notes == ("certificates that stand there more than once are taken once: CN=leaf",)


def test_the_key_decides_on_the_leaf() -> None:
    heap = [STRANGER.certificate, LEAF.certificate, LOWER.certificate]
    assert assemble(heap).leaf == STRANGER.certificate
    assert assemble(heap, LEAF.key).leaf == LEAF.certificate
    assert assemble(heap, STRANGER.key).leaf == STRANGER.certificate
    # A key of none of them does not.
    assert assemble(heap, make_certificate().key).leaf == STRANGER.certificate
    later = make_certificate("leaf", issuer=LOWER, key=LEAF.key, ends=NOW + 900 * DAY)
    assert assemble([LEAF.certificate, later.certificate], LEAF.key).leaf == later.certificate


def test_many_leftovers_are_counted() -> None:
    others = [make_certificate(f"other {n}").certificate for n in range(8)]
    (note,) = follow(LEAF.certificate, [LEAF.certificate, *others]).notes
    assert note.endswith("CN=other 4; 3 more")


def test_roots_and_cas_are_told_apart() -> None:
    assert [is_ca(made.certificate) for made in (*WHOLE, STRANGER)] == [False, True, True, True, False]
    assert [is_self_signed(made.certificate) for made in (*WHOLE, STRANGER)] == [False, False, False, True, True]
