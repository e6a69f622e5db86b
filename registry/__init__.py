"""The hand-over between training and serving: what a model version is, and which one is in force.

No ray, no pandas, no training library: whoever scores needs none of them.
"""

CHAMPION = "champion"
"""The alias that commands use if none is named."""
