"""Probabilities and divergences written down once more, of plain forwards."""

import torch


@torch.no_grad()
def plain(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].double()


def chain(model, tokenizer, prompt, text):
    """How likely a model finds a text after a prompt, token by token."""
    ids = tokenizer(prompt)["input_ids"]
    chance = 1.0
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        chance *= float(plain(model, ids)[-1].softmax(-1)[token])
        ids = [*ids, token]
    return chance


def kl(old, new):
    return (old.exp() * (old - new)).sum(-1)
