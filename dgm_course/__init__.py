"""Interactive lectures on deep generative models, and the small library behind them.

Import what a lecture needs from its family: ``from dgm_course.flows import PlanarFlow``. This
module imports nothing, so that it costs nothing.
"""

__version__ = "0.1.0"
