"""Scenes: a schema, a notation with its parser, and the training rows that are made of them."""

from loratelier.corpus.scenes.model import Graph, Hyperlexeme, Mood, Node, Overlay, Relation, Scene
from loratelier.corpus.scenes.notation import read_graph, read_scene, write_graph, write_scene
from loratelier.corpus.scenes.relations import KINDS, RELATIONS

__all__ = [
    "KINDS",
    "RELATIONS",
    "Graph",
    "Hyperlexeme",
    "Mood",
    "Node",
    "Overlay",
    "Relation",
    "Scene",
    "read_graph",
    "read_scene",
    "write_graph",
    "write_scene",
]
