"""The shop's processes, people and models, for the how-tos."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign.shop.carrier import Carrier
from tests.foreign.shop.site import Person, Process, Shop, SignIn, cluster, web
from tests.servers.model import ModelUnderTest, Reply

# The project's own tests run in the project; the how-tos need a project with the wheel.
collect_ignore_glob = ["project/*"] if "SHOP_FOLDER" in os.environ else ["project/*", "howto/*"]


@pytest.fixture(scope="session")
def shop() -> Shop:
    """Return the project that `python -m tests.foreign.shop` has made."""
    return Shop(Path(os.environ["SHOP_FOLDER"]))


@pytest.fixture(scope="session")
def models() -> Iterator[ModelUnderTest]:
    """Return the server of the shop's models."""
    with ModelUnderTest() as server:
        yield server


@pytest.fixture
def model(models: ModelUnderTest) -> ModelUnderTest:
    """Return the server of the shop's models, with a script and a journal of this test's own."""
    models.answer_with(Reply(text="Hello."))
    models.journal.clear()
    return models


@pytest.fixture(scope="session")
def carriers() -> Iterator[Carrier]:
    """Return the carrier's service."""
    server = Carrier()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def carrier(carriers: Carrier) -> Carrier:
    """Return the carrier's service, which has had no request."""
    carriers.keys.clear()
    carriers.failures = 0
    return carriers


@pytest.fixture(scope="session")
def cluster_of_session(shop: Shop, models: ModelUnderTest, carriers: Carrier) -> Iterator[Process]:
    """Return the running workers."""
    running = cluster(shop, OPENAI_API_BASE=models.url, OPENAI_API_KEY="none", SHOP_CARRIER_URL=carriers.url)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def workers(cluster_of_session: Process) -> Iterator[Process]:
    """Return the running workers, which a test may kill; they run again for the next one."""
    yield cluster_of_session
    if not cluster_of_session.runs:
        cluster_of_session.start()


@pytest.fixture(scope="session")
def daphne(shop: Shop) -> Iterator[str]:
    """Return the URL of the site under daphne."""
    with web(shop, "daphne") as url:
        yield url


@pytest.fixture(scope="session")
def uvicorn(shop: Shop) -> Iterator[str]:
    """Return the URL of the site under uvicorn."""
    with web(shop, "uvicorn") as url:
        yield url


@pytest.fixture(params=["daphne", "uvicorn"])
def each_site(request: pytest.FixtureRequest, workers: Process) -> str:
    """Return the URL of the site under one web server and then the other."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def site(daphne: str, workers: Process) -> str:
    """Return the URL of the site."""
    return daphne


@pytest.fixture
def sign_in() -> Iterator[SignIn]:
    """Return a function that signs somebody in, at one of the sites; the connections end with the test."""
    people: list[Person] = []

    def signed_in(site: str, name: str) -> Person:
        people.append(Person(site, name))
        return people[-1]

    yield signed_in
    for person in people:
        person.http.close()


@pytest.fixture
def ada(sign_in: SignIn, site: str) -> Person:
    """Return a customer, a member of Acme."""
    return sign_in(site, "ada")


@pytest.fixture
def bob(sign_in: SignIn, site: str) -> Person:
    """Return a member of Acme who may approve refunds."""
    return sign_in(site, "bob")


@pytest.fixture
def cem(sign_in: SignIn, site: str) -> Person:
    """Return another member of Acme."""
    return sign_in(site, "cem")


@pytest.fixture
def eve(sign_in: SignIn, site: str) -> Person:
    """Return a member of another organisation."""
    return sign_in(site, "eve")
