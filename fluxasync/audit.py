"""A run while it is not active: its status, whether its files agree, and decisions about images.

The functions take the folder of a run, or the URL of a run whose record is in its bucket, and need
no key. `drop`, `give_jobs` and `resubmit` decide about images in doubt, `accept` and `discard`
about images in quarantine, as the command `fluxasync resolve` does.
"""

from ._store.audit.folder_status import Candidate as Candidate
from ._store.audit.folder_status import InDoubtEntry as InDoubtEntry
from ._store.audit.folder_status import ModelTotals as ModelTotals
from ._store.audit.folder_status import QuarantinedEntry as QuarantinedEntry
from ._store.audit.folder_status import Status as Status
from ._store.audit.resolution import accept as accept
from ._store.audit.resolution import discard as discard
from ._store.audit.resolution import drop as drop
from ._store.audit.resolution import give_jobs as give_jobs
from ._store.audit.resolution import in_doubt as in_doubt
from ._store.audit.resolution import quarantined as quarantined
from ._store.audit.resolution import resubmit as resubmit
from ._store.audit.run_status import status as status
from ._store.audit.verification import Finding as Finding
from ._store.audit.verification import Verification as Verification
from ._store.audit.verification import verify as verify
from ._store.journal.account_counts import AccountCounts as AccountCounts
