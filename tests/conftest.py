"""Bases to test on: a seeded tiny one, and the real demo base."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from loratelier.base import Base, load_base

# The same examples in every run: a suite that decides what lands may not depend on luck.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Where the demo base is kept between runs, read before any test points the home elsewhere.
REAL_HOME = Path(os.environ.get("LORATELIER_HOME") or Path.home() / ".loratelier").expanduser()


def tiny_tokenizer():
    """A byte-level tokenizer without merges: 256 bytes and three special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHATML
    return fast


def make_tiny(seed=0, **changes):
    """A seeded random Llama of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**settings | changes)), tokenizer


@pytest.fixture(scope="session")
def tiny_base():
    model, tokenizer = make_tiny()
    return Base.of(model, tokenizer, name="tiny")


@pytest.fixture(scope="session")
def tiny_base_dir(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def demo_base():
    """The real demo base, fetched once into the home of the person who runs the tests."""
    before = os.environ.get("LORATELIER_HOME")
    os.environ["LORATELIER_HOME"] = str(REAL_HOME)
    try:
        return load_base("demo")
    finally:
        if before is None:
            del os.environ["LORATELIER_HOME"]
        else:
            os.environ["LORATELIER_HOME"] = before


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder of the test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LORATELIER_HOME", str(folder))
    return folder


@pytest.fixture
def home_with_demo(home, demo_base):
    """A home of the test's own in which the demo base is there already."""
    home.mkdir()
    (home / "bases").symlink_to(REAL_HOME / "bases")
    return home


def our_hooks(model):
    """The hooks of ours on a model; transformers leaves some of its own, which are not meant."""
    return [
        hook
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks.values()
        if hook.__module__.startswith("loratelier")
    ]
