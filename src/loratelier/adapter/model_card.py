"""The README.md of an adapter's folder: a model card in the hub's form, from the card."""

import re

import yaml

from loratelier.adapter.card import Card

FILE = "README.md"


def render(
    *, name: str, card: Card, rank: int, alpha: float, sites: int, modules: int, has_effect: bool
) -> str:
    """Return the model card as Markdown.

    ``sites`` counts low-rank pairs, ``modules`` modules that come whole.
    """
    front = {"library_name": "peft", "tags": ["lora", "loratelier"]}
    if card.base.spec and re.fullmatch(r"[\w.-]+/[\w.-]+", card.base.spec):
        # The hub accepts only its own names here.
        front["base_model"] = card.base.spec
    parts = [f"---\n{yaml.safe_dump(front, sort_keys=True)}---\n", f"# {name}\n"]
    parts.append(
        f"{'A LoRA adapter' if sites else 'Whole weights, kept as a LoRA adapter for PEFT'}, made "
        "with LoRAtelier. `card.json` beside this file says the same.\n"
    )
    if not has_effect:
        parts.append("**It has no effect: its update is zero everywhere.**\n")
    facts = [
        f"- Base: {card.base.name or 'unknown'} (weights {card.base.fingerprint or 'unproven'})",
    ]
    if sites:
        facts.append(f"- Rank {rank}, alpha {alpha:g}, {sites} linear layers")
    if modules:
        facts.append(f"- {modules} modules that stand in place of the base's")
    if card.corpus:
        facts.append(
            f"- Corpus: {card.corpus.rows} rows of {card.corpus.conversations} conversations, "
            f"{len(card.corpus.files)} files ({card.corpus.hash})"
        )
    if card.method and card.truncation_error is not None:
        parents = ", ".join(f"{each.get('name')} × {each.get('weight')}" for each in card.parents)
        facts.append(
            f"- Merged by {card.method} of {parents}; truncation error "
            f"{card.truncation_error:.2%}; basis: {card.basis}"
        )
    if card.seed is not None:
        facts.append(f"- Seed {card.seed}")
    if card.tokens:
        words = ", ".join(f"`{word}` ({number})" for word, number in card.tokens.items())
        facts.append(
            f"- New tokens: {words}. Before the adapter is loaded, the tokenizer takes them with "
            "`add_tokens`, in this order, and the model is resized to the tokenizer's length; "
            "LoRAtelier does it by itself"
        )
    if card.strength is not None:
        facts.append(
            f"- Recommended strength {card.strength:g}: LoRAtelier wears it so by default, other "
            "tools at 1"
        )
    parts.append("\n".join(facts) + "\n")
    parts.extend(_figures(card))
    parts.extend(_verdict(card))
    return "\n".join(parts)


def _figures(card: Card) -> list[str]:
    lines = []
    metrics = card.metrics
    if "held_out_nll" in metrics:
        lines.append(
            f"- Held-out loss per token: {metrics['held_out_nll_base']:.4f} -> "
            f"{metrics['held_out_nll']:.4f} nats ({metrics['held_out_nll_change']:+.1%}, "
            f"{metrics['held_out_tokens']} tokens)"
        )
    if "held_out_margin" in metrics:
        lines.append(
            f"- Held-out DPO loss: {metrics['held_out_loss_base']:.4f} -> "
            f"{metrics['held_out_loss']:.4f}, margin {metrics['held_out_margin']:+.3f}, "
            f"{metrics['held_out_accuracy']:.0%} of the pairs preferred rightly"
        )
    if "held_out_kl" in metrics:
        lines.append(
            f"- Held-out KL from the teacher: {metrics['held_out_kl_base']:.4f} -> "
            f"{metrics['held_out_kl']:.4f} nats per token"
        )
    if "general_bpb" in metrics:
        lines.append(
            f"- General English, bits per byte: {metrics['general_bpb_base']:.4f} -> "
            f"{metrics['general_bpb']:.4f} ({metrics['general_bpb_change']:+.2%})"
        )
    return ["## Measured when it was trained\n", "\n".join(lines) + "\n"] if lines else []


def _verdict(card: Card) -> list[str]:
    """Say what the last check found; a verdict of another form says nothing here."""
    verdict = card.verdict or {}
    findings = verdict.get("findings", [])
    if not findings:
        return []
    failed = [
        f"- {one['sentence']['en']} {one['remedy']['en']}" for one in findings if not one["passed"]
    ]
    said = "It failed" if failed else "It passed"
    first = f"{said} at strength {verdict['strength']:g}, on {verdict['base']}."
    return ["## Checked\n", "\n".join([first, "", *failed] if failed else [first]) + "\n"]
