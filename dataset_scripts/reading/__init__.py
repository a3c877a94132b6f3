"""Input files read as rows, checked, and built into cached datasets."""
