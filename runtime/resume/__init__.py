"""What a run leaves for the next one: finished tensors, and everything needed to tell whether they
can be used again.

While tensors are written, `ledger.py` sees when one is complete and what its checksum is
(`checksums.py`), `keeper.py` syncs it to disk, and `journal.py` records it. A finished output says
the same of itself (`record.py`). A later run takes over what the journal of a stopped run lists, or
what `earlier.py` finds in an output: where these were made with the same (`environment.py`), and
the bytes are those that were written (`confirm.py`).
"""

__all__ = ["checksums", "confirm", "earlier", "environment", "journal", "keeper", "ledger", "record", "sealed"]
