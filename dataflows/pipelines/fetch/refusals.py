"""What to say at the end of a fetch that hardly any picture came from: why, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam

from dataflows.transforms.results import UnitResult, merge_results
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


class _Alone(beam.DoFn):
    """A unit's result -> the same under one key."""

    def process(self, element: bytes) -> Iterator[tuple[str, bytes]]:
        yield "", element


class _Warn(beam.DoFn):
    """All units' results -> one that has only the warnings; none if there are none."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[bytes]:
        _, results = element
        # Those that came twice count once here.
        whole = merge_results(UnitResult.from_bytes(result) for result in results)
        lines = warnings(whole.ledger)
        if lines:
            yield UnitResult("warnings", warnings=lines).to_bytes()


class WithWarnings(beam.PTransform):
    """bytes (unit results) -> the same, and one of the name `warnings` if the whole calls for it."""

    def expand(self, results: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        more = (
            results
            | "Together" >> beam.ParDo(_Alone()).with_output_types(tuple[str, bytes])
            | "Whole" >> beam.GroupByKey()
            | "Warn" >> beam.ParDo(_Warn()).with_output_types(bytes)
        )
        return (results, more) | beam.Flatten()
