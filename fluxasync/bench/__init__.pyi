"""The public names of `bench`, for type checkers and for `__init__.py`."""

from .bench_config import BenchConfig as BenchConfig
from .comparison import Comparison as Comparison
from .comparison import Difference as Difference
from .comparison import compare as compare
from .records import PARTS as PARTS
from .records import PERCENTILES as PERCENTILES
from .records import Distribution as Distribution
from .records import ImageRecord as ImageRecord
from .records import Interval as Interval
from .records import Machine as Machine
from .records import Report as Report
from .records import ScheduleDelay as ScheduleDelay
from .records import SlotSample as SlotSample
from .records import Stage as Stage
from .records import load as load
from .report.html_report import write_page as write_page
from .runner import run as run
from .workload import Workload as Workload
