import pytest

from tests.serve.api.fake import FakeEngine
from tests.serve.api.harness import client, serving


@pytest.fixture
def engine(tiny_base):
    return FakeEngine(tiny_base)


@pytest.fixture
def url(tiny_base, engine, stored):
    with serving(tiny_base, engine) as url:
        yield url


@pytest.fixture
def openai(url):
    return client(url)
