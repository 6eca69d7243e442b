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


def _case_of_file(folder: Path, listen: str, more: str = "", **environ: str) -> Case:
    from mtlskit.doctor.gather import from_file

    text = (
        f'[tunnel.db]\nkind = "postgres"\nlisten = "{listen}"\nupstream = "{THERE}"\nidentity = "me"\n'
        f'{more}[identity.me]\ncert = "c.pem"\nkey = "k.pem"\n'
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
        ({"DATABASE_URL": "postgres://u:p@db.example:5433/d", "PGUSER": "ann"}, ("u", "d", "p")),
        (
            {
                "DATABASE_URL": "postgres://u:p@db.example:5433/d",
                "PGUSER": "a",
                "PGHOST": "db.example",
                "PGPORT": "5433",
            },
            ("a", "a", None),
        ),
        ({"DATABASE_URL": "postgres://u:p@elsewhere/d", "PGUSER": "ann"}, ("ann", "ann", None)),
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
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGHOSTADDR": "10.0.0.9"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGHOSTADDR": "10.0.0.9", "PGPORT": "5433"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGHOST": "elsewhere", "PGHOSTADDR": "10.0.0.9"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGSERVICE": "production"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGSERVICE": "production", "PGHOST": "db.example", "PGPORT": "5433"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGPORT": "6543"},
        {"PGUSER": "ann", "PGPASSWORD": "p", "PGPORT": "5433,6543"},
        {"USER": "me", "PGPASSWORD": "p", "PGHOSTADDR": "10.0.0.9"},
        {"USER": "me", "PGPASSWORD": "p", "PGSERVICE": "production"},
        {"DATABASE_URL": "postgres://u:p@db.example:5433/d?service=production"},
        {"DATABASE_URL": "postgres://u:p@db.example:5433/d?hostaddr=10.0.0.9"},
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


HERE = {"PGHOST": "db.example", "PGPORT": "5433"}
OTHER = '[tunnel.other]\nkind = "postgres"\nlisten = "127.0.0.1:7432"\nupstream = "x:1"\nidentity = "me"\n'


@pytest.mark.parametrize(
    ("environ", "doubted"),
    [
        ({"PGUSER": "ann", "PGPASSWORD": "p"}, False),
        ({"PGUSER": "ann", "PGPASSWORD": "p", "PGPORT": "5433"}, False),
        ({"PGUSER": "ann", "PGPASSWORD": "p", **HERE}, False),
        ({"PGUSER": "ann", "PGPASSWORD": "p", "PGHOSTADDR": "10.0.0.9", **HERE}, True),
        ({"USER": "me", "PGPASSWORD": "p", **HERE}, False),
        ({"USER": "me", "PGPASSWORD": "p"}, True),
        ({"USER": "me", "PGPASSWORD": "p", "DATABASE_URL": "postgres://a:b@other.example/d"}, True),
        ({"DATABASE_URL": "postgres://a:b@db.example:5433/d"}, False),
        ({"DATABASE_URL": "postgres://a@db.example:5433/d", "PGPASSWORD": "p"}, False),
    ],
)
def test_where_it_may_be_the_password_of_another_server(environ: dict[str, str], doubted: bool) -> None:
    found = _find(**environ)
    assert found.credentials is not None
    assert bool(found.doubt) is doubted


def test_an_address_that_is_the_server_s_own() -> None:
    there = Endpoint("10.0.0.9", 5432)
    found = find_credentials(_case(PGUSER="ann", PGPASSWORD="p", PGHOSTADDR="10.0.0.9", PGHOST="db"), there, None)
    assert _told(found) == ("ann", "ann", "p")
    assert not found.doubt


def test_the_system_s_user_and_the_url_of_another_server() -> None:
    assert not _find(USER="me", PGPASSWORD="p", DATABASE_URL="postgres://a:b@other.example/d").sure
    assert _find(USER="me", PGPASSWORD="p").sure


@pytest.mark.parametrize(
    ("line", "doubted"),
    [("db.example:5433", False), ("db.example:*", False), ("*:*", True), ("*:5433", True)],
)
def test_a_rule_for_any_host(tmp_path: Path, line: str, doubted: bool) -> None:
    found = _find(PGUSER="ann", PGPASSFILE=_passfile(tmp_path, f"{line}:*:ann:s3\n"))
    assert _told(found) == ("ann", "ann", "s3")
    assert bool(found.doubt) is doubted


def test_several_tunnels_and_one_password(tmp_path: Path) -> None:
    path = _passfile(tmp_path, f"{THERE}:*:ann:s3\n")
    for environ, doubted in (
        ({"PGUSER": "ann", "PGPASSWORD": "p"}, True),
        ({"PGUSER": "ann", "PGPASSWORD": "p", **HERE}, False),
        ({"DATABASE_URL": f"postgres://ann@{THERE}/d", "PGPASSWORD": "p"}, True),
        ({"DATABASE_URL": f"postgres://ann:p@{THERE}/d"}, False),
        ({"PGUSER": "ann", "PGPASSFILE": path}, False),  # the password's own line names the server
    ):
        found = find_credentials(_case_of_file(tmp_path, "127.0.0.1:6432", OTHER, **environ), THERE, None)
        assert found.credentials is not None
        assert found.credentials.password
        assert bool(found.doubt) is doubted, environ


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgres://u:p@localhost:5432/d"},
        {"PGUSER": "u", "PGDATABASE": "d", "PGPASSWORD": "p", "PGHOST": "localhost"},
        {"PGUSER": "u", "PGDATABASE": "d", "PGPASSWORD": "p", "PGHOSTADDR": "127.0.0.1", "PGHOST": "db.example"},
        {"PGUSER": "u", "PGDATABASE": "d", "PGPASSWORD": "p", "PGPORT": "5432"},
    ],
)
def test_the_tunnel_s_door_may_be_a_server_of_this_host(tmp_path: Path, environ: dict[str, str]) -> None:
    found = find_credentials(_case_of_file(tmp_path, "127.0.0.1:5432", **environ), THERE, None)
    assert _told(found) == ("u", "d", "p")
    assert "the tunnel's own port" in found.doubt
    assert found.sure  # clients that are told this come through the tunnel


def test_the_server_s_own_name_comes_before_the_door(tmp_path: Path) -> None:
    urls = {"DATABASE_URL": "postgres://l:l@localhost:6432/d", "OTHER": f"postgres://u:p@{THERE}/d"}
    found = find_credentials(_case_of_file(tmp_path, "127.0.0.1:6432", **urls), THERE, None)
    assert (_told(found), found.doubt) == (("u", "d", "p"), "")
    path = _passfile(tmp_path, f"localhost:6432:*:ann:local\n{THERE}:*:ann:s3\n")
    for environ in ({"PGUSER": "ann"}, {}):
        case = _case_of_file(tmp_path, "127.0.0.1:6432", PGPASSFILE=path, **environ)
        found = find_credentials(case, THERE, None)
        assert (_told(found), found.doubt) == (("ann", "ann", "s3"), "")
    path = _passfile(tmp_path, "localhost:6432:*:ann:local\n")
    found = find_credentials(_case_of_file(tmp_path, "127.0.0.1:6432", PGPASSFILE=path), THERE, None)
    assert _told(found) == ("ann", "ann", "local")
    assert found.doubt


def test_a_socket_is_the_door_by_its_port(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/.s.PGSQL.6432"
    environ = {"PGUSER": "ann", "PGPASSWORD": "p", "PGHOST": str(tmp_path)}
    found = find_credentials(_case_of_file(tmp_path, listen, PGPORT="6432", **environ), THERE, None)
    assert _told(found) == ("ann", "ann", "p")
    assert found.doubt
    found = find_credentials(_case_of_file(tmp_path, listen, **environ), THERE, None)
    assert found.credentials is None  # another server's socket in the same folder


def test_what_leads_to_the_tunnel_is_meant_for_it(tmp_path: Path) -> None:
    url = "postgres://u:p@localhost:6432/d"
    case = _case_of_file(tmp_path, "127.0.0.1:6432", DATABASE_URL=url, PGHOST="elsewhere")
    assert _told(find_credentials(case, THERE, None)) == ("u", "d", "p")
    case = _case_of_file(tmp_path, "127.0.0.1:6432", PGUSER="ann", PGHOST="localhost", PGPORT="6432")
    assert _told(find_credentials(case, THERE, None)) == ("ann", "ann", None)
