"""How many requests at a time, in which order, and how a run is told to end."""
