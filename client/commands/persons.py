"""Who acts at a site: a person who signs in with a password, or else the account of the machine.

``web-user`` adds, lists and removes persons.
"""

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder
from consilium.shared.errors import SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.web.users import Users

STEWARD, CLINICIAN, IT = "steward", "clinician", "it"
ROLES = (STEWARD, CLINICIAN, IT)

As = Annotated[
    str,
    typer.Option("--as", help="Your name as 'web-user' knows it; your password is asked for."),
]
PasswordFd = Annotated[
    int | None, typer.Option(min=0, help="Read the password's line from this file descriptor.")
]
console = Terminal()
web_user = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Persons who may sign in on the site's page: add, list, remove.",
)


def site_users(folder: "SiteFolder") -> "Users":
    """Return who may sign in at this site."""
    from consilium.shared.web.users import Users

    return Users(folder.path, ROLES, command="consilium-site web-user")


def person(folder: "SiteFolder", named: str, password_fd: int | None) -> str:
    """Return who decides, as the audit log names them: a steward, or the account of the machine.

    Raises:
        SettingsError: name, password or role is wrong, or this site's policy asks for more persons
            than one and nobody is named.
    """
    from consilium.shared.web.commands import read_password

    if not named:
        if folder.policy().approvals_needed > 1:
            raise SettingsError(
                f"this site's policy asks for {folder.policy().approvals_needed} persons; say who "
                "you are with --as NAME, one of 'consilium-site web-user list'"
            )
        return getpass.getuser()
    user = site_users(folder).check(named, read_password(password_fd))
    if user is None:
        raise SettingsError(f"--as {named[:60]}: name or password is wrong; try again")
    if user.role != STEWARD:
        raise SettingsError(f"--as {user.name}: is {user.role}, and only a steward decides")
    return f"{user.name} ({user.role})"


@web_user.command()
def add(
    name: Annotated[str, typer.Argument(help="The person's name.", show_default=False)],
    role: Annotated[
        str,
        typer.Option(help="steward decides, clinician reads, it operates.", show_default=False),
    ],
    folder: Folder = DEFAULT_FOLDER,
    password_fd: PasswordFd = None,
) -> None:
    """Let a person sign in, or give one another role and password; asks for the password."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.audit.events import Acted
    from consilium.shared.audit.own_log import open_audit
    from consilium.shared.web.commands import new_password

    opened = SiteFolder.open(folder)
    audit = open_audit(opened)
    users = site_users(opened)
    users.set(name, role, new_password(password_fd))
    found = users.find(name)
    whom = name if found is None else found.name
    audit.append(Acted(by=getpass.getuser(), act="web-user add", subject=f"{whom} as {role}"))
    console.print(f"{whom} may sign in as {role}, on the page of 'consilium-site web'.")


@web_user.command()
def remove(
    name: Annotated[str, typer.Argument(help="The person's name.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Let a person sign in no longer; if signed in, they are signed out at once."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.audit.events import Acted
    from consilium.shared.audit.own_log import open_audit

    opened = SiteFolder.open(folder)
    audit = open_audit(opened)
    site_users(opened).remove(name)
    audit.append(Acted(by=getpass.getuser(), act="web-user remove", subject=name[:500]))
    console.print(f"{name} may sign in no longer.")


@web_user.command(name="list")
def list_users(folder: Folder = DEFAULT_FOLDER) -> None:
    """List who may sign in, and in which role."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.web.commands import user_lines

    for line in user_lines(site_users(SiteFolder.open(folder))):
        console.print(line)
