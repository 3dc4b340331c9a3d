"""Networks with an explicit memory, their checkpoints and their training."""

from .checkpoint import load, save
from .config import HybridConfig
from .corpus import Corpus, stdlib_corpus
from .describe import Description, describe
from .evaluation import bits_per_token, score
from .generate import Generation, generate
from .lm import HybridLM, LMOutput
from .memory import KeyValue, Memory, Part
from .recipes import train_zoo, zoo_recipe
from .training import Recipe, TrainingRun, train
from .zoo import zoo

__all__ = [
    "Corpus",
    "Description",
    "Generation",
    "HybridConfig",
    "HybridLM",
    "KeyValue",
    "LMOutput",
    "Memory",
    "Part",
    "Recipe",
    "TrainingRun",
    "bits_per_token",
    "describe",
    "generate",
    "load",
    "save",
    "score",
    "stdlib_corpus",
    "train",
    "train_zoo",
    "zoo",
    "zoo_recipe",
]
