"""The four questions: what is offered, what is written, and that training takes it."""

import json

import pytest
from typer.testing import CliRunner

from loratelier.base.known import known_bases
from loratelier.base.plan.figures import gpu
from loratelier.cli.app import app
from loratelier.kit.errors import InputError
from loratelier.train import load_recipe
from loratelier.train.advice import Texts, offers, recommended

# Each base is walked without its weights, which takes seconds: a few stand for all.
FEW = [each for each in known_bases() if "7B" in each.spec or "0.5B" in each.spec]
FEW = [*known_bases()[:1], *(each for each in FEW if "1.7B" not in each.spec)]

ENGLISH = "She waited for the ferry in the rain, and the ferry waited for nobody at all. " * 40
RUSSIAN = "Она ждала паром под дождём, а паром не ждал никого, и в этом была вся их дружба. " * 40


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(6):
        (folder / f"en{number}.md").write_text(f"# Day {number}\n\n{ENGLISH}{number}")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["init", *arguments])


def test_english_notes_get_a_corpus_and_a_recipe_that_training_takes(home, notes, tmp_path):
    done = run("--texts", str(notes), "--base", "demo", "-o", str(tmp_path), "--json", "--yes")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["languages"] == ["en"]
    # About four characters a token; the demo base's own count is within a third of the estimate.
    assert told["tokens"] == pytest.approx(told["characters"] / 4, rel=0.01)
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.base, recipe.name) == ("demo", "mine")
    assert recipe.corpus == tmp_path / "mine-corpus"
    assert (tmp_path / "mine-corpus" / "rows.parquet").exists()
    again = run("--texts", str(notes), "--base", "demo", "-o", str(tmp_path), "--yes")
    assert isinstance(again.exception, InputError)  # nothing is written over


def test_russian_texts_are_never_given_to_a_base_that_reads_none():
    texts = Texts(50, 200_000, 60_000, ("ru",))
    found = offers(texts, gpu("h100"), FEW)
    chosen = recommended(found, hours=2)
    assert "ru" in chosen.base.languages
    assert all(offer.reads for offer in found[: sum(offer.reads for offer in found)])
    # The largest that fits and is quick enough: none of the smaller ones is preferred to it.
    sizes = [offer.memory for offer in found if offer.reads and offer.fits]
    assert chosen.memory == max(sizes)


def test_less_time_means_a_smaller_base_and_a_small_machine_four_bits():
    texts = Texts(5000, 40_000_000, 12_000_000, ("en", "ru"))
    small, large = gpu("t4"), gpu("h100")
    quick, patient = (recommended(offers(texts, large, FEW), hours) for hours in (0.5, 1000))
    assert quick.memory < patient.memory
    by_spec = {offer.base.spec: offer for offer in offers(texts, small, FEW)}
    assert by_spec["Qwen/Qwen2.5-7B-Instruct"].method == "qlora"
    assert by_spec["Qwen/Qwen2.5-0.5B-Instruct"].method == "lora"


def test_the_table_says_of_each_base_as_many_parameters_as_its_plan_counts():
    """The figure in the words is that of the shape: one was not mistyped without the other."""
    texts = Texts(1, 100, 30, ("en",))
    from loratelier.base.plan import Training, plan_training

    assert offers(texts, gpu("h100"), known_bases()[:1])[0].reads
    for base in FEW[1:]:
        counted = plan_training(base.config, Training()).parameters
        number, unit = base.about.split()[:2]
        said = float(number) * {"million": 1e6, "billion": 1e9}[unit]
        assert counted == pytest.approx(said, rel=0.06)


def test_without_texts_or_a_known_machine_there_is_one_clear_line(home, tmp_path):
    for arguments, said in (
        (["--yes"], "No texts"),
        (["--yes", "--texts", str(tmp_path / "none")], "none"),
    ):
        done = run(*arguments, "-o", str(tmp_path))
        assert isinstance(done.exception, InputError)
        assert said in str(done.exception)
