"""Read sources into rows, tokenize the rows into trees, and store the trees on disk."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "convert": ["convert_rows", "with_columns"],
        "mismatched": ["with_mismatched"],
        "row_reader": ["RowReader"],
        "split_plan": ["SplitPlan", "SplitRows"],
        "splits": ["read_rows"],
        "statistics": ["data_report"],
        "token_store": ["TokenStore", "TokenizedDataset"],
        "tokenize": ["Encoder", "TokenizedRows"],
        "trees": ["Branch", "Tree", "Trees", "sequence_key"],
    },
)
