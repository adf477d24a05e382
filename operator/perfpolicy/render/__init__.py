"""From a resolved policy to Kubernetes objects: pure, no cluster, no clock.

One kind of child is one module here, one template in templates/, one golden in tests/render/goldens/ and one row in docs/children.md.
"""

from perfpolicy.render.manifest import ChildKind, GroupKind, Manifest
from perfpolicy.render.registry import EVERYTHING, KINDS, Rendering, derived_names, dump, render

__all__ = ["EVERYTHING", "KINDS", "ChildKind", "GroupKind", "Manifest", "Rendering", "derived_names", "dump", "render"]
