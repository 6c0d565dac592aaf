"""Text to syntax tree: grammar, parser, source spans and diagnostics. Imports no other folder."""
