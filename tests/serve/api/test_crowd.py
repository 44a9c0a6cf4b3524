"""A crowd: 64 clients at once over 32 adapters, each answered with its own tell-tale."""

import threading
import time
from collections import Counter

import openai as library
import pytest
import torch

from loratelier.adapter import Adapter, Card
from loratelier.bank import AdapterBank
from loratelier.scope.prompt import encode_prompt
from loratelier.serve.api.app import make_app
from loratelier.serve.engine import Engine, EngineSettings
from tests.serve.api.harness import ask_for, client, make_api, running

SITES = {"model.layers.0.self_attn.q_proj": (64, 64), "model.layers.1.mlp.down_proj": (64, 128)}


def adapter(number):
    torch.manual_seed(number)
    pairs = {
        site: (torch.randn(4, d_in) * 0.3, torch.randn(d_out, 4) * 0.3)
        for site, (d_out, d_in) in SITES.items()
    }
    return Adapter.from_tensors(pairs, Card(), f"a{number}")


@pytest.fixture
def crowd(home, tiny_base):
    """32 adapters in the store, and how likely each finds its five likeliest first tokens."""
    made = {f"a{number}": adapter(number) for number in range(32)}
    bank = AdapterBank(tiny_base.model)
    said = {}
    ids = encode_prompt(tiny_base, "Hello").ids
    for name, each in made.items():
        each.save(home / "adapters" / name)
        bank.add(name, each)
        with bank.activate(name), torch.no_grad():
            scores = tiny_base.model(torch.tensor([ids])).logits[0, -1].float()
        said[name] = scores.log_softmax(-1).topk(5).values
    bank.close()
    return said


def test_64_clients_over_32_adapters(tiny_base, crowd):
    tales = torch.stack(list(crowd.values()))
    apart = (tales[:, None] - tales[None]).abs().amax(-1) + torch.eye(32)
    assert apart.min() > 2e-3  # they can be told apart
    engine = Engine(tiny_base, settings=EngineSettings(max_rows=16, max_queue=20))
    engine.start()
    counts, wrong = Counter(), []

    def work(openai, name):
        # Half of them by signal, and those who are sent away come again.
        signal = f"<|use_lora_{name}|> " if name[-1] in "02468" else ""
        while True:
            try:
                asked = {"temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 5}
                model = "auto" if signal else name
                answer = ask_for(openai, model, f"{signal}Hello", **asked)
                counts["answered"] += 1
                top = answer.choices[0].logprobs.content[0].top_logprobs
                told = torch.tensor([each.logprob for each in top])
                if (told - crowd[name]).abs().max() > 5e-4:
                    wrong.append((name, told, crowd[name]))
                return
            except library.RateLimitError:
                counts["sent away"] += 1
                time.sleep(0.05)
            except library.APIError as error:
                wrong.append(error)
                return

    try:
        with running(make_app(make_api(tiny_base, engine))) as url:
            openai = client(url)
            names = sorted(crowd) * 2
            workers = [threading.Thread(target=work, args=(openai, name)) for name in names]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(120)
    finally:
        engine.stop(0)
    assert wrong == [] and counts["answered"] == 64
