"""What several tests of sources share."""

from collections.abc import Iterator

import pytest

from tests.client.sources.postgresql import Server, running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server, started once in each process of the tests."""
    with running() as server:
        yield server
