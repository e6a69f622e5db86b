"""Sources and sinks: where listings come from and where results go."""

from pipeline.io.stores import Columns, Seal, exactly, read, sink, source, write

__all__ = ["Columns", "Seal", "exactly", "read", "sink", "source", "write"]
