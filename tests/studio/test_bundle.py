"""The page that is committed is the one that its sources make."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from loratelier.studio.app import PAGE

WEB = Path(__file__).parents[2] / "web"
SOURCES = ("index.html", "package-lock.json", "vite.config.ts", "src", "public")


def sources():
    for name in SOURCES:
        path = WEB / name
        found = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        yield from (each.relative_to(WEB).as_posix() for each in found)


def test_the_bundle_was_built_from_the_sources_that_are_here():
    digest = hashlib.sha256()
    for name in sorted(sources()):
        digest.update(name.encode() + b"\0" + (WEB / name).read_bytes() + b"\0")
    stamped = (PAGE / "sources.sha256").read_text(encoding="ascii").strip()
    assert stamped == digest.hexdigest(), "build the page: make web"


@pytest.mark.skipif(shutil.which("node") is None, reason="Node builds the page")
@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="npm ci was not run in web/")
@pytest.mark.long
def test_a_fresh_build_is_the_committed_bundle_to_the_byte(tmp_path):
    import subprocess

    copy = tmp_path / "web"
    shutil.copytree(WEB, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(WEB / "node_modules")
    subprocess.run(["node", "node_modules/vite/bin/vite.js", "build"], cwd=copy, check=True)
    built = tmp_path / "src" / "loratelier" / "studio" / "page"
    files = {each.relative_to(PAGE) for each in PAGE.rglob("*") if each.is_file()}
    assert files == {each.relative_to(built) for each in built.rglob("*") if each.is_file()}
    for name in files:
        assert (built / name).read_bytes() == (PAGE / name).read_bytes(), name


def test_the_page_has_nothing_inline_and_asks_nobody_else():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert "style=" not in html
    assert re.findall(r"""(?:src|href)="(?!/assets/)""", html) == []
    style = (PAGE / "assets" / "page.css").read_text(encoding="utf-8")
    assert "http" not in style
    assert "@import" not in style


def test_both_languages_leave_the_same_places_open():
    pattern = re.compile(r'^  "([^"]+)": "(.*)",$', re.MULTILINE)
    en, ru = (
        dict(pattern.findall((WEB / "src/lib" / name).read_text(encoding="utf-8")))
        for name in ("en.ts", "ru.ts")
    )
    assert en.keys() == ru.keys()
    for key, text in en.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", ru[key])), key
