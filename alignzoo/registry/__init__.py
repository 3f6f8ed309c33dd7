"""Registry of plugins: loading, lookup by name, attribution to packages, failures."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "known_packages": ["PACKAGE_OF"],
        "loading": ["OFF", "PluginInfo", "no_plugins"],
        "lookup": ["Registry", "get_objective", "registry"],
        "offers": ["Offer", "PluginError", "Provider"],
    },
)
