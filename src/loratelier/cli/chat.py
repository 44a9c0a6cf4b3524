"""``loratelier chat``: talk to a base, with or without an adapter."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.serve import Both, Dialogue, Turn

_STOPPED = {
    "limit": "(cut: the reply reached --max-new-tokens)",
    "context": "(cut: the conversation filled what the base can read; /reset begins anew)",
    "interrupted": "(stopped)",
}


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="chat")(_chat)


def _chat(
    adapter: Annotated[
        str | None, typer.Argument(help="A name in the store, or a folder; none: the base alone.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The base; without it the one that the adapter's card names, or demo."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="From -2 to 4; 1 is as trained.", show_default="the card's, or 1"),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a reply.")] = 256,
    temperature: Annotated[
        float | None, typer.Option(help="How freely words are drawn.", show_default="0.7")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from this much probability.", show_default="0.9")
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Above 1: a reply repeats itself less.", show_default="1.1, greedy 1"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draw the same words again.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest word.")] = False,
    library: Annotated[
        str | None, typer.Option(help="Look up what is said in these notes; see library build.")
    ] = None,
    message: Annotated[
        list[str] | None, typer.Option(help="Say this and leave; may be given several times.")
    ] = None,
    json: Json = False,
) -> None:
    """Talk to a base, with an adapter put on, off or changed at any moment; /help lists how.

    Lines that are piped in are said one by one.
    """
    settings = _settings(greedy, temperature, top_p, repetition_penalty, seed)
    dialogue, line = _begin(adapter, base, strength, system, max_new_tokens, settings)
    if library is not None:
        from loratelier.serve.library import Library

        dialogue.library = Library.open(library)
    talk = _Talk(dialogue)
    # With --json the conversation is still to be seen, but stdout is for the document.
    with redirect_stdout(sys.stderr) if json else nullcontext():
        if line:
            talk.tell(line)
        _converse(talk, message)
    if json:
        print_json(_document(dialogue, talk))


def _converse(talk: "_Talk", messages: list[str] | None) -> None:
    if messages:
        talk.through(messages, forgiving=False)
    elif sys.stdin.isatty():
        talk.through(_typed(talk.dialogue), forgiving=True)
    else:
        talk.through((line.rstrip("\n") for line in sys.stdin), forgiving=True)


def _settings(
    greedy: bool,
    temperature: float | None,
    top_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return the keywords of a Sampling."""
    drawn = {"temperature": temperature, "top_p": top_p, "seed": seed}
    given = {key: value for key, value in drawn.items() if value is not None}
    if greedy and given:
        named = "--" + next(iter(given)).replace("_", "-")
        raise InputError(f"--greedy draws nothing, so {named} means nothing", "Leave one out")
    if greedy:
        # Alone it is the exact argmax: what `inspect` shows too.
        given = {"temperature": 0.0, "repetition_penalty": 1.0}
    if repetition_penalty is not None:
        given["repetition_penalty"] = repetition_penalty
    return given


def _begin(
    adapter: str | None,
    base: str | None,
    strength: float | None,
    system: str | None,
    max_new_tokens: int,
    settings: dict[str, Any],
) -> "tuple[Dialogue, str]":
    """Load what is needed, and return the conversation and what to say about what is worn."""
    if adapter is None and strength is not None:
        raise InputError("--strength is an adapter's, and none is named", "Name an adapter")

    from loratelier.adapter import store
    from loratelier.bank import AdapterBank
    from loratelier.base import load_base
    from loratelier.serve import Dialogue, Sampling

    sampling = Sampling(**settings)
    worn = None if adapter is None else store.open(adapter)
    named = worn.card.base.spec if worn else "demo"
    spec = base or named
    if spec is None:
        raise InputError(f"The card of '{adapter}' names no base", "Give it with --base")
    loaded = load_base(spec)
    dialogue = Dialogue(
        loaded,
        AdapterBank(loaded.model),
        system=system,
        sampling=sampling,
        max_new_tokens=max_new_tokens,
    )
    return dialogue, dialogue.wear(worn, strength) if worn else ""


def _typed(dialogue: "Dialogue") -> Iterator[str]:
    """Yield what a person types, asking with what is worn; ends at the end of input."""
    import readline  # noqa: F401  # line editing and history for input()

    out.print("Type /help for what can be changed on the way, /quit to leave.", style="dim")
    while True:
        name = dialogue.worn or dialogue.base.name
        strength = "" if dialogue.strength is None else f" ×{dialogue.strength:g}"
        try:
            yield input(f"[{name}{strength}] you> ")
        except EOFError:
            out.print()
            return


@dataclass
class _Talk:
    """Prints a conversation, and keeps what was said for the JSON document."""

    dialogue: "Dialogue"
    said: "list[Turn]" = field(default_factory=list)
    compared: "list[Both]" = field(default_factory=list)

    def through(self, lines: Iterable[str], *, forgiving: bool) -> None:
        """Go through lines; a forgiving one prints what is wrong and goes on."""
        for line in lines:
            try:
                if line.strip() and not self._line(line):
                    return
            except InputError as error:
                if not forgiving:
                    raise
                err.print(str(error), markup=False, style="red", soft_wrap=True)

    def _line(self, line: str) -> bool:
        """Say a line or carry it out; False ends the conversation."""
        from loratelier.serve.commands import is_command, run

        if not is_command(line):
            self._say(line)
            return True
        outcome = run(self.dialogue, line)
        for told in outcome.lines:
            self.tell(told)
        if outcome.both:
            self.compared.append(outcome.both)
            self._both(outcome.both)
        return not outcome.quits

    def tell(self, line: str) -> None:
        """Print a remark of the workshop's own."""
        out.print(line, markup=False, style="dim", soft_wrap=True)

    def _say(self, line: str) -> None:
        before = len(self.dialogue.turns)
        try:
            # Closed at once when it is left early: the gates must not stay open.
            with closing(self.dialogue.say(line)) as pieces:
                for piece in pieces:
                    self._write(piece)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        self._write("\n")
        turns = self.dialogue.turns[before:]
        self.said += turns
        for note in turns[-1].notes if turns else ():
            begin, end = note["start"], note["end"]
            place = f":{begin}-{end}" if begin is not None else f" {note['item']}"
            named = ", named" if note["named"] else ""
            self.tell(f"[{note['number']}] {note['file']}{place}{named}")
        if turns and turns[-1].stopped in _STOPPED:
            self.tell(_STOPPED[str(turns[-1].stopped)])

    def _write(self, piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    def _both(self, both: "Both") -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=True)
        table.add_column("The base", ratio=1)
        table.add_column(f"Wearing '{both.adapter.adapter}' ×{both.adapter.strength:g}", ratio=1)
        table.add_row(Text(both.base.content), Text(both.adapter.content))
        out.print(table)


def _document(dialogue: "Dialogue", talk: _Talk) -> dict[str, Any]:
    """Return the whole talk, also what came before a /reset."""
    opening = [turn for turn in dialogue.turns if turn.role == "system"]
    return {
        "base": dialogue.base.name,
        "fingerprint": dialogue.base.fingerprint,
        "sampling": asdict(dialogue.sampling),
        "max_new_tokens": dialogue.max_new_tokens,
        "turns": [asdict(turn) for turn in [*opening, *talk.said]],
        "both": [asdict(both) for both in talk.compared],
    }
