"""Conservation (DESIGN section 3): in + created = out + rejected + merged + sampled_out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schemas.errors import IntegrityError
from schemas.reasons import REASONS

KINDS = ("in", "created", "out", "rejected", "merged", "sampled_out")
"""Kinds of ledger rows: two that bring rows, four that say where they went."""

UNITS = ("record", "text", "image", "entry", "document")
"""Units that are counted."""

_MOD = 1 << 128


class Ledger:
    """Counts by (unit, kind, reason), each with an order-free sum of the ids it counted.

    ``in`` and ``out`` take the empty reason; the other kinds need a reason of the registry.
    Ledgers of parts add up with ``merge``; travelling as data, never as runner metrics.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], tuple[int, int]] = {}

    def add(self, unit: str, kind: str, reason: str, count: int, id_sum: int = 0) -> None:
        """Add ``count`` rows of a unit (and the ``id_sum`` of their ids, mod 2**128)."""
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}; known: {', '.join(UNITS)}")
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
        if (kind in ("in", "out")) != (reason == "") or (reason and reason not in REASONS):
            raise ValueError(
                f"reason {reason!r} is not allowed for kind {kind!r}: in and out take no reason, "
                "others one registered in schemas/reasons.py"
            )
        if count < 0:
            raise ValueError(f"count {count} of {unit}/{kind}/{reason} is negative")
        old = self._rows.get((unit, kind, reason), (0, 0))
        self._rows[unit, kind, reason] = (old[0] + int(count), (old[1] + int(id_sum)) % _MOD)

    def merge(self, other: Ledger) -> None:
        """Add all rows of another ledger."""
        for (unit, kind, reason), (count, total) in other._rows.items():
            self.add(unit, kind, reason, count, total)

    def remove(self, unit: str, kind: str) -> tuple[int, int]:
        """Take all rows of a kind out of the ledger; returns their count and id sum.

        Two steps of one stage hand rows over: what the first has ``out`` is what the second has
        ``in``, and neither belongs in the stage's account.
        """
        taken = self.count(unit, kind), self.id_sum(unit, kind)
        self._rows = {k: v for k, v in self._rows.items() if k[:2] != (unit, kind)}
        return taken

    def count(self, unit: str, kind: str, reason: str | None = None) -> int:
        """Return the count of a kind (of one reason, or of all)."""
        return sum(
            n
            for (u, k, r), (n, _) in self._rows.items()
            if u == unit and k == kind and reason in (None, r)
        )

    def id_sum(self, unit: str, kind: str) -> int:
        """Return the id sum of a kind over all its reasons."""
        rows = self._rows.items()
        return sum(s for (u, k, _), (_, s) in rows if u == unit and k == kind) % _MOD

    def rows(self) -> list[dict[str, Any]]:
        """Return rows sorted by unit, kind and reason, as manifests hold them."""
        return [
            {"unit": u, "kind": k, "reason": r, "count": n, "id_sum": f"{s:032x}"}
            for (u, k, r), (n, s) in sorted(
                self._rows.items(),
                key=lambda kv: (UNITS.index(kv[0][0]), KINDS.index(kv[0][1]), kv[0][2]),
            )
        ]

    to_json = rows

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]]) -> Ledger:
        """Read what ``rows`` wrote."""
        ledger = cls()
        for row in rows:
            total = int(row.get("id_sum") or "0", 16)
            ledger.add(row["unit"], row["kind"], row["reason"], row["count"], total)
        return ledger

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self._rows == other._rows

    def __repr__(self) -> str:
        return f"Ledger({self.rows()!r})"

    def check(
        self,
        *,
        parents: Mapping[str, int] | None = None,
        out: Mapping[str, int] | None = None,
        out_id_sum: Mapping[str, int] | None = None,
    ) -> None:
        """Raise IntegrityError unless every unit balances, in counts and in id sums.

        ``parents`` gives what the input manifests say per unit, ``out`` (``out_id_sum``) what was
        really written. Id sums are compared for a unit only if both sides carry one, because
        generated rows or merged images may have none.
        """
        faults: list[str] = []
        for unit in UNITS:
            if not any(u == unit for u, _, _ in self._rows):
                continue
            faults += self._balance(unit)
        for unit, total in (parents or {}).items():
            found = self.count(unit, "in")
            if found != total:
                faults.append(
                    f"{unit}: the ledger has {found} rows in, the input manifests {total}"
                )
        for unit, total in (out or {}).items():
            found = self.count(unit, "out")
            if found != total:
                faults.append(f"{unit}: the ledger has {found} rows out, the shards {total}")
        for unit, total in (out_id_sum or {}).items():
            found = self.id_sum(unit, "out")
            if found and found != total:
                faults.append(
                    f"{unit}: the ids counted out (sum {found:032x}) are not the ids written "
                    f"(sum {total:032x})"
                )
        if faults:
            raise IntegrityError(
                "rows do not balance, so nothing was committed: "
                + "; ".join(faults)
                + ". Rows were lost or doubled between two steps; this is a fault of the stage, "
                "not of the input"
            )

    def _balance(self, unit: str) -> list[str]:
        n = {kind: self.count(unit, kind) for kind in KINDS}
        s = {kind: self.id_sum(unit, kind) for kind in KINDS}
        left, right = n["in"] + n["created"], sum(n[k] for k in KINDS[2:])
        if left != right:
            terms = " + ".join(f"{k} {n[k]}" for k in KINDS[2:])
            return [
                f"{unit}: in {n['in']} + created {n['created']} = {left}, but {terms} = {right}"
            ]
        brought = (s["in"] + s["created"]) % _MOD
        went = sum(s[k] for k in KINDS[2:]) % _MOD
        if brought and went and brought != went:
            return [f"{unit}: counts balance but ids do not (sum {brought:032x} != {went:032x})"]
        return []
