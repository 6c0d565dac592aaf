"""What a model is before anything is computed.

In: headers, configs and small documents, as a `Catalog` tells them. Out: models with canonical
tensors, ties, adapters, tokenizers, and what is wrong with them: parts that are missing, codes that
are no numbers.
"""

__all__ = [
    "adapter",
    "adapter_config",
    "adapter_formats",
    "agreement",
    "bundles",
    "catalog",
    "completeness",
    "documents",
    "dtypes",
    "factors",
    "image_models",
    "layouts",
    "model",
    "quantised",
    "renames",
    "shards",
    "ties",
    "tokenizer",
]
