"""How partitions look in tables, and how many of a node stand how."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from seeknal.cli.listing import MOST_SHOWN, listed
from seeknal.cli.output import WIDTH, Format, Printer, cells, shortened, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seeknal.model.records import Claim, PartitionReport, PartitionState
    from seeknal.model.status import PartitionStatus
    from seeknal.state.contract import StateBackend

COLUMNS = ("partition", "completed_at", "row_count", "run_id")
REPORT_COLUMNS = ("partition", "status", "row_count", "at", "run_id")
COUNTS = ("completed", "running", "failed", "missing")
NODE_COLUMNS = ("node_id", *COUNTS, "first", "last")
LONGEST_KEY = 30
"""Characters of a key that stands before an error, unless all are asked for."""


def standing(store: StateBackend, node: str) -> dict[str, int]:
    """Return how many partitions of a node stand how; reads no record of one, and keys only if some are expected."""
    from seeknal.model.status import PartitionStatus
    from seeknal.state.capabilities import Capability

    found: dict[str, PartitionStatus] = {}
    # Mostly nothing is expected, and then nothing has to be compared with what is completed.
    if Capability.EXPECTED in store.capabilities and store.list_expected_partitions(node, limit=1):
        found = dict.fromkeys(store.get_missing_partitions(node), PartitionStatus.MISSING)
    claims = store.list_claims(node) if Capability.CLAIMS in store.capabilities else []
    claimed = {claim.partition: _status(claim) for claim in claims if claim.partition is not None}
    for key, status in claimed.items():
        # What somebody else completed under a living claim is completed; a claim that has ended is not listed then.
        if status is not PartitionStatus.RUNNING or store.get_partition(node, key) is None:
            found[key] = status
    counts = Counter(status.value for status in found.values())
    return {"completed": store.count_partitions(node)} | {name: counts[name] for name in COUNTS[1:]}


def _status(claim: Claim) -> PartitionStatus:
    """Return how a claimed partition stands, as `list_partition_statuses` has it."""
    from seeknal.model.status import ClaimStatus, PartitionStatus

    if claim.status is ClaimStatus.CLAIMED:
        return PartitionStatus.RUNNING
    return PartitionStatus.MISSING if claim.error_message is None else PartitionStatus.FAILED


def summed_up(store: StateBackend, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the counts of each node that has partitions, and its first and last completed key."""
    sums: list[dict[str, Any]] = []
    for node in nodes:
        counts = standing(store, node)
        if not any(counts.values()):
            continue
        first, last = store.list_partitions(node, limit=1), store.list_partitions(node, limit=1, descending=True)
        keys = {
            "first": first[0].partition if first else None,
            "last": last[0].partition if last else None,
        }
        sums.append({"node_id": node} | counts | keys)
    return sums


def show_nodes(printer: Printer, sums: Sequence[dict[str, Any]]) -> None:
    """Print a line for each node."""
    empty = "no partitions are completed, and none is claimed or expected"
    if printer.style is not Format.TABLE:
        printer.rows(sums, (), empty="")
        return
    rows = [{name: shown(each[name]) for name in NODE_COLUMNS} for each in sums]
    printer.rows(fitted(rows, NODE_COLUMNS, ("node_id", "first", "last")), NODE_COLUMNS, empty=empty)


def read_pages(
    store: StateBackend, node: str, status: str | None, after: str | None, most: int | None
) -> Iterator[list[PartitionReport]]:
    """Yield how the partitions of a node stand, in pages; one more than ``most``, which tells that there are more."""
    from seeknal.state.partitions import PAGE_PARTITIONS

    left = None if most is None else most + 1
    while left is None or left > 0:
        size = PAGE_PARTITIONS if left is None else min(PAGE_PARTITIONS, left)
        page = store.list_partition_statuses(node, status=status, after=after, limit=size)
        yield page
        if len(page) < size:
            return
        after = page[-1].partition
        left = None if left is None else left - size


def show_pages(printer: Printer, pages: Iterator[list[PartitionReport]], most: int | None) -> str | None:
    """Print reports as JSON, in lines as they are read; return the key that the next page comes after, if any."""
    shown_ones: list[PartitionReport] = []
    last, count, is_more = "", 0, False
    for page in pages:
        part = page if most is None else page[: most - count]
        count, is_more = count + len(part), len(part) < len(page)
        last = part[-1].partition if part else last
        if printer.style is Format.JSONL:
            printer.rows(part, (), empty="")
        else:
            shown_ones += part
    if printer.style is not Format.JSONL:
        printer.rows(shown_ones, (), empty="")
    return last if is_more else None


def show_reports(
    printer: Printer, reports: Sequence[PartitionReport], more: str | None, *, empty: str, every: bool
) -> None:
    """Print a table of reports, and below it why those have failed that did.

    Args:
        printer: Where to.
        reports: What is shown.
        more: How the last line says that there are more, if there are.
        empty: What is remarked where there are none.
        every: Whether nothing is cut.
    """
    rows = [{name: shown(getattr(each, name)) for name in REPORT_COLUMNS} for each in reports]
    rows = rows if every else fitted(rows, REPORT_COLUMNS, ("partition", "run_id"))
    printer.rows(rows, REPORT_COLUMNS, empty=empty)
    if more is not None:
        sys.stdout.write(f"{more}\n")
    failed = [each for each in reports if each.status == "failed"]
    if failed:
        sys.stdout.write("\n")
    for each in failed:
        key = shown(each.partition) if every else shortened(shown(each.partition), LONGEST_KEY, "...")
        told = "is parked after" if each.is_parked else "failed in"
        attempt = f"{told} attempt {each.attempt}" if each.attempt else "failed"
        line = f"{key} {attempt}: {shown(' '.join((each.error_message or 'nobody said why').split()))}"
        sys.stdout.write(f"{line if every else shortened(line, WIDTH, '...')}\n")


def next_page(key: str, limit: int, status: str | None) -> str:
    """Return how to ask for what comes after a key, of one status or of any."""
    return f"{'' if status is None else f'--status {status} '}--after {shown(shlex.quote(key))} --limit {limit}"


def show_completed(printer: Printer, states: Sequence[PartitionState], *, empty: str = "") -> None:
    """Print completed partitions: all of them in JSON, in a table the first and the last ones."""
    half = MOST_SHOWN // 2
    seen = states if len(states) <= MOST_SHOWN else [*states[:half], *states[-half:]]
    rows = [{name: shown(getattr(each, name)) for name in COLUMNS} for each in seen]
    fit = dict(zip((each.partition for each in seen), fitted(rows, COLUMNS, ("partition", "run_id")), strict=True))
    listed(printer, states, lambda each: fit[each.partition], COLUMNS, empty=empty, every=None)


def fitted(rows: list[dict[str, str]], columns: Sequence[str], cut: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table with cells cut so that no line is wider than `WIDTH`, the widest columns first.

    Args:
        rows: The cells.
        columns: Of the table.
        cut: The columns whose cells may be cut; none gets narrower than its name.
    """
    widths = {name: max([len(name), *(cells(each[name]) for each in rows)]) for name in columns}
    while sum(widths.values()) + 2 * (len(columns) - 1) > WIDTH:
        wide = [name for name in cut if widths[name] > len(name)]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return [each | {name: shortened(each[name], widths[name], "...") for name in cut} for each in rows]
