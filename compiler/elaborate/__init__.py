__all__ = ["elaborate", "equivalence", "outline", "token_rows", "vocabulary"]
