"""The door: the only functions that read a file from outside.

They check its shape, size, depth and links. A file from outside is any that this process did not just write: models,
datasets, recipes, and our own run folders and caches too, which other versions, other users and full disks have had in
their hands. Whatever is wrong with one becomes a `BadFile`, which is a `UserError` with the file's name.
"""

from alignzoo.core.door.child import Child, in_child, in_children
from alignzoo.core.door.file_errors import BadFile, MissingFile, UnreadableFile, translate
from alignzoo.core.door.files import inside, open_file, read_bytes, read_text
from alignzoo.core.door.json_values import parse_json, parse_row, read_checked, read_json, read_json_lines, validated
from alignzoo.core.door.marked_yaml import read_yaml
from alignzoo.core.door.tensor_files import Tensor, tensors

__all__ = [
    "BadFile",
    "Child",
    "MissingFile",
    "Tensor",
    "UnreadableFile",
    "in_child",
    "in_children",
    "inside",
    "open_file",
    "parse_json",
    "parse_row",
    "read_bytes",
    "read_checked",
    "read_json",
    "read_json_lines",
    "read_text",
    "read_yaml",
    "tensors",
    "translate",
    "validated",
]
