"""Formats that can be read, by name; nothing heavy is imported to list them."""

from collections.abc import Mapping

FORMATS: Mapping[str, str] = {
    "ml-100k": "MovieLens-100K folder: u.data, u.item, u.user [, overviews, posters]",
    "ml-1m": "MovieLens-1M folder: ratings, movies.dat, users.dat [, NCF's test files]",
    "ml-csv": "newer MovieLens folder: ratings.csv, movies.csv",
    "ku": "FedMR's NineRec folder: inter.csv and *_features.npy",
    "adjacency": "lists 'user item item ...': a folder with train and test, or a file",
    "tsv": "tab-separated user, item, rating [, time]: *.train.rating ..., or a file",
    "recbole": "RecBole's atomic files: .inter [, .item, .user]",
    "steam-200k": "Steam purchases: steam-200k.csv, or game_purchase.dat",
    "amazon": "comma-separated user,item,rating,timestamp without a header",
    "plays": "Shakespeare's plays by line: a speaking role is a user, a word an item",
    "completejourney": "a year of shopping, parquet: stores (or products, categories)",
    "table": "csv, tsv or parquet with header: user, item [, rating, timestamp, split]",
}
