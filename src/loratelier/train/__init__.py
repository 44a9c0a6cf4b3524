"""Training: one visible loop, from a corpus and a base to an adapter."""

from loratelier.train.guards import Guards
from loratelier.train.recipe import Recipe
from loratelier.train.recipe_file import load_recipe, parse_set
from loratelier.train.run import train

__all__ = ["Guards", "Recipe", "load_recipe", "parse_set", "train"]
