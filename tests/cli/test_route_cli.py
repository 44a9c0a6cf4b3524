"""A decision, explained on the command line."""

import json

from tests.cli.test_errors import refused, run


def test_route_explains_a_decision(home, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("adapters: {sport: {keywords: [тренировка]}}", encoding="utf-8")
    done = run("route", "Сколько тренировок?", "--policy", str(policy), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["mix"] == {"sport": 1.0}
    assert document["stage"] == "keywords"
    assert "тренировка" in document["reason"] and "тренировка" in document["reason_ru"]
    plain = run("route", "explain", "hi <|use_lora_x|>", "--policy", str(policy)).stdout
    assert "the base" in plain and "left as text" in plain
    policy.write_text("adapters: {sport: {keyword: []}}", encoding="utf-8")
    refused(run("route", "hi", "--policy", str(policy)), "'keywords'")
    refused(run("route", "hi", "--policy", str(tmp_path / "none.yaml")), "There is no policy")
