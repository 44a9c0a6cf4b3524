"""The server stays well: odd bodies, huge ones, slow clients, those that go away; quotas, admin."""

import json
import re
import socket
import time

import httpx2
import openai as library
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loratelier.serve.api import limits as limiting
from loratelier.serve.api.app import make_app
from loratelier.serve.api.keys import Bucket, KeyRule
from loratelier.serve.api.limits import Limits
from tests.serve.api.harness import ask_for as ask
from tests.serve.api.harness import client, eventually, make_api, running, serving

PATHS = {
    "/v1/chat/completions": "ChatBody",
    "/v1/completions": "CompletionBody",
    "/v1/embeddings": "EmbeddingBody",
}


def from_schema(schema, defs, odds, depth=0):
    """Bodies that keep to a schema of OpenAPI; with odds, here and there they do not."""
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
        st.just("\ud800"), st.just([[]] * 3), st.dictionaries(st.text(max_size=3), st.integers()),
    )  # fmt: skip
    if depth > 4:
        return odd if odds else st.none()
    kept = _kept(schema, defs, odds, depth)
    return st.one_of(kept, kept, odd) if odds else kept


def bodies(schema, defs):
    return st.booleans().flatmap(lambda odds: from_schema(schema, defs, odds))


def _kept(schema, defs, odds, depth):
    if "$ref" in schema:
        return _kept(defs[schema["$ref"].rsplit("/", 1)[1]], defs, odds, depth)
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return st.one_of([from_schema(each, defs, odds, depth + 1) for each in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object":
        known = schema.get("properties", {})
        needed = schema.get("required", [])
        fixed = {"model": st.sampled_from(["tiny", "auto", "loud", "nobody"])}
        chosen = {k: fixed.get(k, from_schema(v, defs, odds, depth + 1)) for k, v in known.items()}
        must = {k: v for k, v in chosen.items() if k in needed}
        may = sorted(chosen.keys() - must.keys())
        # A few at a time: all together would nearly always contradict each other.
        some = st.lists(st.sampled_from(may), max_size=3, unique=True) if may else st.just([])
        return some.flatmap(
            lambda keys: st.fixed_dictionaries({**must, **{key: chosen[key] for key in keys}})
        )
    if kind == "array":
        items = from_schema(schema.get("items", {}), defs, odds, depth + 1)
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=3)
    if kind == "integer":
        return st.integers(schema.get("minimum", -5), min(schema.get("maximum", 40), 40))
    if kind == "number":
        return st.floats(schema.get("minimum", -3), schema.get("maximum", 6))
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        return st.text(min_size=1, max_size=12)
    return st.none()


def test_bodies_of_the_schema_and_beside_it_never_break_it(url, engine):
    document = httpx2.get(f"{url}/openapi.json").json()
    defs = document["components"]["schemas"]
    seen = {}

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(list(PATHS)).flatmap(
            lambda path: st.tuples(st.just(path), bodies(defs[PATHS[path]], defs))
        )
    )
    def fuzz(asked):
        path, body = asked
        sent = json.dumps(body).encode()
        got = http.post(f"{url}{path}", content=sent, headers={"content-type": "application/json"})
        seen[got.status_code] = seen.get(got.status_code, 0) + 1
        assert got.status_code in (200, 400, 404), (got.status_code, got.text, sent)
        if got.status_code != 200:
            assert got.json()["error"]["message"]

    with httpx2.Client(timeout=20) as http:
        fuzz()
    assert seen.get(200, 0) > 5 and seen.get(400, 0) > 5
    assert engine.wait_until_idle()


def test_bytes_that_are_no_body_never_break_it(url):
    deep = b'{"model":"tiny","messages":' + b"[" * 50_000
    for sent in (
        deep,
        b'{"model":"tiny","messages":[{"role":"user","content":' + b"9" * 5000 + b"}]}",
        b'{"model":"tiny","prompt":"\\ud800"}',
        b'{"model":"tiny","prompt":"x","temperature":NaN}',
        b'{"model":"tiny","prompt":"x","temperature":1e999}',
        b'{"model":"tiny","prompt":"x","seed":' + b"9" * 5000 + b"}",
        b'{"model":"tiny","prompt":[999999999]}',
        b'{"model":"\\ud800","prompt":"x"}',
        b"\x00" * 100,
    ):
        for path in PATHS:
            got = httpx2.post(
                f"{url}{path}", content=sent, headers={"content-type": "application/json"}
            )
            assert got.status_code in (400, 404), (sent[:60], got.status_code)
            assert got.json()["error"]["message"]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    inner = tool["function"]["parameters"]
    for _ in range(200):
        inner["x"] = {}
        inner = inner["x"]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    assert httpx2.post(f"{url}/v1/chat/completions", json=body).status_code == 400


def test_a_client_that_goes_away_cancels_its_request(openai, engine, url):
    engine.endless, engine.pause = True, 0.01
    stream = ask(openai, stream=True, max_tokens=1000)
    next(iter(stream))
    assert engine.running
    stream.close()
    assert eventually(lambda: not engine.running)
    with pytest.raises(library.APITimeoutError):
        ask(openai, max_tokens=1000, timeout=0.3)
    assert eventually(lambda: not engine.running)
    engine.endless = False
    assert ask(openai).choices[0].message.content == "I am base."
    metrics = httpx2.get(f"{url}/metrics").text
    assert 'loratelier_answers_total{adapter="base",finish="broken"}' in metrics


def test_huge_bodies_and_slow_clients_are_let_go(tiny_base, engine, stored, monkeypatch):
    monkeypatch.setattr(limiting, "HEADER_SECONDS", 0.5)
    bounds = Limits(body_bytes=20_000, body_seconds=0.5)
    with serving(tiny_base, engine, limits=bounds) as url:
        host, port = url.removeprefix("http://").split(":")

        def talk(*pieces, pause=0.0, wait=5):
            with socket.create_connection((host, int(port)), timeout=wait) as line:
                for piece in pieces:
                    line.sendall(piece)
                    time.sleep(pause)
                said = b""
                while got := line.recv(4096):
                    said += got
                return said

        text = "x" * 30_000
        got = httpx2.post(f"{url}/v1/completions", json={"model": "tiny", "prompt": text})
        assert got.status_code == 413 and got.json()["error"]["code"] == "body_too_large"

        def pieces():
            for _ in range(30):
                yield b"y" * 1000

        head = {"content-type": "application/json"}
        got = httpx2.post(f"{url}/v1/completions", content=pieces(), headers=head)
        assert got.status_code == 413
        post = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        assert b" 408 " in talk(post, b"\r\n{", pause=0.1)
        # Half a header, and then nothing: the connection is closed without a word.
        assert talk(post) == b""
        assert talk(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000)[:12] in (
            b"HTTP/1.1 400",
        )
        assert httpx2.get(f"{url}/health").status_code == 200


def test_a_client_that_does_not_read_is_let_go(tiny_base, engine, stored):
    engine.endless = True
    with serving(tiny_base, engine, limits=Limits(write_seconds=0.3)) as url:
        host, port = url.removeprefix("http://").split(":")
        body = {"model": "tiny", "prompt": "x", "stream": True, "n": 8, "max_tokens": 1500}
        sent = json.dumps({**body, "logprobs": 5}).encode()
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect((host, int(port)))
            line.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                + b"Content-Length: %d\r\n\r\n" % len(sent)
                + sent
            )
            assert eventually(lambda: len(engine.asked) == 8)
            assert eventually(lambda: "finish=" in httpx2.get(f"{url}/metrics").text, 15)
        assert engine.wait_until_idle()


def test_a_server_that_is_stopped_ends_what_it_is_writing(tiny_base, engine, stored):
    engine.endless, engine.pause = True, 0.01
    api = make_api(tiny_base, engine)
    with running(make_app(api), stop=engine.stop) as url:
        stream = ask(client(url), stream=True, max_tokens=1500)
        next(iter(stream))
    with pytest.raises(library.APIError):
        for _ in stream:
            pass
    assert engine.stopped is not None and not engine.running


def test_quotas_of_requests_and_tokens(tiny_base, engine, stored):
    keys = {
        "few": KeyRule(key="sk-few-12345", requests_per_minute=2),
        "short": KeyRule(key="sk-short-123", tokens_per_minute=200),
    }
    with serving(tiny_base, engine, keys=keys) as url:
        few, short = client(url, "sk-few-12345"), client(url, "sk-short-123")
        ask(few), ask(few)
        with pytest.raises(library.RateLimitError, match="requests") as caught:
            ask(few)
        assert 20 <= int(caught.value.response.headers["retry-after"]) <= 31
        # 24 tokens are read and 10 written each time; what was set aside beyond comes back.
        for _ in range(2):
            ask(short, max_tokens=130)
        with pytest.raises(library.RateLimitError, match="tokens"):
            ask(short, max_tokens=150)
        assert httpx2.get(f"{url}/v1/models").status_code == 401


def test_a_bucket_fills_evenly():
    now = [0.0]
    bucket = Bucket(60, clock=lambda: now[0])
    assert bucket.wait_for(60) == 0
    bucket.take(60)
    assert bucket.wait_for(30) == pytest.approx(30)
    now[0] = 30.0
    assert bucket.wait_for(30) == pytest.approx(0)
    bucket.take(-1000)
    assert bucket.wait_for(60) == 0 and bucket.wait_for(1000) == 0


def test_admin_is_off_by_default(url):
    for path in ("load_lora_adapter", "unload_lora_adapter"):
        assert httpx2.post(f"{url}/v1/{path}", json={"lora_name": "loud"}).status_code == 404


def test_admin_loads_and_unloads_by_store_names(tiny_base, engine, stored, folders):
    keys = {"ann": KeyRule(key="sk-ann-12345")}
    with serving(tiny_base, engine, keys=keys, admin_key="sk-admin-1") as url:

        def post(path, body, key="sk-admin-1"):
            head = {"authorization": f"Bearer {key}"}
            return httpx2.post(f"{url}/v1/{path}_lora_adapter", json=body, headers=head)

        ann = client(url, "sk-ann-12345")
        assert post("unload", {"lora_name": "loud"}, "sk-ann-12345").status_code == 401
        assert post("unload", {"lora_name": "loud"}).status_code == 200
        assert post("unload", {"lora_name": "loud"}).status_code == 404
        with pytest.raises(library.NotFoundError):
            ask(ann, "loud")
        assert post("load", {"lora_name": "loud", "lora_path": "odd"}).status_code == 200
        assert engine.adapters.held["loud"].digest == engine.adapters.held["odd"].digest
        assert {m.id: m.root for m in ann.models.list()}["loud"] == "odd"
        assert post("load", {"lora_name": "loud"}).status_code == 400
        assert post("load", {"lora_name": "loud", "load_inplace": True}).status_code == 200
        assert engine.adapters.held["loud"].digest != engine.adapters.held["odd"].digest
        refused = (str(folders["loud"]), "../adapters/odd", "odd/../odd", "/", ".", "nobody")
        for path in refused:
            got = post("load", {"lora_name": "fresh", "lora_path": path})
            assert got.status_code == 400 and got.json()["error"]["message"], path
        for name in ("../x", "auto", "tiny", "lоud", "a/b"):
            got = post("load", {"lora_name": name, "lora_path": "odd"})
            assert got.status_code == 400, name
        assert set(engine.adapters.names) == {"loud", "odd", "silent"}


def test_metrics_are_prometheus_by_adapter_with_bounded_labels(openai, url):
    ask(openai, "loud")
    ask(openai, "auto", "<|use_lora_odd|> x")
    for number in range(5):
        with pytest.raises(library.NotFoundError):
            ask(openai, f"made-up-{number}")
        httpx2.get(f"{url}/made/up/{number}")
    text = httpx2.get(f"{url}/metrics").text
    assert 'loratelier_adapter_requests_total{adapter="loud",stage="name"} 1' in text
    assert 'loratelier_adapter_requests_total{adapter="odd",stage="signals"} 1' in text
    assert 'loratelier_completion_tokens_total{adapter="loud"} 10' in text
    assert 'loratelier_request_seconds_bucket{adapter="loud",le="+Inf"} 1' in text
    assert 'loratelier_requests_total{path="other",status="404"} 5' in text
    assert "made" not in text
    line = re.compile(r'(# (HELP|TYPE) .+|loratelier_\w+(\{(\w+="[^"]*",?)*\})? [-+0-9.e]+(inf)?)')
    assert all(line.fullmatch(each) for each in text.splitlines()), text
