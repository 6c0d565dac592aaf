"""mergec: a compiler for a small declarative language that merges neural-network checkpoints."""
