"""Errors, files, console, signals and processes: the parts that are not about alignment."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "arrays": ["ArrayWriter", "StringArray", "mmap_safetensors"],
        "artifacts": ["atomic_folder", "quarantine", "read_verified", "write_manifest"],
        "console": ["Console", "Screen", "warn_once"],
        "dotted": ["dotted_items"],
        "digests": ["cached_file_digest", "content_digest", "digest", "digest_bytes", "digest_file"],
        "errors": ["NotWritten", "Problem", "RunFailed", "UserError", "attribute_errors", "first_line", "nearest"],
        "files": ["atomic_write", "translate_os_errors", "write_json", "write_text"],
        "paths": ["cache_root", "runs_root"],
        "redaction": ["redact", "register_secret"],
        "signals": ["GracefulShutdown", "Interrupted"],
        "streams": ["SafeStream"],
    },
)
