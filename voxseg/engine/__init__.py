"""Training, prediction, evaluation and cross-validation."""
