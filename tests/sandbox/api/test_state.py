"""The state on the disk, and whom it lets in."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mtlskit.errors import Code, ConfigError, IdentityError, SandboxError
from mtlskit.sandbox.api.answers import ApiRefusal
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.api.state import ApiState
from tests.support.sandbox_api import ADDON, COMMON, KAFKA, SetClock, open_state


def test_a_fresh_one_lets_this_machine_in(tmp_path: Path) -> None:
    state = open_state(tmp_path, SetClock())
    assert [addon.name for addon in state.world.addons] == [ADDON, KAFKA, COMMON]
    assert [state.admits(address).allowed for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == [True] * 3
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o600


def test_a_bare_one_lets_nobody_in(tmp_path: Path) -> None:
    state = ApiState.open(tmp_path / "api.json", addon=ADDON, bare=True)
    assert state.admits("127.0.0.1").reason == f"the mTLS endpoint of {ADDON} is not enabled"
    assert not any(addon.rules for addon in state.world.addons)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.2", "::ffff:127.0.0.2", "203.0.113.7", "::", "2001:db8::1", "fe80::1%eth0", "", "nonsense"],
)
def test_nobody_else_comes_in(tmp_path: Path, address: str) -> None:
    answer = open_state(tmp_path, SetClock()).admits(address)
    assert not answer.allowed
    assert answer.reason
    assert not answer.reason.endswith(".")


def test_what_was_changed_is_found_again(tmp_path: Path) -> None:
    clock = SetClock()
    state = open_state(tmp_path, clock)
    state.change_addon(state.first, rules=())
    again = open_state(tmp_path, clock)
    assert again.world == state.world
    assert not again.admits("127.0.0.1").allowed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.json"]


def test_more_addons_are_made_and_none_is_taken_away(tmp_path: Path) -> None:
    assert len(open_state(tmp_path, SetClock()).world.addons) == 3
    grown = open_state(tmp_path, SetClock(), addons=3)
    assert [addon.name for addon in grown.world.addons][3:] == [f"{ADDON}-2", f"{ADDON}-3"]
    assert grown.first.name == ADDON
    assert open_state(tmp_path, SetClock()).world == grown.world
    assert len({addon.attachment for addon in grown.world.addons}) == 5


def test_a_change_that_cannot_be_written_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = open_state(tmp_path, SetClock())
    before = state.world

    def full(path: Path, data: bytes, **_: object) -> None:
        raise IdentityError(Code.FILE_UNWRITABLE, f"{path}: no room", "make some")

    monkeypatch.setattr("mtlskit.sandbox.api.state.write_file", full)
    with pytest.raises(IdentityError):
        state.change_addon(state.first, rules=())
    assert state.world is before
    assert state.admits("127.0.0.1").allowed


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"format": 2}', b'{"addons": [{"id": 7}]}', b"\xff"])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "api.json").write_bytes(data)
    with pytest.raises(SandboxError) as caught:
        open_state(tmp_path, SetClock())
    assert caught.value.code is Code.SANDBOX_DIR
    assert "mv " in caught.value.hint
    assert (tmp_path / "api.json").read_bytes() == data


def test_a_rule_that_is_none_is_found_when_the_file_is_read(tmp_path: Path) -> None:
    state = open_state(tmp_path, SetClock())
    state.path.write_text(state.path.read_text().replace("127.0.0.1/32", "127.0.0.1/99"))
    with pytest.raises(SandboxError, match=r"addons\.0\.rules\.0\.cidr"):
        open_state(tmp_path, SetClock())


def test_a_move_changes_what_the_world_sees(tmp_path: Path) -> None:
    state = open_state(tmp_path, SetClock())
    state.move("127.0.0.1", "127.0.0.77")
    state.move("127.0.0.88", "127.0.0.1")
    assert [state.external(address) for address in ("127.0.0.1", "::1", "127.0.0.2")] == [
        "127.0.0.77",
        "127.0.0.77",
        "127.0.0.2",
    ]
    assert not state.admits("127.0.0.1").allowed
    assert state.admits("127.0.0.88").allowed
    for pair in (("nowhere", "127.0.0.1"), ("127.0.0.1", "2001:db8::1")):
        with pytest.raises(ApiRefusal, match="IPv4"):
            state.move(*pair)


@pytest.mark.parametrize("status", ["Provisioning", "Deprovisioning", "not enabled"])
def test_without_a_working_endpoint_nobody_comes_in(tmp_path: Path, status: str) -> None:
    clock = SetClock()
    state = open_state(tmp_path, clock)
    assert state.first.endpoint is not None
    gone = state.first.endpoint.model_copy(update={"gone_at": clock.now})
    later = state.first.endpoint.model_copy(update={"ready_at": clock.now.replace(hour=20)})
    going = later.model_copy(update={"gone_at": clock.now.replace(hour=21)})
    state.change_addon(
        state.first, endpoint={"Provisioning": later, "Deprovisioning": going, "not enabled": gone}[status]
    )
    assert state.admits("127.0.0.1").reason == f"the mTLS endpoint of {ADDON} is {status}"


@pytest.mark.parametrize("factor", [0, -1, float("inf"), float("nan")])
def test_a_factor_that_speeds_up_nothing_is_refused(tmp_path: Path, factor: float) -> None:
    with pytest.raises(ValueError, match="speed up"):
        ApiState.open(tmp_path / "api.json", addon=ADDON, speed_up=factor)
    with pytest.raises(ConfigError, match="--speed-up"):
        ApiOptions(speed_up=factor)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("latency", -1), ("latency", 601), ("addons", 0), ("addons", 101), ("faults", ("nonsense",))],
)
def test_options_that_cannot_be_are_refused(flag: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        ApiOptions(**{flag: value})  # type: ignore[arg-type]  # one flag after the other
    assert caught.value.code is Code.CONFIG_BAD_VALUE
    assert f"--{flag.rstrip('s') if flag == 'faults' else flag}" in str(caught.value)
