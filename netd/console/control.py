"""The verbs that change what the daemon serves: `reload`, `drain`, `resume`."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from netd.console.arguments import ServiceName, connections_of
from netd.console.command import Answer, Command, Context, Failed, Role
from netd.console.table import Cell, Line, Part
from netd.reload import CannotReload
from netd.runtime import Control


def _control(context: Context) -> Control:
    if context.runtime.control is None:
        raise Failed("there is no daemon here to change")
    return context.runtime.control


class Reload(Command):
    """Goes over to the configuration as the file has it now."""

    name = "reload"
    summary = "Read the configuration again and go over to it, or change nothing"
    details = (
        "Everything is prepared before anything changes: a mistake in the file, a port that cannot be opened or a "
        "change that needs a restart leaves all as it is. Services that did not change keep their connections."
    )
    examples = (("reload", "says what was added, changed, removed and left alone"),)
    role = Role.ADMIN
    timeout = 0

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        try:
            difference = await _control(context).reload()
        except CannotReload as error:
            raise Failed("nothing was changed", error.reasons) from None
        document = difference.document()
        parts: list[Part] = [
            Line([Cell(f"{what}: ", "dim"), Cell(", ".join(keys), "warn" if what == "warnings" else "name")], "wrap")
            for what, keys in document.items()
            if keys
        ]
        return Answer(document, parts)


_SERVICE = click.Argument(["service"], type=ServiceName(), required=False)


def _chosen(arguments: Mapping[str, Any], context: Context) -> Sequence[str]:
    if arguments["service"]:
        return [arguments["service"].key]
    return [
        service.key
        for service in context.runtime.services
        if not service.for_operators  # who come back by them
    ]


class Drain(Command):
    """Takes services out."""

    name = "drain"
    summary = "Take services out: no new clients, what is in flight is finished"
    details = (
        "/readyz says so at once. Connections have `drain_timeout` to finish, then they are cut. Without a service: "
        "all of them but this console."
    )
    examples = (("drain echo.plain", "this service alone"), ("drain", "everything but the console"))
    parameters = (_SERVICE,)
    role = Role.OPERATOR
    timeout = 0

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        keys = _chosen(arguments, context)
        for service, connection in connections_of(context.runtime, arguments["service"]):
            if service in keys and connection.id == context.caller.connection:
                raise Failed(f"{service} is how you came in, and would wait for you: netdctl drain {service}")
        try:
            await _control(context).drain_services(keys)
        except CannotReload as error:
            raise Failed(str(error)) from None
        return Answer({"drained": list(keys)}, [f"drained {', '.join(keys)}; resume takes them back in"])


class Resume(Command):
    """Takes services back in."""

    name = "resume"
    summary = "Take drained services back in"
    examples = (("resume echo.plain", "its ports are open again"), ("resume", "everything"))
    parameters = (_SERVICE,)
    role = Role.OPERATOR

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        keys = _chosen(arguments, context)
        try:
            await _control(context).resume_services(keys)
        except CannotReload as error:
            raise Failed(str(error)) from None
        return Answer({"resumed": list(keys)}, [f"serving {', '.join(keys)}"])
