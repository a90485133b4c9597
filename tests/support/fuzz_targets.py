"""Every fuzz target, by its name. A file of its own has those of one kind."""

from __future__ import annotations

import fuzz_bundles
import fuzz_decoders
import fuzz_documents
import fuzz_rtnetlink

TARGETS = {
    target.name: target
    for target in (*fuzz_bundles.TARGETS, *fuzz_decoders.TARGETS, *fuzz_documents.TARGETS, *fuzz_rtnetlink.TARGETS)
}
