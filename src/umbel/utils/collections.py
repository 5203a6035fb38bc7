"""Names that Celery's users import from `celery.utils.collections`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

__all__ = ["AttributeDict", "DictAttribute", "force_mapping"]


class AttributeDict(dict[str, Any]):
    """A dict whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class DictAttribute(MutableMapping[str, Any]):
    """An object whose attributes are items."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self.obj, name)
        except AttributeError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.obj, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self.obj, name)

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def __len__(self) -> int:
        return len(dir(self.obj))


def force_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and of an object its attributes."""
    return value if isinstance(value, Mapping) else DictAttribute(value)
