"""From photographs to augmented batches: one order, one augmentation, four loaders."""
