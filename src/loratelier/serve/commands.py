"""What may be typed into a conversation beside words: /off, /wear NAME, /both and the rest."""

from collections.abc import Callable
from dataclasses import dataclass

from loratelier.adapter import store
from loratelier.base import with_tokens
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.scope.inspection import NO_EFFECT
from loratelier.serve.dialogue import Both, Dialogue


@dataclass(frozen=True)
class Outcome:
    """What a command says, and whether it ends the conversation."""

    lines: tuple[str, ...] = ()
    both: Both | None = None
    quits: bool = False


@dataclass(frozen=True)
class Command:
    """A command: its name, how it is written, what it does."""

    name: str
    usage: str
    help: str
    act: Callable[[Dialogue, str], Outcome]


def is_command(line: str) -> bool:
    """Whether a line is a command and not something to say."""
    return line.startswith("/")


def run(dialogue: Dialogue, line: str) -> Outcome:
    """Carry out a command.

    Raises:
        InputError: an unknown one (the nearest is named), or one that cannot be done.
    """
    name, _, rest = line.strip().partition(" ")
    known = {f"/{command.name}": command for command in COMMANDS}
    if name not in known:
        raise InputError(f"There is no command '{name}'", did_you_mean(name, known))
    command, argument = known[name], rest.strip()
    if argument and " " not in command.usage:
        raise InputError(f"{name} takes nothing after it", f"Type {command.usage}")
    return command.act(dialogue, argument)


def _off(dialogue: Dialogue, _: str) -> Outcome:
    return Outcome((dialogue.take_off(),))


def _on(dialogue: Dialogue, _: str) -> Outcome:
    return Outcome((dialogue.put_on(),))


def _wear(dialogue: Dialogue, argument: str) -> Outcome:
    name, given, strength = argument.rpartition("=")
    if not given:
        name, strength = argument, ""
    if not name:
        raise InputError("/wear needs a name", "Type /wear NAME or /wear NAME=0.5")
    return Outcome((dialogue.wear(name, _number(strength) if given else None),))


def _strength(dialogue: Dialogue, argument: str) -> Outcome:
    return Outcome((dialogue.set_strength(_number(argument)),))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"'{text}' is no strength", "It is a number, such as 0.5") from error


def _adapters(dialogue: Dialogue, _: str) -> Outcome:
    names = sorted({*store.names(), *dialogue.strengths})
    if not names:
        return Outcome(("The store has no adapters yet.",))
    return Outcome(tuple(_described(dialogue, name) for name in names))


def _described(dialogue: Dialogue, name: str) -> str:
    if name == dialogue.worn:
        return f"{name}  (worn, strength {dialogue.strengths[name]:g})"
    if name in dialogue.strengths:
        return f"{name}  (at hand, strength {dialogue.strengths[name]:g})"
    try:
        adapter = store.open(name)
        adapter.require_fit(with_tokens(dialogue.bare, adapter.card.tokens))
    except InputError as error:
        return f"{name}  (cannot be worn: {error.what})"
    return name if adapter.has_effect else f"{name}  ({NO_EFFECT})"


def _reset(dialogue: Dialogue, _: str) -> Outcome:
    dialogue.reset()
    return Outcome(("The conversation begins anew.",))


def _both(dialogue: Dialogue, _: str) -> Outcome:
    return Outcome(both=dialogue.both())


def _help(_dialogue: Dialogue, _: str) -> Outcome:
    width = max(len(command.usage) for command in COMMANDS)
    return Outcome(tuple(f"{command.usage:<{width}}  {command.help}" for command in COMMANDS))


def _quit(_dialogue: Dialogue, _: str) -> Outcome:
    return Outcome(quits=True)


COMMANDS = (
    Command("off", "/off", "the base answers as it is", _off),
    Command("on", "/on", "the adapter is put on again", _on),
    Command("wear", "/wear NAME[=0.5]", "put on another adapter, at a strength", _wear),
    Command("strength", "/strength X", "from -2 to 4; 1 is as trained, 0 is off", _strength),
    Command("adapters", "/adapters", "what can be worn", _adapters),
    Command("both", "/both", "base and adapter on your last message, side by side", _both),
    Command("reset", "/reset", "begin anew", _reset),
    Command("help", "/help", "this list", _help),
    Command("quit", "/quit", "leave", _quit),
)
