"""The kinds of model that there are. A new one is a class of its own in a file beside this, and a name here."""

from collections.abc import Mapping

from fraud_core.models.kinds.boosting import Boosting
from fraud_core.models.kinds.forest import Forest
from fraud_core.models.kinds.kind import Kind
from fraud_core.models.kinds.linear import Linear

# In the order in which they are fitted, and in which they are preferred where they do equally well.
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (Linear(), Forest(), Boosting())}
