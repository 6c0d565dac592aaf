__all__ = ["coverage", "elaborate", "equivalence", "outline", "token_rows", "vocabulary"]
