"""What is to be pruned. Pure.

The inventory in the status alone misses a child created just before a crash; the live objects alone miss one whose labels were removed.
"""

from collections.abc import Iterable

from perfpolicy.reconcile.children import ChildRef


def to_prune(recorded: Iterable[ChildRef], owned: Iterable[ChildRef], desired: Iterable[ChildRef]) -> tuple[ChildRef, ...]:
    """(inventory ∪ live objects with our owner UID) - desired, in a stable order. Whether one is really ours is checked on deletion."""
    return tuple(sorted((set(recorded) | set(owned)) - set(desired), key=str))
