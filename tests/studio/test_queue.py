"""Jobs: they outlive the server, can be stopped, and every page hears the same of them."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

from loratelier.studio.hub import Hub
from loratelier.studio.jobs import Shelf
from loratelier.studio.queue import Queue
from tests.studio.conftest import until


def add_corpus(page, notes, name="mine", **more):
    args = {"name": name, "sources": [str(notes)], **more}
    return page.post("/api/jobs", json={"kind": "corpus", "title": name, "args": args}).json()


def job(page, name):
    return next(each for each in page.get("/api/jobs").json() if each["id"] == name)


def test_a_corpus_is_built_in_a_process_of_its_own_and_can_be_read(page, notes):
    made = add_corpus(page, notes)
    done = until(lambda: (now := job(page, made["id"]))["state"] == "done" and now)
    assert done["result"]["counts"]["rows"] == 12
    assert page.get("/api/store").json()["corpora"][0]["name"] == "mine"
    rows = page.get("/api/corpora/mine/rows").json()
    assert rows["total"] == 12
    assert rows["rows"][0]["messages"][1]["content"].startswith("Turn it over.")
    assert rows["rows"][0]["lineage"][0]["file"].endswith(".md")
    told = page.get(f"/api/jobs/{made['id']}/events").text
    events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
    assert events[0] == {"type": "start", "resume": False}
    assert {"type": "end"} in events
    # A page that saw the first two events gets the others, and not these again.
    later = page.get(f"/api/jobs/{made['id']}/events", headers={"last-event-id": "2"}).text
    assert told.endswith(later)
    assert later.count("id: ") == told.count("id: ") - 2


def test_a_job_that_cannot_be_done_says_why_and_can_be_forgotten(page, tmp_path):
    made = add_corpus(page, tmp_path / "nowhere")
    failed = until(lambda: (now := job(page, made["id"]))["state"] == "failed" and now)
    assert "nowhere" in failed["error"]
    page.delete(f"/api/jobs/{made['id']}")
    assert page.get("/api/jobs").json() == []


def test_what_is_asked_wrongly_is_refused_before_it_is_queued(page):
    wrong = {"kind": "corpus", "title": "x", "args": {"name": "x", "source": ["/"]}}
    answer = page.post("/api/jobs", json=wrong)
    assert answer.headers["x-problem"] == "1"
    assert "Did you mean 'sources'?" in answer.json()["mend"]
    up = {"kind": "train", "title": "x", "args": {"name": "x", "corpus": "../..", "base": "demo"}}
    assert "no name for a corpus" in page.post("/api/jobs", json=up).json()["error"]
    assert page.get("/api/jobs").json() == []


def test_what_ran_when_the_server_died_goes_on_with_the_next_one(home, notes):
    shelf = Shelf()
    args = {"name": "mine", "sources": [str(notes)]}
    ran = shelf.new("corpus", "ran", args)
    shelf.write(ran.model_copy(update={"state": "running"}))
    stopped = shelf.new("corpus", "stopped", args)
    shelf.write(stopped.model_copy(update={"state": "stopping"}))
    waits = shelf.new("corpus", "waits", args)
    told = []
    after = Queue(told.append)
    assert after.states() == {ran.id: "waiting", stopped.id: "stopped", waits.id: "waiting"}
    assert next(each for each in shelf.all() if each.id == ran.id).resume
    after.start()
    # The second of the two finds the corpus there, and says so.
    until(lambda: [after.states()[each.id] for each in (ran, waits)] == ["done", "failed"])
    after.close()


def test_a_server_that_ends_takes_its_job_along_and_leaves_it_to_go_on(home, notes):
    queue = Queue(lambda event: None)
    queue.start()
    made = queue.add("corpus", "mine", {"name": "mine", "sources": [str(notes)]})
    until(lambda: queue.states()[made.id] == "running")
    queue.close()
    again = Queue(lambda event: None)
    assert again.states()[made.id] in ("waiting", "done")
    again.start()
    until(lambda: again.states()[made.id] == "done")
    again.close()
    assert (home / "corpora" / "mine" / "rows.parquet").exists()


def test_a_training_that_was_stopped_goes_on_where_it_was(page, notes, tiny_base, tmp_path):
    base = tmp_path / "base"
    tiny_base.model.save_pretrained(base)
    tiny_base.tokenizer.save_pretrained(base)
    corpus = add_corpus(page, notes)
    until(lambda: job(page, corpus["id"])["state"] == "done")
    recipe = {"rank": 2, "max_steps": 60, "epochs": 60, "batch_tokens": 128, "save_seconds": 0}
    args = {"name": "new", "corpus": "mine", "base": str(base), "set": recipe}
    args["set"]["guards.drift_budget"] = "off"
    made = page.post("/api/jobs", json={"kind": "train", "title": "t", "args": args}).json()
    shelf = Shelf()

    def steps():
        found = [e["point"] for e in shelf.events(made["id"]) if e["type"] == "curve"]
        return [point["step"] for point in found if "loss" in point]

    until(lambda: len(steps()) > 3, 120)
    page.post(f"/api/jobs/{made['id']}/stop")
    until(lambda: job(page, made["id"])["state"] in ("stopped", "done"))
    page.post(f"/api/jobs/{made['id']}/again")
    until(lambda: job(page, made["id"])["state"] == "done", 120)
    starts = [n for n, e in enumerate(shelf.events(made["id"])) if e["type"] == "start"]
    assert len(starts) in (1, 2)
    second = shelf.events(made["id"])[starts[-1] :]
    taken = [e["point"]["step"] for e in second if e["type"] == "curve" and "loss" in e["point"]]
    assert taken == list(range(1, 61))
    assert any(each["name"] == "new" for each in page.get("/api/store").json()["adapters"])


def test_pages_agree_and_one_that_was_away_gets_what_it_missed():
    async def road():
        hub = Hub(lambda: [{"type": "job", "id": "old"}])
        hub.attach()
        one, other = hub.follow(None), hub.follow(None)
        first = [await anext(one) for _ in range(3)]
        assert [event["type"] for _, event in first] == ["hello", "job", "ready"]
        assert [await anext(other) for _ in range(3)] == first
        hub.tell({"type": "job", "id": "new"})
        seen = await anext(one)
        assert await anext(other) == seen
        await other.aclose()
        for number in range(3):
            hub.tell({"type": "job", "id": str(number)})
        missed = [await anext(one) for _ in range(3)]
        back = hub.follow(seen[0])
        assert [await anext(back) for _ in range(3)] == missed
        # From another server's time nothing can be counted on: everything comes anew.
        fresh = hub.follow("feedface-2")
        assert (await anext(fresh))[1]["type"] == "hello"

    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor(1) as other_thread:
        other_thread.submit(asyncio.run, road()).result()


def test_a_bar_is_told_with_the_time_that_is_left():
    from loratelier.kit.progress import report_to, task
    from loratelier.studio.telling import Telling

    told = []
    with report_to(Telling(told.append)), task("Reading", total=4) as bar:
        time.sleep(0.3)
        bar.advance()
    assert told[0]["what"] == "Reading"
    assert told[1]["done"] == 1
    assert 0.8 < told[1]["left"] < 3
    assert told[-1] == {"type": "bar-end", "bar": 1}
