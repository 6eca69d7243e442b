"""`mtlskit allowlist list`: the rules of add-ons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlskit.cli.allowlist_view import plain_found, show_found
from mtlskit.cli.chosen import ConfigOption
from mtlskit.cli.heroku_api import AddonOption, addons_of, config_for, named_by, run_with_heroku
from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import print_json, reported

if TYPE_CHECKING:
    from mtlskit.allowlist.gather import Found
    from mtlskit.heroku.client import Heroku

__all__ = ["EPILOG", "list_rules"]

EPILOG = """\b
Examples:
  mtlskit allowlist list --addon postgresql-curved-12345
  mtlskit allowlist list --json | jq -r '.addons[].rules[] | select(.authorized | not) | .cidr'

OWNER names the allowlist, and the id of the host, that made a rule and may remove it again. The token is looked for in
HEROKU_API_KEY first, then where the Heroku CLI keeps it."""


def list_rules(addon: AddonOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show who may connect: every rule of the add-ons, and whether it acts yet."""
    with reported(as_json=as_json):
        from mtlskit.allowlist.gather import gather

        loaded = config_for(config, named=bool(addon), as_json=as_json)
        addons = addons_of(loaded, named=addon)

        async def work(heroku: Heroku) -> tuple[Found, ...]:
            return await gather(heroku.data, heroku.platform, addons, named_by=named_by(loaded, named=addon))

        found = run_with_heroku(loaded, work, as_json=as_json)
        if as_json:
            print_json(plain_found(found))
        else:
            show_found(found)
