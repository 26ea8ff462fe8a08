"""For your own sink, ledger, observer or transport: the protocols and the values they exchange."""

from ._core.attempts import Attempt as Attempt
from ._core.models import Refused as Refused
from ._core.models import Secret as Secret
from ._core.models import Stored as Stored
from ._core.models import Verdict as Verdict
from ._core.prices import ListedPrice as ListedPrice
from ._core.protocols import Call as Call
from ._core.protocols import Download as Download
from ._core.protocols import Ledger as Ledger
from ._core.protocols import Observer as Observer
from ._core.protocols import Reply as Reply
from ._core.protocols import Sink as Sink
from ._core.protocols import Transport as Transport
from ._core.protocols import TransportOption as TransportOption
from ._store.filenames import FilenameTemplate as FilenameTemplate
