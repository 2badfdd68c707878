"""``web-user``: who may sign in on the operator's page, as viewer or operator."""

from typing import TYPE_CHECKING, Annotated

import typer

from consilium.server.commands.options import DEFAULT_FOLDER, Folder, Operator
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.web.users import Users

VIEWER, OPERATOR = "viewer", "operator"
ROLES = (VIEWER, OPERATOR)

console = Terminal()
web_user = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Persons who may sign in on the operator's page: add, list, remove.",
)


def coordinator_users(folder: "CoordinatorFolder") -> "Users":
    """Return who may sign in at this coordinator."""
    from consilium.shared.web.users import Users

    return Users(folder.path, ROLES, command="consilium-coordinator web-user")


@web_user.command()
def add(
    name: Annotated[str, typer.Argument(help="The person's name.", show_default=False)],
    role: Annotated[str, typer.Option(help="viewer looks, operator acts.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    password_fd: Annotated[
        int | None, typer.Option(min=0, help="Read the password's line from this file descriptor.")
    ] = None,
    operator: Operator = "",
) -> None:
    """Let a person sign in, or give one another role and password; asks for the password."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.web.commands import new_password

    opened = CoordinatorFolder.open(folder)
    password = new_password(password_fd)
    note_act(opened, "web-user add", f"{name} as {role}", by=operator)
    coordinator_users(opened).set(name, role, password)
    console.print(f"{name} may sign in as {role}, on the page of 'consilium-coordinator web'.")


@web_user.command()
def remove(
    name: Annotated[str, typer.Argument(help="The person's name.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    operator: Operator = "",
) -> None:
    """Let a person sign in no longer; if signed in, they are signed out at once."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import CoordinatorFolder

    opened = CoordinatorFolder.open(folder)
    note_act(opened, "web-user remove", name, by=operator)
    coordinator_users(opened).remove(name)
    console.print(f"{name} may sign in no longer.")


@web_user.command(name="list")
def list_users(folder: Folder = DEFAULT_FOLDER) -> None:
    """List who may sign in, and in which role."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.web.commands import user_lines

    for line in user_lines(coordinator_users(CoordinatorFolder.open(folder))):
        console.print(line)
