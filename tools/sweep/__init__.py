"""Checks mergec on every model type and head that the installed transformers builds.

    python -m tools.sweep --jobs 2            # all; goes on where it was stopped
    python -m tools.sweep --only llama,bart   # some, anew

Each pair of type and head is built small, saved twice with other weights, and merged in a dozen
ways (see checks.py). What is right comes from transformers alone: see truth.py. A line a pair goes
to results.tsv, of which docs/families.md is made (page.py).
"""
