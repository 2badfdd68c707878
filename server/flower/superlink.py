"""The coordinator's service process: Flower's SuperLink behind our gate, on one TLS port.

The SuperLink is Flower's own application with its durable database and its node authentication.
It starts no app and installs nothing: the studies run in processes of ours, on the same database.
"""

import logging
import socket
import ssl

import uvicorn
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app

from consilium.server.coordinator.enrolment import EnrolmentService
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.round_records import rounds_file, void_rounds
from consilium.server.flower.authentication import KeyRing
from consilium.server.flower.bundles import LinkBundles
from consilium.server.flower.connections import BoundedConnection
from consilium.server.flower.database_link import Watch, enrol_node, open_link
from consilium.server.flower.gate import Application, Gate, Receive, Scope, Send
from consilium.server.flower.mailboxes import Mailboxes
from consilium.server.flower.short_messages import ShortMessages
from consilium.server.processes.child_process import exit_with_parent
from consilium.server.processes.freed_memory import give_back_freed_memory, remember_start
from consilium.shared.audit.own_log import open_audit

IDLE_CONNECTION_S = 75

log = logging.getLogger(__name__)


def serve(folder: CoordinatorFolder, *, parent: int | None = None) -> None:
    """Serve until the process is told to end.

    Args:
        folder: the coordinator's.
        parent: identifier of a process; this one ends when that one does.
    """
    if parent is not None:
        exit_with_parent(parent)
    give_back_freed_memory()
    logging.getLogger("flwr").handlers.clear()  # or every line would be logged twice
    settings, certificates = folder.settings, folder.certificates
    link = open_link(folder.link_database)
    short = ShortMessages(folder.link_database)  # first, so that its table is there to watch
    mail = Mailboxes(Watch(folder.link_database))
    config = uvicorn.Config(
        _application(folder, link, short, mail),
        host=settings.listen,
        port=settings.port,
        http=BoundedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=2,
        ssl_certfile=certificates.server,
        ssl_keyfile=certificates.server_key,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    remember_start()
    log.info("listening on %s:%d", settings.listen, settings.port)
    _Server(config, mail).run()


class _Server(uvicorn.Server):
    """A server that ends all waiting for messages when it shuts down."""

    def __init__(self, config: uvicorn.Config, mail: Mailboxes) -> None:
        super().__init__(config)
        self._mail = mail

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Release the waiting requests, then shut down."""
        self._mail.close()
        await super().shutdown(sockets)


def _application(
    folder: CoordinatorFolder, link: SqlLinkState, short: ShortMessages, mail: Mailboxes
) -> Application:
    """Flower's application behind the gate."""
    register, identity = folder.register(), folder.identity()
    audit = open_audit(folder)
    gate = Gate(
        _flower(folder),
        enrolment=EnrolmentService(
            register=register,
            identity=identity,
            audit=audit,
            nodes=lambda site, key: enrol_node(link, site, key),
            voids=lambda digest: void_rounds(rounds_file(folder, digest)),
        ),
        keys=KeyRing(register),
        mail=mail,
        bundles=LinkBundles(link, short),
        audit=audit,
    )
    return _with_mail(gate, mail)


def _flower(folder: CoordinatorFolder) -> Application:
    certificates = folder.certificates
    files = (certificates.authority, certificates.server, certificates.server_key)
    authority, server, key = (path.read_bytes() for path in files)
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=folder.settings.listen,
        port=folder.settings.port,
        insecure=False,
        certificates=(authority, server, key),
        superexec_auth_secret=None,
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(certificates.authority),
        ssl_certfile=str(certificates.server),
        ssl_keyfile=str(certificates.server_key),
        database=str(folder.link_database),
        isolation="process",  # starts no executor
        runtime_dependency_install=False,
    )
    application: Application = create_app(config, SuperLinkLifespan)
    return application


def _with_mail(gate: Gate, mail: Mailboxes) -> Application:
    """Look for waiting messages while the server runs."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await gate(scope, receive, send)
            return
        async with mail.open():
            await gate(scope, receive, send)

    return application
