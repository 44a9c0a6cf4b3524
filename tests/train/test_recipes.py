"""The recipes that come along: each is read, and the commands in their heads work."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loratelier.adapter import store
from loratelier.cli.app import app
from loratelier.corpus import build_corpus
from loratelier.train import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_is_read_and_is_of_the_objective_in_its_name(path):
    recipe = load_recipe(path, {"corpus": "my-corpus", "name": "mine"})
    if path.stem not in ("sft", "dpo", "distill", "full", "scratch"):
        return  # it is of another kind, and its rate and guards are its own
    assert recipe.objective == path.stem
    # What a recipe says of a rate is what it would be without saying.
    plain = {"base": "demo", "corpus": "my-corpus", "name": "mine", "objective": recipe.objective}
    if recipe.distill is not None:
        plain["distill"] = {"teacher": "my-teacher"}
    assert recipe.learning_rate == load_recipe(None, plain).learning_rate
    assert recipe.guards == load_recipe(None, plain).guards


def _run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_dpo_by_the_command_line_says_what_its_figures_are(tiny_base_dir, tmp_path, home):
    path = tmp_path / "rows.jsonl"
    lines = [
        {"prompt": f"What is {n}?", "chosen": "Turn it over.", "rejected": "One cannot say."}
        for n in range(12)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    build_corpus(path, holdout=0.25).save(tmp_path / "preferred")
    said = _run(
        "train", RECIPES / "dpo.yaml", "--set", f"corpus={tmp_path / 'preferred'}",
        "--set", f"base={tiny_base_dir}", "--set", "learning_rate=5e-3",
        "--set", "guards.drift_budget=off",
    ).output  # fmt: skip
    assert "Held-out DPO loss        0.6931 -> 0." in said
    assert "preferred rightly" in said
    assert "Held-out loss per token" not in said
    assert "Held-out DPO loss" in _run("adapters", "show", "mine").output


def test_a_teacher_is_asked_once_and_its_file_takes_its_place(
    tiny_base_dir, corpus, tmp_path, home
):
    here = ["--set", f"corpus={corpus}", "--set", f"base={tiny_base_dir}"]
    few = ["--set", "max_steps=2", "--set", "guards.drift_budget=off"]
    _run("train", RECIPES / "sft.yaml", *here, *few, "--set", "name=my-teacher")
    file = tmp_path / "shares.parquet"
    made = _run("teach", RECIPES / "distill.yaml", "-o", file, *here, "--json")
    assert json.loads(made.stdout)["file"] == str(file)
    source = ["--set", "distill.teacher=null", "--set", "distill.top=null"]
    said = _run(
        "train", RECIPES / "distill.yaml", *here, *few, *source, "--set", f"distill.file={file}"
    ).output
    assert "KL from the teacher" in said
    assert store.open("mine").card.metrics["distilled_from"].startswith("sha256:")


def test_a_whole_base_by_the_command_line(tiny_base_dir, corpus, home):
    said = _run(
        "train", RECIPES / "full.yaml", "--set", f"corpus={corpus}",
        "--set", f"base={tiny_base_dir}", "--set", "max_steps=2",
    ).output  # fmt: skip
    assert "Held-out loss per token" in said
    assert "none: whole modules" in _run("adapters", "show", "mine").output
