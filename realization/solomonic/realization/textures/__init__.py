"""Dynamic textures: films as the output of a small stochastic model.

================  =========================================================
module            what
================  =========================================================
``texture``       fit a film, synthesise it forwards, backwards, at any speed
``films``         test films that need no data
``animation``     write a film to a file
================  =========================================================
"""

from .animation import save_animation
from .films import FILMS, film
from .texture import DynamicTexture

__all__ = ["FILMS", "DynamicTexture", "film", "save_animation"]
