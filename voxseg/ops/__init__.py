"""Functions on tensors: superpixel pooling and SLIC."""
