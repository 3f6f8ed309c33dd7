"""Sources -> preference rows -> token trees."""

from alignzoo.data.report import data_report
from alignzoo.data.split import Rows, read_rows
from alignzoo.data.tokenise import Tokenised, tokenise

__all__ = ["Rows", "Tokenised", "data_report", "read_rows", "tokenise"]
