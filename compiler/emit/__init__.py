"""The documents that go with the weights.

In: an elaboration and the models' documents. Out: config.json, tokenizer, chat template, model
card, provenance, and the files that are copied as they are.
"""

__all__ = ["card", "chat_template", "companions", "content", "header_metadata", "token_ids"]
