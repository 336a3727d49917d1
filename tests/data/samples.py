"""The smallest folder of each format, written by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

ITEM = "|01-Jan-1995||url|" + "|".join("0001" + "0" * 15)
COMEDY = "|01-Jan-1995||url|" + "|".join("00000" + "1" + "0" * 13)


def ml_100k(folder: Path) -> Path:
    write(folder / "u.data", "2\t1\t3\t50\n1\t2\t4\t70\n1\t1\t5\t60\n")
    write(folder / "u.user", "1|24|M|writer|85711\n2|53|F|other|94043\n")
    latin = f"1|Amélie{ITEM}\n2|Heat{COMEDY}\n".encode("latin-1")
    (folder / "u.item").write_bytes(latin)
    return folder


def ml_1m(folder: Path) -> Path:
    write(folder / "ratings.dat", "1::9::5::30\n1::4::3::20\n2::4::1::10\n2::9::2::5\n")
    write(folder / "movies.dat", "4::Jumanji (1995)::Adventure|Fantasy\n9::Up::Drama\n")
    write(folder / "users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def ncf(folder: Path) -> Path:
    write(folder / "ml-1m.test.rating", "0\t0\t5\t30\n1\t1\t1\t10\n")
    write(folder / "ml-1m.test.negative", "(1,1)\t0\t0\n(0,0)\t1\t1\n")
    return ml_1m(folder)


def ml_csv(folder: Path) -> Path:
    write(
        folder / "ratings.csv",
        "userId,movieId,rating,timestamp\r\n1,30,4.5,11\r\n1,7,0.5,10\r\n",
    )
    write(
        folder / "movies.csv",
        'movieId,title,genres\n7,"Day, The",Comedy|Drama\n30,Up,(no genres listed)\n',
    )
    return folder


def ku(folder: Path) -> Path:
    write(
        folder / "inter.csv",
        "userID,itemID,rating,timestamp,split_label\n"
        "0,1,1.0,1516237335600,0\n0,1,1.0,1516237335600,0\n1,0,1.0,1516237335601,2\n",
    )
    np.save(folder / "image_features.npy", np.ones((2, 3), dtype=np.float16))
    return folder


def lists(folder: Path) -> Path:
    write(folder / "train.txt", "0 5 2\n1 2\n")
    write(folder / "test.txt", "0 1\n1\n")
    return folder


def tsv(folder: Path) -> Path:
    write(folder / "ciao.train.rating", "0\t2\t5.0\n1\t0\t4.0\n")
    write(folder / "ciao.valid.rating", "0\t1\t1.0\n")
    write(folder / "ciao.test.rating", "1\t2\t2.0\n")
    return folder


def recbole(folder: Path) -> Path:
    write(
        folder / "x.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "b\t10\t3\t881250949\na\t9\t5\t891717742\n",
    )
    write(folder / "x.item", "item_id:token\tmovie_title:token_seq\n9\tNine\n10\tTen\n")
    write(folder / "x.user", "user_id:token\tage:token\na\t24\nb\t\n")
    return folder


def steam(folder: Path) -> Path:
    write(
        folder / "steam-200k.csv",
        '7,"Half-Life, 2",purchase,1.0,0\n7,"Half-Life, 2",play,9.5,0\n'
        '7,"Half-Life, 2",purchase,1.0,0\n3,Portal,purchase,1.0,0\n',
    )
    return folder


def amazon(folder: Path) -> Path:
    write(folder / "ratings.dat", "B,y,5.0,20\r\nA,x,2.0,10\r\nB,x,1.0,10\r\n")
    return folder


def plays(folder: Path) -> Path:
    write(
        folder / "shakespeare.txt",
        "hamlet@0\tHAMLET\tTo be, or not to be.\nhamlet@9\t\tThat's it\n"
        "hamlet@20\t\nhamlet@30\t\tACT II\nhamlet@40\tGHOST\tBe!\n",
    )
    return folder


def table(folder: Path) -> Path:
    write(
        folder / "log.csv",
        "Rating,USER_ID,extra,movieId,timestamp,split\n"
        "2,ann,?,z,30,train\n4.5,ann,?,y,,val\n3,bob,?,z,20,test\n",
    )
    return folder


def journey(folder: Path, when: str = "2017-01-02 10:00:00") -> Path:
    rows = [
        (1, 9, 70, 501, when),
        (1, 9, 70, 502, when),
        (1, 8, 71, 501, "2017-01-01 09:00:00"),
        (2, 9, 72, 503, "2017-01-05 12:30:00"),
    ]
    names = ("household_id", "store_id", "basket_id", "product_id")
    frame = pd.DataFrame(rows, columns=[*names, "transaction_timestamp"])
    if when != "?":
        frame["transaction_timestamp"] = pd.to_datetime(frame["transaction_timestamp"])
    frame.to_parquet(folder / "transactions.parquet")
    products = {"product_id": [501, 502, 503], "product_category": ["A", "A", None]}
    pd.DataFrame(products).to_parquet(folder / "products.parquet")
    return folder


def write(path: Path, words: str) -> None:
    path.write_bytes(words.encode())


MAKERS: dict[str, Callable[[Path], Path]] = {
    "ml-100k": ml_100k,
    "ml-1m": ml_1m,
    "ml-csv": ml_csv,
    "ku": ku,
    "adjacency": lists,
    "tsv": tsv,
    "recbole": recbole,
    "steam-200k": steam,
    "amazon": amazon,
    "plays": plays,
    "completejourney": journey,
    "table": table,
}
