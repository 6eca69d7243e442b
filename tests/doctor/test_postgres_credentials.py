"""Who logs in for the look inside Postgres."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Credentials, Means
from mtlskit.doctor.gather import from_flags
from mtlskit.doctor.postgres.credentials import Found, find_credentials
from mtlskit.errors import Code

THERE = Endpoint("db.example", 5433)


def _case(**environ: str) -> Case:
    gathered = from_flags({"upstream": [str(THERE)]}, Means(environ=environ))
    return gathered.cases[0]


def _case_of_file(folder: Path, listen: str, **environ: str) -> Case:
    from mtlskit.doctor.gather import from_file

    text = (
        f'[tunnel.db]\nkind = "postgres"\nlisten = "{listen}"\nupstream = "{THERE}"\nidentity = "me"\n'
        '[identity.me]\ncert = "c.pem"\nkey = "k.pem"\n'
    )
    (folder / "mtlskit.toml").write_text(text)
    gathered = from_file(folder / "mtlskit.toml", (), Means(environ=environ))
    assert not gathered.broken, gathered.broken
    return gathered.cases[0]


def _find(**environ: str) -> Found:
    return find_credentials(_case(**environ), THERE, None)


def _told(found: Found) -> tuple[str, str, str | None]:
    assert found.credentials is not None, found.missing
    return found.credentials.user, found.credentials.database, found.credentials.password


def _passfile(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "passes"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_what_heroku_has_told_comes_first() -> None:
    given = Credentials("u", "d", "p", "the add-on")
    assert find_credentials(_case(PGUSER="x", PGPASSWORD="y"), THERE, given).credentials is given


def test_nothing_says_what_to_set() -> None:
    found = _find()
    assert found.credentials is None
    assert found.missing == "no user: set PGUSER and PGPASSWORD"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"PGUSER": "ann"}, ("ann", "ann", None)),
        ({"PGUSER": "ann", "PGDATABASE": "shop", "PGPASSWORD": "s3"}, ("ann", "shop", "s3")),
        ({"PGUSER": "ann", "PGHOST": "DB.example", "PGPORT": "5433"}, ("ann", "ann", None)),
        ({"PGUSER": "ann", "PGHOST": "a,db.example", "PGPORT": "1,5433"}, ("ann", "ann", None)),
        ({"PGUSER": "ann", "PGHOST": "a,db.example", "PGPORT": "5433"}, ("ann", "ann", None)),
        ({"DATABASE_URL": "postgres://u%40:p%3a@db.example:5433/d%20b"}, ("u@", "d b", "p:")),
        ({"DATABASE_URL": "postgresql://db.example:5433/d?user=u&password=p"}, ("u", "d", "p")),
        ({"DATABASE_URL": "postgres://u@db.example:5433"}, ("u", "u", None)),
        ({"OTHER": "postgres://u:p@db.example:5433/d", "DATABASE_URL": "postgres://x:y@db.example/z"}, ("u", "d", "p")),
        ({"A_URL": "postgres://u:p@a:1,db.example:5433/d"}, ("u", "d", "p")),
        ({"DATABASE_URL": "postgres://u:p@db.example:5433/d", "PGUSER": "ann"}, ("ann", "ann", None)),
        ({"USER": "me", "PGPASSWORD": "p"}, ("me", "me", "p")),
    ],
)
def test_the_environment(environ: dict[str, str], told: tuple[str, str, str | None]) -> None:
    assert _told(_find(**environ)) == told


@pytest.mark.parametrize(
    "environ",
    [
        {"USER": "me"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGHOST": "elsewhere"},
        {"PGUSER": "ann", "PGHOST": "db.example"},  # port 5432
        {"PGUSER": "ann", "PGHOST": "/run/postgresql"},
        {"USER": "me", "PGPASSWORD": "p", "PGHOST": "elsewhere"},
        {"DATABASE_URL": "postgres://u:p@db.example/d"},
        {"DATABASE_URL": "postgres://db.example:5433/d"},
        {"DATABASE_URL": "mysql://u:p@db.example:5433/d"},
        {"DATABASE_URL": "postgres://u:p@db.example:x/d"},
        {"DATABASE_URL": "postgres://u:p@db.example:5433/" + "d" * 10_000},
    ],
)
def test_what_is_for_another_server_is_not_used(environ: dict[str, str]) -> None:
    assert _find(**environ).credentials is None


def test_a_password_for_another_server_stays_unused() -> None:
    found = _find(DATABASE_URL="postgres://u@db.example:5433/d", PGHOST="elsewhere", PGPASSWORD="theirs")
    assert _told(found) == ("u", "d", None)


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("db.example:5433:shop:ann:s3\n", "s3"),
        ("# a comment\r\n\r\n*:*:*:*:any\r\n", "any"),
        ("db.example:5432:shop:ann:other\n*:5433:*:ann:right", "right"),
        (r"*:*:*:ann:a\:b\\c:ignored", r"a:b\c"),
        ("*:*:shop:bob:no\n*:*:other:ann:no\n", None),
        ("#*:*:*:*:no\nrubbish\n:::\n", None),
        ("*:*:*:ann:\n", ""),
        ("\x00\xff\\", None),
    ],
)
def test_the_password_file(tmp_path: Path, text: str, password: str | None) -> None:
    found = _find(PGUSER="ann", PGDATABASE="shop", PGPASSFILE=_passfile(tmp_path, text))
    assert _told(found) == ("ann", "shop", password)


def test_the_home_folder_and_a_rule_that_names_the_user(tmp_path: Path) -> None:
    (tmp_path / ".pgpass").write_text("*:*:*:bob:no\ndb.example:5433:*:ann:s3\n")
    (tmp_path / ".pgpass").chmod(0o600)
    found = _find(HOME=str(tmp_path))
    assert _told(found) == ("ann", "ann", "s3")
    assert found.credentials is not None
    assert found.credentials.source == f"{tmp_path}/.pgpass, line 2"
    assert "s3" not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_password_file_that_others_may_read_is_no_help(tmp_path: Path, mode: int) -> None:
    path = _passfile(tmp_path, "*:*:*:*:s3\n", mode)
    found = _find(PGUSER="ann", PGPASSFILE=path)
    assert _told(found) == ("ann", "ann", None)
    assert found.trouble is not None
    assert found.trouble.code is Code.KEY_EXPOSED
    assert path in found.trouble.sentence
    assert _find(PGUSER="ann", PGPASSWORD="p", PGPASSFILE=path).trouble is None  # not wanted


def test_a_password_file_that_is_none(tmp_path: Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "absent"), "a\0b"):
        found = _find(PGUSER="ann", PGPASSFILE=path)
        assert _told(found) == ("ann", "ann", None)
        assert found.trouble is None


def test_what_leads_to_the_tunnel_is_meant_for_it(tmp_path: Path) -> None:
    url = "postgres://u:p@localhost:6432/d"
    case = _case_of_file(tmp_path, "127.0.0.1:6432", DATABASE_URL=url, PGHOST="elsewhere")
    assert _told(find_credentials(case, THERE, None)) == ("u", "d", "p")
    case = _case_of_file(tmp_path, "127.0.0.1:6432", PGUSER="ann", PGHOST="localhost", PGPORT="6432")
    assert _told(find_credentials(case, THERE, None)) == ("ann", "ann", None)
