"""Optional libraries of the encoders, found only when they are used."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from privfed.errors import MissingExtra, PrivfedError


def library(
    module: str, package: str, purpose: str, extra: str = "encoders"
) -> ModuleType:
    """Import an optional module.

    Raises MissingExtra where it is not installed, PrivfedError where it is and fails.
    """
    if find_spec(module.partition(".")[0]) is None:
        raise MissingExtra(package, extra, purpose)
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:
        # A torchvision of another build than torch ends both open_clip and
        # sentence-transformers, in words that name neither library.
        mend = "install it anew, and torch and torchvision of one build"
        raise PrivfedError(
            f"{purpose}: {package} is installed but does not load ({error}); {mend}"
        ) from error


def version_of(package: str, purpose: str, extra: str = "encoders") -> str:
    """The name and version of an installed package; raises MissingExtra."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise MissingExtra(package, extra, purpose) from error
