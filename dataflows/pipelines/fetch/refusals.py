"""What to say at the end of a fetch that hardly any picture came from: why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from dataflows.transforms.results import UnitResult
from dataflows.transforms.units import MergeResults
from schemas.ledger import Ledger
from schemas.reasons import REASONS

MOST_REFUSED = 0.9
"""Up to this share of the URLs, refusals are what the web is like and no warning."""

_SHOWN = 3
_NETWORK = (
    "check that the machines that fetch reach the internet by themselves: proxies of the environment "
    "are not used"
)
_ADVICE = {
    "fetch_private_address": (
        "private and local addresses are asked only if named: for a server of your own add "
        "allow_private=HOST:PORT, as it stands in the URLs. If the hosts are public ones, the name "
        "server of this network answers with addresses of its own"
    ),
    "fetch_robots": (
        "robots.txt of the hosts forbids it or could not be read. For hosts whose owner permits it, "
        "add robots=false"
    ),
    "fetch_opt_out": "the hosts opt out by headers; opt_out= and tdm_reservation= say what is obeyed",
    "fetch_dns": (
        "check that the machines that fetch resolve names (a wrong host in the input, or no name "
        "server)"
    ),
    "fetch_connect": _NETWORK,
    "fetch_timeout": f"{_NETWORK}; timeout= and deadline= are the limits in seconds",
    "fetch_tls": f"{_NETWORK}, and that no gateway puts its own certificates in",
    "fetch_bad_url": "the column read as URL may hold something else: see columns.url= of the ingest",
    "fetch_wrong_type": "the URLs may be those of pages, not of pictures: see columns.url= of the ingest",
    "fetch_http_4xx": (
        "the pictures are gone, or the hosts turn this client away: the dead letters have the status "
        "of each"
    ),
    "fetch_rate_limited": "lower requests_per_second= and connections=",
    "fetch_too_large": "max_bytes= is the limit",
    "image_too_large": "max_pixels= is the limit",
}
# Taken out on request, after they came: no refusal of a host.
_CHOSEN = ("evaluation_set_url", "evaluation_set_hash")


def warnings(ledger: Ledger) -> list[str]:
    """Lines about a fetch of whose images more than :data:`MOST_REFUSED` were refused; else none.

    The first has the numbers, the others say what to do about its two most frequent reasons.
    """
    asked = ledger.count("image", "in")
    counts = {
        row["reason"]: row["count"]
        for row in ledger.rows()
        if (row["unit"], row["kind"]) == ("image", "rejected") and row["reason"] not in _CHOSEN
    }
    refused = sum(counts.values())
    if refused <= MOST_REFUSED * asked:
        return []
    ranked = sorted(counts, key=lambda reason: (-counts[reason], reason))
    shown = [f"{counts[reason]:,} {reason} ({REASONS[reason]})" for reason in ranked[:_SHOWN]]
    rest = sum(counts[reason] for reason in ranked[_SHOWN:])
    if rest:
        shown.append(f"{rest:,} for other reasons")
    first = f"when it was fetched, {refused:,} of {asked:,} URLs were refused: {'; '.join(shown)}"
    advice = [f"{reason}: {_ADVICE[reason]}" for reason in ranked[:_SHOWN] if reason in _ADVICE]
    return [first, *advice[: _SHOWN - 1]]


class _Warn(beam.DoFn):
    def process(self, element: bytes) -> Iterator[bytes]:
        lines = warnings(UnitResult.from_bytes(element).ledger)
        if lines:
            yield UnitResult("warnings", warnings=lines).to_bytes()


class WithWarnings(beam.PTransform):
    """bytes (unit results) -> the same, and one of the name `warnings` if the whole calls for it."""

    def expand(self, results: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        more = (
            results
            | "Whole" >> beam.CombineGlobally(MergeResults()).with_output_types(bytes)
            | "Warn" >> beam.ParDo(_Warn()).with_output_types(bytes)
        )
        return (results, more) | beam.Flatten()
