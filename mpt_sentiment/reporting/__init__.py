"""Report of the paper's experiments: tables, figures, explanations and calibration."""
