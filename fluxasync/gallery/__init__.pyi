"""The public names of `gallery`, for type checkers and for `__init__.py`."""

from .written_page import FILE as FILE
from .written_page import WrittenPage as WrittenPage
from .written_page import check as check
from .written_page import sheet as sheet
from .written_page import write as write
