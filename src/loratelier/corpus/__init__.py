"""The corpus: notes in, training rows with their lineage out; broken encodings mended."""

from loratelier.corpus.build import build_corpus
from loratelier.corpus.folder import Corpus
from loratelier.corpus.repair import Change, Repair, Step, repair_text
from loratelier.corpus.report import Report

__all__ = ["Change", "Corpus", "Repair", "Report", "Step", "build_corpus", "repair_text"]
