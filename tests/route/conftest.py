"""Corpora for the stages by sense, built once."""

import pytest

from tests.route.adapters import ASKED, write_corpus


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for name in ASKED:
        write_corpus(folder, name)
    return folder
