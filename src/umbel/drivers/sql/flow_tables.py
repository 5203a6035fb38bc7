"""The tables of workflows: umbel's own. They are made at the first workflow, so results alone need no rights on them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, String, Table
from sqlalchemy.engine import Engine

from umbel.drivers.sql.tables import BYTES, FORM, make_all

__all__ = ["FlowTables"]

OPTIONS = {name: value for name, value in FORM.items() if name != "sqlite_autoincrement"}
LONGEST = 255  # characters of an id


class FlowTables:
    """A row of `flows` says how long a flow lives, and is locked by who changes anything of it."""

    def __init__(self, schema: str | None) -> None:
        self._metadata = MetaData()
        self._schema = schema
        self.flows = self._table("umbel_workflow", Column("id", String(LONGEST), primary_key=True), Column("expires", Double, index=True))
        self.nodes = self._table("umbel_workflow_node", flow(), key("number"), Column("node", BYTES, nullable=False))
        self.joins = self._table(
            "umbel_workflow_join",
            flow(),
            key("number"),
            Column("size", Integer, nullable=False),
            Column("done", Integer, nullable=False),
            Column("decider", Integer),  # the position of the part that ended it, -1 if it had none; null: it is not over
            Column("failed", String(LONGEST)),
            Column("failure", BYTES),
            Column("sent", Boolean, nullable=False),
            Column("since", Double, index=True),  # when it was over, or somebody asked to answer for it; null: not over, or sent
            Column("data", BYTES, nullable=False),
        )
        self.parts = self._table("umbel_workflow_part", flow(), key("number"), key("position"), Column("value", BYTES, nullable=False))
        self.grown = self._table(
            "umbel_workflow_growth", flow(), key("number"), Column("name", String(LONGEST), primary_key=True), Column("position", Integer)
        )
        # What expires by itself: "c", the copy of a task's message that has started, and "g", a document of a group.
        self.kept = self._table(
            "umbel_kept",
            Column("kind", String(1), primary_key=True),
            Column("id", String(LONGEST), primary_key=True),
            Column("value", String(LONGEST), nullable=False),
            Column("expires", Double, index=True),
        )
        self.of_a_flow = (self.nodes, self.parts, self.grown, self.joins)

    def _table(self, name: str, *columns: Column[Any]) -> Table:
        return Table(name, self._metadata, *columns, schema=self._schema, **OPTIONS)

    def prepare(self, engine: Engine) -> None:
        """Make what is missing; others may do it at the same moment."""
        make_all(self._metadata, engine)


def flow() -> Column[str]:
    """Return the column that names the flow."""
    return Column("flow", String(LONGEST), primary_key=True)


def key(name: str) -> Column[int]:
    """Return a number that is part of the key."""
    return Column(name, BigInteger, primary_key=True, autoincrement=False)
