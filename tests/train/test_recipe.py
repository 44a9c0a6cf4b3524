import pytest

from loratelier.kit.errors import InputError
from loratelier.train.recipe_file import load_recipe, parse_set

GIVEN = {"base": "demo", "corpus": "rows", "name": "mine"}


def test_a_misspelt_key_names_the_nearest(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("base: demo\ncorpus: rows\nname: mine\nlearnin_rate: 1e-4\n")
    with pytest.raises(
        InputError, match=r"r\.yaml: unknown key 'learnin_rate'. Did you mean 'learning_rate'\?"
    ):
        load_recipe(path)


def test_a_misspelt_key_inside_a_group_is_named_too():
    with pytest.raises(InputError, match="unknown key 'drift_buget'.*'drift_budget'"):
        load_recipe(None, GIVEN | {"guards.drift_buget": 0.1})


def test_numbers_without_a_point_are_numbers(tmp_path):
    # YAML 1.1 reads 1e-4 as text: a person who writes it means the number.
    path = tmp_path / "r.yaml"
    path.write_text("base: demo\ncorpus: rows\nname: mine\nlearning_rate: 1e-4\n")
    assert load_recipe(path).learning_rate == 1e-4
    assert load_recipe(path, parse_set(["learning_rate=2e-3"])).learning_rate == 2e-3


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0-3,7", (0, 1, 2, 3, 7)),
        ("5", (5,)),
        (5, (5,)),
        ([3, 1, 1], (1, 3)),
        ("all", None),
    ],
)
def test_layers_as_people_write_them(written, read):
    assert load_recipe(None, GIVEN | {"layers": written}).layers == read


def test_layers_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="layers: 'last' is neither a layer number nor a range"):
        load_recipe(None, GIVEN | {"layers": "last"})


def test_targets_as_people_write_them():
    assert load_recipe(None, GIVEN | parse_set(["targets=q,v"])).targets == ("q", "v")
    assert load_recipe(None, GIVEN | parse_set(["targets=[q, down]"])).targets == ("q", "down")
    assert len(load_recipe(None, GIVEN | {"targets": "all"}).targets) == 7


def test_the_drift_budget_may_be_off():
    assert load_recipe(None, GIVEN | parse_set(["guards.drift_budget=off"])).guards == (
        load_recipe(None, GIVEN | {"guards": {"drift_budget": None}}).guards
    )


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"holdout": 1}, {"learning_rate": -1}, {"epochs": "many"}]
)
def test_a_value_out_of_range_names_its_key(change):
    with pytest.raises(InputError, match=next(iter(change))):
        load_recipe(None, GIVEN | change)


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="the key 'corpus' is missing"):
        load_recipe(None, {"base": "demo", "name": "mine"})


def test_a_corpus_beside_the_recipe_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    (tmp_path / "r.yaml").write_text("base: demo\ncorpus: rows\nname: mine\n")
    monkeypatch.chdir("/")
    assert load_recipe(tmp_path / "r.yaml").corpus == tmp_path / "rows"
    (tmp_path / "prose.txt").write_text("Rain.")
    guards = "guards:\n  replay: 0.1\n  replay_from: prose.txt\n"
    (tmp_path / "r.yaml").write_text(f"base: demo\ncorpus: rows\nname: mine\n{guards}")
    assert load_recipe(tmp_path / "r.yaml").guards.replay_from == tmp_path / "prose.txt"


@pytest.mark.parametrize("text", ["- a\n- b\n", "base: [", "just words"])
def test_a_file_that_is_no_recipe_is_named(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")


def test_set_needs_an_equals_sign():
    with pytest.raises(InputError, match="--set rank has no '='"):
        parse_set(["rank"])
