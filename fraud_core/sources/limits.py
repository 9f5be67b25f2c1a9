"""Bounds on source files: how much a file may ask of this machine. A file of its own, which light processes can import."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """How much a file may ask of this machine before it is refused, and where files may come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expansion: int = Field(100, ge=1, description="Packed files and Parquet may grow to so many times their size (64 MB always).")
    unpacked_gb: float = Field(100, gt=0, description="And to so many gigabytes at most.")
    download_gb: float = Field(20, gt=0, description="The largest file that is fetched over https.")
    line_characters: int = Field(1_000_000, ge=1_000, description="The longest line of CSV, and the longest quoted cell.")
    columns: int = Field(10_000, ge=2, description="The most columns that a file may have, read or not.")
    private_hosts: tuple[str, ...] = Field(
        (), description="Names of hosts that may be fetched from although they lie in a private network or on this machine."
    )
