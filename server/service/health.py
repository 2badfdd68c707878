"""Asks a running coordinator's monitor whether anything is wrong, as a container's system does."""

import http.client
import json

from consilium.shared.errors import UnreachableError
from consilium.shared.service.local_service import HOST

PATIENCE_S = 10.0
LARGEST_ANSWER = 1 << 20


def ask_health(port: int) -> list[str]:
    """Return one sentence for each thing that is wrong, as the monitor on this machine says.

    Raises:
        UnreachableError: no monitor answers at this port.
    """
    # No proxy that the environment names is asked.
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read(LARGEST_ANSWER))
        return [str(sentence) for sentence in told["wrong"]]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise UnreachableError(
            f"no coordinator answers at port {port} of {HOST} ({type(error).__name__}); start it, "
            "or give its --monitor-port"
        ) from None
    finally:
        connection.close()
