"""Pages of the three commands, made from the commands themselves."""

import inspect
from collections.abc import Iterator

import click
import typer

from consilium.client.cli import app as site
from consilium.server.cli import app as coordinator
from consilium.shared.service.command_line import command_of
from consilium.simulations.cli import app as simulate

APPS: dict[str, typer.Typer] = {
    "consilium-simulate": simulate,
    "consilium-site": site,
    "consilium-coordinator": coordinator,
}


def command_pages() -> dict[str, str]:
    """Return a page for each command and one that lists them, by path."""
    pages = {f"commands/{name}.md": _page(name, command_of(app)) for name, app in APPS.items()}
    listed = "\n".join(f"- [{name}]({name}.md): {app.info.help}" for name, app in APPS.items())
    tree = "```{toctree}\n:hidden:\n\n" + "\n".join(APPS) + "\n```\n"
    pages["commands/index.md"] = (
        "# Commands\n\nMade from the commands as they are; `COMMAND --help` says the same.\n\n"
        f"{listed}\n\n{tree}"
    )
    return pages


def _page(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    parts = [f"# {name}", _text(command.help)]
    for below in _commands(command, context):
        parts += [f"## {below.command_path}", _usage(below), _text(below.command.help)]
        parts += [_table(below)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(group: click.Command, context: click.Context) -> Iterator[click.Context]:
    """Yield the context of every command that is not hidden, those of groups included."""
    for name, command in sorted(getattr(group, "commands", {}).items()):
        if command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context)
        if hasattr(command, "commands"):
            yield from _commands(command, below)
        else:
            yield below


def _usage(context: click.Context) -> str:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f"    {context.command_path} {pieces}"


def _table(context: click.Context) -> str:
    rows = []
    for parameter in context.command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        given = parameter.default
        told = _text(getattr(parameter, "help", None)).replace("|", "\\|").replace("\n", " ")
        if parameter.envvar:
            told += f" (or the environment's `{parameter.envvar}`)"
        shown = given not in (None, False, "", ()) and not callable(given)
        rows.append(f"| {_names(parameter, context)} | {told} | {f'`{given}`' if shown else ''} |")
    return "\n".join(["| | | default |", "|---|---|---|", *rows]) if rows else ""


def _names(parameter: click.Parameter, context: click.Context) -> str:
    if isinstance(parameter, click.Argument):
        return f"`{parameter.make_metavar(context)}`"
    names = [f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts]]
    return ", ".join(names)


def _text(told: str | None) -> str:
    """Return a help text as Markdown: Rich's escaped brackets lose their stroke."""
    return inspect.cleandoc(told or "").replace("\\[", "[").replace("<", "\\<")
