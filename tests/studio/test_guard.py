"""Who may speak to the server."""

import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import TOKEN


@pytest.fixture
def stranger(app):
    return TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False)


def test_without_the_token_nothing_is_told(stranger):
    assert stranger.get("/").status_code == 401
    assert stranger.get("/api/store").status_code == 401
    assert stranger.get("/assets/page.js").status_code == 401
    assert stranger.get("/", params={"token": TOKEN + "x"}).status_code == 401


def test_the_printed_address_becomes_a_cookie_and_leaves_the_address_bar(stranger):
    first = stranger.get("/", params={"token": TOKEN})
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/store").json()["adapters"][0]["name"] == "critic"


def test_two_studios_in_one_browser_keep_their_cookies_apart(app):
    names = set()
    for port in (8000, 8001):
        client = TestClient(app, base_url=f"http://127.0.0.1:{port}", follow_redirects=False)
        names |= set(client.get("/", params={"token": TOKEN}).cookies)
    assert len(names) == 2


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_a_name_that_was_pointed_here_is_turned_away(page, host):
    assert page.get("/api/store", headers={"host": host}).status_code == 421
    assert page.get("/", params={"token": TOKEN}, headers={"host": host}).status_code == 421


def test_another_site_may_not_ask_in_our_name(page):
    theirs = {"origin": "http://evil.example"}
    assert page.post("/api/dialogue/reset", headers=theirs).status_code == 403
    ours = {"origin": "http://127.0.0.1:8000"}
    assert page.post("/api/dialogue/reset", headers=ours).status_code == 200


def test_the_page_may_run_nothing_that_is_not_its_own_file(page):
    policy = page.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
