"""Scenes to lose something of."""

from functools import cache

from bench.meaning import SCENES

from loratelier.corpus.scenes import read_graph
from loratelier.corpus.written import read_written

VOICEMAIL = read_graph(
    """daughter: person
father: person
voicemail: utterance "about a parking space"
eleven: amount "eleven seconds"
phone: thing
dying: state
fear: state
father -says-> voicemail
daughter -possession-> voicemail
voicemail -quantity-> eleven
voicemail -place-> phone
phone -quality-> dying
dying -cause-> fear
daughter -undergoes-> fear
~ emotion grief 0.6, tenderness 0.7; rhythm still; tension 0.6; tone "plain and close\""""
)


@cache
def shipped():
    """The scenes that come along, in English and Russian."""
    return [
        scene
        for file in sorted(SCENES.glob("*.yaml"))
        for scene in read_written(file.read_text(encoding="utf-8"), file.name).scenes
    ]
