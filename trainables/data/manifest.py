"""A data set that is a CSV table."""

from pathlib import Path

from trainables.data.listing import Listing
from trainables.data.request import DataRequest


def list_manifest(path: Path, request: DataRequest) -> Listing:
    raise NotImplementedError
