"""Find plugins, name them, attribute them to packages, and report the ones that do not load."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "known_packages": ["PACKAGE_OF"],
        "loading": ["OFF", "PluginInfo", "Provider", "no_plugins"],
        "lookup": ["Registry", "get_objective", "registry"],
    },
)
