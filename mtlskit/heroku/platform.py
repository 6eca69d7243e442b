"""The platform API: add-ons, who uses them, config vars, and the networks of spaces. Only reads.

Platform API reference: https://devcenter.heroku.com/articles/platform-api-reference; lists come in parts, each with a
`Next-Range` to ask for the next one (its section "Ranges").
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Final, TypeVar

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.config_vars import ConfigVars
from mtlskit.heroku.parsing import Fields, parse_list, parse_object
from mtlskit.heroku.paths import path_of
from mtlskit.heroku.refusals import refusal, rubbish
from mtlskit.heroku.retries import Asker, Call
from mtlskit.heroku.token_forms import clean
from mtlskit.heroku.transport import Answer
from mtlskit.heroku.values import Addon, AddonKind, Attachment, InboundRule, Space, SpaceNat

__all__ = ["PlatformApi"]

_T = TypeVar("_T")

_MOST_PARTS: Final = 100
"""Parts of one list, of 200 entries or more each. More add-ons than that are a server that goes round in circles."""


class PlatformApi:
    """Reads of the platform API. Every call raises `HerokuError`; a 404 is API_NOT_FOUND with what may be meant."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def addon(self, name: str) -> Addon:
        """One add-on, by its name or id."""
        about = f"add-on {clean(name, self._asker.token)}"
        answer = await self._asker.ask(Call("GET", path_of("/addons/{}", name), about), also=(404,))
        if answer.status == 404:
            raise await self._not_found(answer, about, name, "/addons", "heroku addons --all")
        return parse_object(answer, about, self._asker.token, _addon)

    async def addons(self) -> tuple[Addon, ...]:
        """Every add-on that the token's owner can see."""
        return await self._list("/addons", "the add-ons of this account", _addon)

    async def attachments(self, addon: str) -> tuple[Attachment, ...]:
        """The apps that use an add-on."""
        about = f"attachments of {clean(addon, self._asker.token)}"
        return await self._list(path_of("/addons/{}/addon-attachments", addon), about, _attachment)

    async def config_vars(self, app: str) -> ConfigVars:
        """An app's config vars."""
        about = f"config vars of app {clean(app, self._asker.token)}"
        answer = await self._get(path_of("/apps/{}/config-vars", app), about, app, "/apps", "heroku apps --all")
        return ConfigVars(parse_object(answer, about, self._asker.token, Fields.string_map))

    async def space(self, name: str) -> Space:
        """A Private Space."""
        about = f"space {clean(name, self._asker.token)}"
        answer = await self._get(path_of("/spaces/{}", name), about, name, "/spaces", "heroku spaces")
        return parse_object(answer, about, self._asker.token, _space)

    async def space_nat(self, name: str) -> SpaceNat:
        """A space's stable outbound addresses."""
        about = f"outbound addresses of space {clean(name, self._asker.token)}"
        answer = await self._get(path_of("/spaces/{}/nat", name), about, name, "/spaces", "heroku spaces")
        return parse_object(answer, about, self._asker.token, _nat)

    async def inbound_ruleset(self, name: str) -> tuple[InboundRule, ...]:
        """A space's trusted ranges."""
        about = f"trusted ranges of space {clean(name, self._asker.token)}"
        path = path_of("/spaces/{}/inbound-ruleset", name)
        answer = await self._get(path, about, name, "/spaces", "heroku spaces")
        return parse_object(answer, about, self._asker.token, _inbound)

    async def _get(self, path: str, about: str, name: str, siblings: str, command: str) -> Answer:
        answer = await self._asker.ask(Call("GET", path, about), also=(404,))
        if answer.status == 404:
            raise await self._not_found(answer, about, name, siblings, command)
        return answer

    async def _list(self, path: str, about: str, make: Callable[[Fields], _T]) -> tuple[_T, ...]:
        found: list[_T] = []
        seen: set[str] = set()
        headers: dict[str, str] = {}
        while True:
            answer = await self._asker.ask(Call("GET", path, about, headers=headers))
            found += parse_list(answer, about, self._asker.token, make)
            after = answer.next_range.strip()
            if answer.status != 206 or not after:
                return tuple(found)
            if after in seen or len(seen) == _MOST_PARTS or not (after.isascii() and after.isprintable()):
                raise rubbish(answer, about, f"a list that ends ({len(seen) + 1} parts were read)", self._asker.token)
            seen.add(after)
            headers = {"Range": after}

    async def _not_found(self, answer: Answer, about: str, name: str, siblings: str, command: str) -> HerokuError:
        """With the names that may be meant; if they cannot be asked for, with just that."""
        error = refusal(answer, about, self._asker.token)
        if error.code is not Code.API_NOT_FOUND:
            return error
        try:
            names = await self._list(siblings, f"what is there instead of {name}", lambda each: each.text("name"))
        except HerokuError as exc:
            hint = f"see what is there: {command}; what is there could not be asked: {exc.sentence}"
        else:
            near = difflib.get_close_matches(name.casefold(), names, n=3, cutoff=0.5)
            hint = f"{'did you mean ' + ' or '.join(near) + '? ' if near else ''}see what is there: {command}"
            hint = clean(hint, self._asker.token)
        return HerokuError(error.code, error.sentence, hint, status=404, request_id=error.request_id)


def _addon(fields: Fields) -> Addon:
    service, plan = fields.name("addon_service"), fields.name("plan")
    service = service or plan.partition(":")[0]
    kinds = {"heroku-postgresql": AddonKind.POSTGRES, "heroku-kafka": AddonKind.KAFKA}
    return Addon(
        id=fields.text("id"),
        name=fields.text("name"),
        kind=kinds.get(service),
        service=service,
        plan=plan,
        app=fields.name("app"),
        state=fields.text_or("state"),
        config_vars=fields.texts("config_vars"),
    )


def _attachment(fields: Fields) -> Attachment:
    return Attachment(app=fields.name("app"), name=fields.text("name"))


def _space(fields: Fields) -> Space:
    return Space(
        name=fields.text("name"),
        state=fields.text_or("state"),
        shield=fields.flag("shield") is True,
        region=fields.name("region"),
    )


def _nat(fields: Fields) -> SpaceNat:
    return SpaceNat(state=fields.text_or("state"), sources=fields.texts("sources"))


def _inbound(fields: Fields) -> tuple[InboundRule, ...]:
    return tuple(InboundRule(each.text("action"), each.text("source")) for each in fields.objects("rules"))
