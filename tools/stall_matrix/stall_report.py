"""The tables of the stall matrix: verdicts of cells merged to rows, as text for docs/, as JSON."""

import statistics

COLUMNS = (
    "",  # transport
    "stage",
    "fault",
    "cells",
    "error",
    "after",
    "back",
    "worst step",
    "TLS step",
    "",  # verdict
)
OK, WRONG = "ok", "WRONG"

INTRODUCTION = """\
What the client does when its server stalls or breaks, at every stage, and how long a single
`step(0)` takes meanwhile. Made by `tools/stall_matrix.py`; do not edit."""

LEGEND = """\
A cell is one fault at one byte (or one variant of it); a row has all cells of one stage and fault.

- **error**: what `on_offline` got: class and `.stage`; "-" is none. It was compared with what
  [API](api.md) and [user guide](user-guide.md#errors) say. Where there are two, it depends on the
  byte, or on which of two events came first.
- **after**: milliseconds from the fault (or from the beginning of the attempt, if that has the
  deadline) to the error, in the slowest cell.
  `connect_timeout_ms` is {timeouts}, `keep_alive_s` 1.
- **back**: milliseconds from the end of the fault until a QoS 1 and a QoS 2 message that were
  published meanwhile had been acknowledged, in the slowest cell. The client came back by itself;
  the server got the QoS 2 message once, and the client got a QoS 2 message from the server once.
- **worst step**: the longest single `step(0)`, from `connect()` to the end of the cell, recovery
  included, in milliseconds of wall time in the client's process. This includes garbage collection
  and the machine's scheduling. A cell with a step above {bound:g} ms was run again, up to
  {again} times, and the smallest of the maxima counts: {repeated}.
- **TLS step**: the same for the steps that began or ended in the state `TLS_HANDSHAKE`, or went
  through it: public key cryptography. The column before does not include them; they have no bound
  (a cell with one above {noise:g} ms was run again, too). The column before includes the
  encryption of data."""


class Row:
    """All verdicts of one transport, stage and fault in one interpreter."""

    def __init__(self, key):
        self.key = key
        self.verdicts = []

    def _largest(self, name):
        values = [getattr(verdict, name) for verdict in self.verdicts]
        values = [value for value in values if value is not None]
        return max(values) if values else None

    @property
    def errors(self):
        """The errors seen, in the order in which they came first."""
        found = []
        for verdict in self.verdicts:
            found += [error for error in verdict.errors or ["-"] if error not in found]
        return found

    @property
    def wrong_count(self):
        return sum(bool(verdict.wrongs) for verdict in self.verdicts)

    def as_dict(self):
        transport, stage, fault = self.key
        return {
            "transport": transport,
            "stage": stage,
            "fault": fault,
            "cells": len(self.verdicts),
            "wrong": self.wrong_count,
            "errors": self.errors,
            "after_ms": self._largest("after_ms"),
            "back_ms": self._largest("back_ms"),
            "worst_us": self._largest("worst_us"),
            "worst_tls_us": self._largest("worst_tls_us"),
        }

    def texts(self):
        """Return the fields of the row for people, in the order of COLUMNS."""
        row = self.as_dict()
        is_tls = row["transport"] == "TLS"
        return (
            row["transport"],
            row["stage"],
            row["fault"],
            str(row["cells"]),
            ", ".join(row["errors"]),
            whole_ms(row["after_ms"]),
            whole_ms(row["back_ms"]),
            ms_of(row["worst_us"]),
            ms_of(row["worst_tls_us"]) if is_tls else "",
            "%s %d" % (WRONG, row["wrong"]) if row["wrong"] else OK,
        )


def whole_ms(value):
    return "" if value is None else "%.0f" % value


def ms_of(value_us):
    return "" if value_us is None else "%.2f" % (value_us / 1000)


def merge(verdicts):
    """Return the rows of one interpreter's verdicts, in the order of their first cells."""
    rows = {}
    for verdict in verdicts:
        key = verdict.cell.row
        rows.setdefault(key, Row(key)).verdicts.append(verdict)
    return list(rows.values())


def summary(verdicts, bound_us):
    """Return one line about all cells of an interpreter."""
    steps = [verdict.worst_us for verdict in verdicts if verdict.worst_us is not None]
    tls_steps = [verdict.worst_tls_us for verdict in verdicts if verdict.worst_tls_us]
    wrong_count = sum(bool(verdict.wrongs) for verdict in verdicts)
    text = "%d cells, %d wrong" % (len(verdicts), wrong_count)
    if steps:
        late = sum(step_us > bound_us for step_us in steps)
        text += "; %d steps measured; longest step(0) %s ms (half of the cells: at most %s), " % (
            sum(verdict.steps for verdict in verdicts),
            ms_of(max(steps)),
            ms_of(statistics.median_low(steps)),
        )
        text += "%s above %g ms" % (
            "%d cells" % late if late else "none",
            bound_us / 1000,
        )
    if tls_steps:
        text += "; longest TLS handshake step %s ms" % ms_of(max(tls_steps))
    return text


def repetitions(verdicts):
    """Return a sentence on the cells that ran more than once."""
    again = [verdict for verdict in verdicts if verdict.runs > 1]
    if not again:
        return "no cell had to be"
    return "%d of %d cells were" % (len(again), len(verdicts))


def legend(timeouts, bound_us, noise_us, runs_max, verdicts):
    """Return LEGEND for one run of the tool.

    Args:
        timeouts: transport -> connect_timeout_ms.
        bound_us, noise_us: steps, and those of TLS, were measured again above that.
        runs_max: how often a cell runs.
    """
    values = list(timeouts.items())
    if len({value for _, value in values}) == 1:
        said = "%d" % values[0][1]
    else:
        said = ", ".join("%d (%s)" % (value, name) for name, value in values)
    return LEGEND.format(
        timeouts=said,
        bound=bound_us / 1000,
        noise=noise_us / 1000,
        again=runs_max - 1,
        repeated=repetitions(verdicts),
    )


def markdown_table(rows):
    """Return the rows as a table of Markdown."""
    lines = ["| %s |" % " | ".join(COLUMNS)]
    numeric = ("cells", "after", "back", "worst step", "TLS step")
    lines.append("|%s|" % "|".join("---:" if name in numeric else "---" for name in COLUMNS))
    for row in rows:
        lines.append("| %s |" % " | ".join(row.texts()))
    return "\n".join(lines)


def markdown(head, verdicts_by_interpreter, bound_us, legend_text):
    """Return the page.

    Args:
        head: lines with the date, the command and the like.
        verdicts_by_interpreter: interpreter (.name, .version, .remark) -> verdicts.
    """
    parts = [
        "# Stall matrix",
        INTRODUCTION,
        "\n".join("- " + line for line in head),
        legend_text,
    ]
    for interpreter, verdicts in verdicts_by_interpreter.items():
        parts.append("## %s" % interpreter.name)
        parts.append(
            "%s. %s." % (interpreter.version + interpreter.remark, summary(verdicts, bound_us))
        )
        parts.append(markdown_table(merge(verdicts)))
        wrong = [verdict for verdict in verdicts if verdict.wrongs]
        if wrong:
            lines = ["Wrong:", ""]
            for verdict in wrong:
                lines.append("- %s: %s" % (verdict.cell.name, "; ".join(verdict.wrongs)))
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def as_json(verdicts_by_interpreter):
    """Return everything as what JSON can say."""
    return [
        {
            "interpreter": interpreter.name,
            "version": interpreter.version,
            "rows": [row.as_dict() for row in merge(verdicts)],
            "cells": [
                {
                    "name": verdict.cell.name,
                    "runs": verdict.runs,
                    "wrongs": verdict.wrongs,
                    "errors": verdict.errors,
                    "after_ms": verdict.after_ms,
                    "back_ms": verdict.back_ms,
                    "steps": verdict.steps,
                    "worst_us": verdict.worst_us,
                    "worst_at": verdict.worst_at,
                    "worst_tls_us": verdict.worst_tls_us,
                }
                for verdict in verdicts
            ],
        }
        for interpreter, verdicts in verdicts_by_interpreter.items()
    ]
