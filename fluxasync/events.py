"""The events: what `on_event` is called with, and what `Batch.events()` yields."""

from ._core.events import ClockJumped as ClockJumped
from ._core.events import DiskLagged as DiskLagged
from ._core.events import DoubtsSought as DoubtsSought
from ._core.events import DownloadsFailing as DownloadsFailing
from ._core.events import Event as Event
from ._core.events import EventsDropped as EventsDropped
from ._core.events import JobAdopted as JobAdopted
from ._core.events import JobEnded as JobEnded
from ._core.events import JobReady as JobReady
from ._core.events import JobSubmitted as JobSubmitted
from ._core.events import JobUnclaimed as JobUnclaimed
from ._core.events import LimitChanged as LimitChanged
from ._core.events import LoopLagged as LoopLagged
from ._core.events import Paused as Paused
from ._core.events import Resumed as Resumed
from ._core.events import RowsChecked as RowsChecked
from ._core.events import Settled as Settled
from ._core.events import StoreOutage as StoreOutage
from ._core.events import SubmitFailed as SubmitFailed
from ._core.events import WorkersReported as WorkersReported
