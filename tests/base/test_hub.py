"""Bases of the hub, from a cache such as the hub's client leaves it."""

import shutil

import pytest

from loratelier import InputError, load_base
from loratelier.base import hub

COMMIT = "0" * 40


@pytest.fixture
def cache(tiny_base_dir, tmp_path, monkeypatch):
    """A cache that holds org/tiny; no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    stored = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny_base_dir, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    return stored


def list_repository(stored, *names):
    """Leave the listing of the whole repository, as fetching a part of it does."""
    tree = pytest.importorskip("huggingface_hub._tree_cache")
    entries = {
        name: tree.TreeCacheEntry.from_json({"size": 1, "blob_id": "1" * 40}) for name in names
    }
    tree.write_tree_cache(str(stored), COMMIT, entries)


def test_a_fetched_base_loads_without_a_network(cache, tiny_base, home):
    held = [path.name for path in (cache / "snapshots" / COMMIT).iterdir()]
    # These are in every repository, and fetching leaves them out.
    list_repository(cache, *held, "README.md", ".gitattributes", "onnx/model.onnx")
    base = load_base("org/tiny")
    assert base.fingerprint == tiny_base.fingerprint
    assert base.name == "org/tiny"
    assert list(hub.cached_models()) == ["org/tiny"]


def test_a_base_fetched_half_way_counts_as_missing(cache, home):
    held = [path.name for path in (cache / "snapshots" / COMMIT).iterdir()]
    list_repository(cache, *held, "special_tokens_map.json")
    with pytest.raises(InputError, match="'org/tiny' is not on this machine.*Connect once"):
        load_base("org/tiny")


def test_a_base_without_all_its_shards_counts_as_missing(cache, tiny_base, home):
    folder = cache / "snapshots" / COMMIT
    (folder / "model.safetensors").unlink()
    tiny_base.model.save_pretrained(folder, max_shard_size="100KB")
    assert load_base("org/tiny").fingerprint == tiny_base.fingerprint
    next(folder.glob("model-0000*")).unlink()
    with pytest.raises(InputError, match="'org/tiny' is not on this machine.*Connect once"):
        load_base("org/tiny")
