"""What is said while a run goes on."""

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from loratelier.base.work import work_of
from loratelier.kit.progress import report_to
from loratelier.train import train
from tests.conftest import make_tiny


def test_the_work_of_a_llama_is_four_per_weight_of_the_layers_and_targets():
    model, _ = make_tiny()
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128  # q and o, k and v, gate up down
    work = work_of(model, 0)
    assert work.token == 4 * 2 * layer
    assert work.target == 4 * 64 * model.config.vocab_size
    # Below the first adapted layer nothing goes back.
    assert work_of(model, 1).token == 2 * layer + 4 * layer
    assert work_of(model, 0, trains_weights=True).token == 6 * 2 * layer


def test_of_experts_those_count_that_a_token_meets():
    config = Qwen3MoeConfig(
        vocab_size=100,
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        num_experts=8,
        num_experts_per_tok=2,
    )
    torch.manual_seed(0)
    work = work_of(Qwen3MoeForCausalLM(config), 0)
    attention, router, expert = 4 * 32 * 32, 32 * 8, 3 * 32 * 16
    assert work.token == 4 * (attention + router + 2 * expert)


class Heard:
    """A reporter that keeps what it hears."""

    def __init__(self):
        self.said, self.remarks = [], []

    def task(self, description, total):
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, amount=1):
        pass

    def say(self, note, left=None):
        self.said.append(note)

    def remark(self, text):
        self.remarks.append(text)


def test_watching_says_held_out_loss_drift_speed_and_the_share_of_the_peak(
    tiny_base,
    recipe,
    home,
):
    heard = Heard()
    with report_to(heard):
        train(recipe(epochs=2), base=tiny_base, watch=True)
    assert any("GFLOP/s" in remark for remark in heard.remarks)
    last = heard.said[-1]
    for word in ("loss ", "held-out ", "drift ", "tokens/s", "% of this machine's peak"):
        assert word in last
    share = float(last.split(", ")[-1].split("%")[0])
    assert 0 <= share <= 100
