"""What a run leaves for the next one: finished tensors, and all that tells whether they are still of use.

While tensors are written, `ledger.py` sees when one is complete and what its checksum is (`checksums.py`), `keeper.py`
sees it onto the disk, and `journal.py` notes it. A finished output says the same of itself (`record.py`). A later run
takes over what the journal of a run that was stopped tells of, or what `earlier.py` finds in an output: where these
were made with the same (`environment.py`), and the bytes are those that were written (`confirm.py`).
"""

__all__ = ["checksums", "confirm", "earlier", "environment", "journal", "keeper", "ledger", "record", "sealed"]
