"""What the page's rooms are answered, against the rooms that they stand for."""

import numpy as np
import pytest
import torch

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.scope import inspect_prompt
from tests.studio.conftest import result

PLACE = {"draft": "adapter:poet", "prompt": "The sea is"}


def solve(page, wish, **more):
    answer, told = result(page.post("/api/editor/solve", json={**PLACE, "set": wish, **more}))
    assert answer["type"] == "result", answer
    return answer, told


def test_a_field_is_what_the_model_expects_with_and_without_the_adapter(page, tiny_base):
    field = page.post("/api/editor/field", json={**PLACE, "draft": "base:llama"}).json()
    ids = torch.tensor([tiny_base.tokenizer("The sea is")["input_ids"]])
    chances = tiny_base.model(input_ids=ids).logits[0, -1].double().softmax(-1)
    for bar in field["bars"]:
        assert bar["now"] == pytest.approx(float(chances[bar["id"]]), abs=1e-6)
    assert field["rest"]["now"] + sum(bar["now"] for bar in field["bars"]) == pytest.approx(1)
    assert field["kl"] == [0.0] * len(ids[0])


def test_a_preview_of_sites_is_what_keeping_them_makes(page):
    strengths = {"model.layers.1.mlp.down_proj": 0.25}
    seen = page.post("/api/editor/field", json={**PLACE, "strengths": strengths}).json()
    page.post("/api/editor/sites", json={"draft": PLACE["draft"], "strengths": strengths})
    kept = page.post("/api/editor/field", json=PLACE).json()
    assert [bar["id"] for bar in kept["bars"]] == [bar["id"] for bar in seen["bars"]]
    for one, other in zip(kept["bars"], seen["bars"], strict=True):
        assert one["now"] == pytest.approx(other["now"], abs=1e-5)
    assert max(kept["kl"]) > 0


def test_a_dragged_bar_is_reached_undone_redone_and_saved(page, stored):
    before = page.post("/api/editor/field", json=PLACE).json()
    bar = before["bars"][2]
    answer, told = solve(page, {bar["id"]: 0.5}, budget=0.5)
    assert any(event["type"] == "bar" for event in told)
    goal = answer["report"]["goals"][0]
    after = page.post("/api/editor/field", json={**PLACE, "tokens": [bar["id"]]}).json()
    now = next(each for each in after["bars"] if each["id"] == bar["id"])
    assert now["now"] == pytest.approx(goal["reached"], abs=1e-4)
    assert abs(now["now"] - 0.5) < abs(bar["now"] - 0.5)
    assert page.post("/api/editor/undo", json=PLACE | {}).headers.get("x-problem") == "1"
    assert page.post("/api/editor/undo", json={"draft": PLACE["draft"]}).json()["at"] == 0
    assert page.post("/api/editor/field", json=PLACE).json()["bars"] == before["bars"]
    assert page.post("/api/editor/redo", json={"draft": PLACE["draft"]}).json()["at"] == 1
    saved = {"draft": PLACE["draft"], "name": "poet-2"}
    assert page.post("/api/editor/save", json=saved).json() == {"name": "poet-2"}
    assert "There is an adapter" in page.post("/api/editor/save", json=saved).json()["error"]
    assert store.open("poet-2").rank == store.open("poet").rank + 1


def test_steps_outlive_the_server_and_do_not_outlive_their_adapter(page, stored, app):
    from loratelier.studio.draft import Draft

    sites = {"draft": PLACE["draft"], "strengths": {"*": 0.5}}
    page.post("/api/editor/sites", json=sites)
    page.post("/api/editor/sites", json=sites)
    page.post("/api/editor/undo", json={"draft": PLACE["draft"]})
    again = Draft("adapter:poet")
    assert (again.view()["at"], len(again.view()["steps"])) == (1, 2)
    assert again.now.digest == app.state.room.drafts.of("adapter:poet").now.digest
    other = Adapter.load(stored / "adapters" / "critic")
    other.save(stored / "adapters" / "poet", replace=True)
    assert Draft("adapter:poet").view()["steps"] == []


def test_a_look_is_the_inspection_and_a_pick_is_at_hand(page, tiny_base):
    asked = {"adapter": "poet", "prompt": "What is the sea?", "max_new_tokens": 6}
    answer, _ = result(page.post("/api/scope/look", json=asked))
    seen = inspect_prompt(tiny_base, store.open("poet"), "What is the sea?", max_new_tokens=6)
    assert answer["seen"]["kl"] == pytest.approx(seen.kl)
    name = answer["id"]
    at = len(seen.attention.tokens) - 1
    pick = page.get(f"/api/scope/{name}/pick/{at}").json()
    assert np.allclose(pick["shift"], seen.attention.by_query[:, :, at], atol=1e-6)
    data = page.get(f"/api/scope/{name}/map?side=after&layer=1&head=0").content
    size = len(seen.attention.tokens)
    row = np.frombuffer(data, "<f4").reshape(size, size)
    assert np.allclose(row, seen.attention.after[1, 0], atol=1e-6)
    assert np.allclose(row.sum(1), 1, atol=1e-5)
    picture = page.get(f"/api/scope/{name}/picture/{answer['pictures'][0]['name']}.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "script" not in picture.headers["content-security-policy"]
    assert "There is no position" in page.get(f"/api/scope/{name}/pick/9999").json()["error"]


def test_columns_answer_by_what_they_wear_and_say_so(page, tiny_base):
    lanes = [
        {"id": 1, "adapter": None},
        {"id": 2, "adapter": "poet", "strength": 0.5},
        {"id": 3, "adapter": "auto"},
    ]
    page.put("/api/dialogue/lanes", json={"base": "llama", "lanes": lanes})
    said = {"text": "<|use_lora_critic|> Hello", "temperature": 0, "max_new_tokens": 5}
    answer, told = result(page.post("/api/dialogue/say", json=said))
    assert answer["type"] == "result", answer
    worn = {event["lane"]: event["worn"] for event in told if event["type"] == "worn"}
    assert worn == {1: {}, 2: {"poet": 0.5}, 3: {"critic": 1.0}}
    turns = {lane["id"]: lane["turns"] for lane in answer["lanes"]}
    for number, own in turns.items():
        pieces = [e["text"] for e in told if e["type"] == "piece" and e["lane"] == number]
        assert "".join(pieces) == own[-1]["content"]
    assert "critic" in turns[3][-1]["reason"]
    # Another page, or the next server, finds the same conversation.
    assert page.get("/api/dialogue").json()["lanes"] == answer["lanes"]
    assert page.post("/api/dialogue/reset").json()["lanes"][1]["turns"] == []


def test_a_merge_is_measured_before_it_is_kept(page, tiny_base, monkeypatch):
    from loratelier.base.likelihood import bits_per_byte
    from loratelier.studio.routes import compose

    texts = ["The tide comes in.", "Bread rises slowly."]
    monkeypatch.setattr(compose, "general_text", lambda: texts)
    monkeypatch.setattr(compose, "_EVERY", 1)
    asked = {"weights": {"poet": 0.5, "critic": 0.5}}
    answer, _ = result(page.post("/api/compose/preview", json=asked))
    assert "merged-one" not in store.names()
    page.post("/api/compose/save", json={"digest": answer["digest"], "name": "merged-one"})
    with AdapterBank(tiny_base.model) as bank:
        bank.add("m", store.open("merged-one"))
        bare = bits_per_byte(tiny_base.model, tiny_base.tokenizer, texts).value
        with bank.activate("m"):
            worn = bits_per_byte(tiny_base.model, tiny_base.tokenizer, texts).value
    assert answer["drift"]["merged"] == pytest.approx(worn / bare - 1, abs=1e-6)
    conflict, _ = result(page.post("/api/compose/compare", json={"adapters": ["poet", "critic"]}))
    assert conflict["conflict"]["names"] == ["poet", "critic"]


def test_a_path_is_not_taken_for_an_adapter(page, stored):
    for name in (str(stored / "adapters" / "poet"), "../poet", "nobody"):
        answer, _ = result(page.post("/api/scope/look", json={"adapter": name, "prompt": "x"}))
        assert answer["type"] == "error"
