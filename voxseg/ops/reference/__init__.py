"""SciPy and NumPy twins of the ops: slow, obvious, the definition of correct."""
