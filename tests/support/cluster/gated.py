"""`nightprice`, with tasks that wait at a gate: whoever opens it decides what has happened before.

python -m tests.support.cluster.gated GATE COMMAND --source gated://FOLDER …
Every file is a task. The tasks of the first half of the files go through, the others leave
`GATE/waiting/FILE@ADDRESS` and wait for `GATE/open`.
"""

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from nightprice.ray_environment import configure_pipeline
from pipeline.cli import commands as cli


def wait_at_gate(block: pa.Table, gate: Path) -> Iterator[pa.Table]:
    import ray.util

    yield block.slice(0, 10)
    file = Path(block["source_file"][0].as_py())
    if int(file.stem.split("-")[1]) >= int((gate / "half").read_text()):
        (gate / "waiting" / f"{file.stem}@{ray.util.get_node_ip_address()}").touch()
        while not (gate / "open").exists():
            time.sleep(0.05)
    yield block.slice(10)


def main(gate: str) -> None:
    configure_pipeline()
    from pipeline.cluster.arrow_tasks import map_tables
    from pipeline.io import Address, Columns, Source, Store, parse_address, read, register
    from pipeline.io.files import read as read_module

    class Gated(Store):
        def read(self, address: Address, columns: Columns) -> Source:
            files = read(parse_address(address.text.removeprefix("gated://")), columns)
            return Source(map_tables(files.rows, partial(wait_at_gate, gate=Path(gate))), files.description)

    read_module.SMALLEST_TASK_BYTES = 1
    register("gated", Gated())
    cli.main()


if __name__ == "__main__":
    main(sys.argv.pop(1))
