"""Networks with an explicit memory, their checkpoints and their training."""

from .adapters import AdaptedConfig, AdaptedLM, adapt
from .checkpoint import load, save
from .config import HybridConfig
from .convert import prime
from .corpus import Corpus, stdlib_corpus, stdlib_validation
from .describe import Description, describe
from .eidetic import evict, insert, stored_tokens, with_eidetic
from .evaluation import bits_per_token, score
from .generate import Generation, generate
from .hub import from_hub
from .lm import HybridLM, LMOutput
from .memory import KeyValue, Memory, Part, StoredTokens
from .recall_zoo import recall_accuracy, recall_rows
from .recipes import train_zoo, zoo_recipe
from .training import Recipe, TrainingRun, train
from .zoo import zoo

__all__ = [
    "AdaptedConfig",
    "AdaptedLM",
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
    "StoredTokens",
    "TrainingRun",
    "adapt",
    "bits_per_token",
    "describe",
    "evict",
    "from_hub",
    "generate",
    "insert",
    "load",
    "prime",
    "recall_accuracy",
    "recall_rows",
    "save",
    "score",
    "stdlib_corpus",
    "stdlib_validation",
    "stored_tokens",
    "train",
    "train_zoo",
    "with_eidetic",
    "zoo",
    "zoo_recipe",
]
