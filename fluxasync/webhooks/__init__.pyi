"""The public names of `webhooks`, for type checkers and for `__init__.py`."""

from .._core.webhook import Webhook as Webhook
from .listener import Listener as Listener
from .receiver import CallbackCounts as CallbackCounts
from .receiver import Receiver as Receiver
