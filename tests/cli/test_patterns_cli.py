"""``nsysmoe routing patterns`` and ``routing padding``, and what stands beside a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import nsysmoe
from nsysmoe.metrics.routed_load.padding import reroute
from tests.cli.test_cli import run
from tests.conftest import GRAPHS

LOG, RECORD = GRAPHS / "eplb_off.routed.npz", GRAPHS / "eplb_off.run.json"
FORMATS = ["table", "markdown", "csv", "json", "latex", "html"]


def answer(*arguments: str | Path) -> Any:
    found = run("routing", *arguments, "--format", "json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def refusal(*arguments: str | Path) -> str:
    found = run("routing", *arguments)
    assert found.exit_code == 1, found.output
    assert found.stderr.count("\n") == 1
    return found.stderr


def domains(path: Path, requests: int) -> Path:
    """Write the domains of requests: one half each."""
    names = {f"r{n}": "code" if n % 2 else "chat" for n in range(requests)}
    path.write_text(json.dumps(names), encoding="utf-8")
    return path


def skewed(path: Path, requests: int = 24, tokens: int = 40) -> Path:
    """Write a log in which the requests of one domain like expert 5 more."""
    random = np.random.default_rng(0)
    routes: dict[str, Any] = {}
    for number in range(requests):
        weights = random.gumbel(size=(tokens, 2, 8))
        weights[:, :, 5] += 2.0 * (number % 2)
        routes[f"r{number}"] = np.argsort(-weights, axis=2)[:, :, :2]
    np.savez(path, **routes)
    return path


def test_the_real_logs_prefill_tells_its_decode() -> None:
    found = answer("patterns", LOG, "--run", RECORD)
    assert (found["by"], found["layers"], found["experts"], found["top_k"]) == ("phase", 8, 8, 2)
    rows = {row["measure"]: row for row in found["agreement"]}
    lengths = [
        row["prompt_tokens"] for row in json.loads(RECORD.read_text())["runs"][-1]["requests"]
    ]
    with np.load(LOG) as arrays:
        routes = [arrays[f"r{n}"] for n in range(len(arrays.files))]
    prefill, decode = (
        np.stack([
            np.bincount(
                np.concatenate([route[part(length), layer].reshape(-1)
                                for route, length in zip(routes, lengths, strict=False)]),
                minlength=8,
            )
            for layer in range(8)
        ])
        for part in (lambda length: slice(0, length), lambda length: slice(length, None))
    )  # fmt: skip
    by_hand = [np.corrcoef(*both)[0, 1] for both in zip(prefill, decode, strict=True)]
    assert rows["pearson"]["mean"] == pytest.approx(float(np.mean(by_hand)))
    assert [row["pearson"] for row in found["phases"]] == pytest.approx(by_hand)
    assert rows["pearson"]["own"] > rows["pearson"]["others"]
    assert rows["top_overlap"]["by_chance"] == 0.25
    # Weights are random: layers are independent, as far as chance can tell.
    assert all(row["next"] < 2 * row["next_chance"] for row in found["together"][:-1])
    shares = [row for row in found["popularity"] if (row["group"], row["layer"]) == ("decode", 3)]
    assert sum(row["share"] for row in shares) == pytest.approx(1)
    assert [row["tokens"] for row in shares] == decode[3].tolist()


def test_a_shift_between_domains_is_told_from_chance(tmp_path: Path) -> None:
    log = skewed(tmp_path / "a.npz")
    found = answer("patterns", log, "--domains", domains(tmp_path / "d.json", 24))
    (shift,) = found["shifts"]
    assert (found["by"], shift["one"], shift["other"]) == ("domain", "chat", "code")
    assert shift["distance"] > 2 * shift["chance"]
    assert shift["p"] < 0.05
    assert [row["requests"] for row in found["groups"]] == [12, 12]
    # The same requests under names that have nothing to do with them.
    names = {f"r{n}": "code" if n % 4 < 2 else "chat" for n in range(24)}
    (tmp_path / "e.json").write_text(json.dumps(names), encoding="utf-8")
    (none,) = answer("patterns", log, "--domains", tmp_path / "e.json")["shifts"]
    assert none["p"] > 0.05
    assert none["distance"] < none["chance_p95"]


def test_domains_in_every_form_are_the_same(tmp_path: Path) -> None:
    log = skewed(tmp_path / "a.npz", requests=4)
    whole = answer("patterns", log, "--domains", domains(tmp_path / "d.json", 4))
    prompts = "".join(
        json.dumps({"prompt": "x", "domain": "code" if n % 2 else "chat"}) + "\n" for n in range(4)
    )
    (tmp_path / "d.jsonl").write_text(prompts, encoding="utf-8")
    (tmp_path / "d.csv").write_text(
        "request,domain\nr0,chat\nr1,code\nr2,chat\nr3,code\n", encoding="utf-8"
    )
    loaded = tmp_path / "o.parquet"
    assert run("routing", "load", log, "-o", loaded,
               "--domains", tmp_path / "d.csv").exit_code == 0  # fmt: skip
    assert set(pl.read_parquet(loaded)["domain"]) == {"chat", "code"}
    for arguments in ((log, "--domains", tmp_path / "d.jsonl"),
                      (log, "--domains", tmp_path / "d.csv"), (loaded,)):  # fmt: skip
        assert answer("patterns", *arguments)["shifts"] == whole["shifts"]


def test_one_request_a_domain_says_nothing_of_domains(tmp_path: Path) -> None:
    log = skewed(tmp_path / "a.npz", requests=2)
    found = answer("patterns", log, "--domains", domains(tmp_path / "d.json", 2))
    assert found["shifts"][0]["p"] is None
    assert "few_requests" in [row["code"] for row in found["findings"]]


def test_phases_come_from_the_record(tmp_path: Path) -> None:
    output = tmp_path / "o.parquet"
    assert run("routing", "load", LOG, "--run", RECORD, "-o", output).exit_code == 0
    rows = pl.read_parquet(output)
    lengths = [
        row["prompt_tokens"] for row in json.loads(RECORD.read_text())["runs"][-1]["requests"]
    ]
    for number in (0, rows["request"].n_unique() - 1):
        part = rows.filter(pl.col("request") == f"r{number}", phase="prefill")
        assert part["token"].n_unique() == min(lengths[number], part["token"].max() + 1)  # type: ignore[operator]
    assert set(rows["phase"]) == {"prefill", "decode"}
    assert (
        answer("patterns", output)["agreement"]
        == (answer("patterns", LOG, "--run", RECORD)["agreement"])
    )


def padded(folder: Path, side: str, tokens: str = "request") -> tuple[Path, Path, pl.DataFrame]:
    """Write padded batches of 4 rows; padding takes experts 0 and 1. Return log, lengths, rows."""
    random = np.random.default_rng(2)
    parts, lengths = [], []
    for batch in range(3):
        sizes = random.integers(5, 60, 4)
        longest = int(sizes.max())
        for row, size in enumerate(sizes):
            lengths.append((f"{batch}", int(size), f"b{batch}-{row}"))
            route = np.argsort(random.random((longest, 2, 8)), axis=2)[:, :, :2]
            place = np.arange(longest)
            is_padding = place < longest - size if side == "left" else place >= size
            route[is_padding] = [0, 1]
            index = np.indices(route.shape).reshape(3, -1)
            parts.append(
                pl.DataFrame(
                    {
                        "request": f"b{batch}-{row}",
                        "step": batch,
                        "token": index[0] + (row * longest if tokens == "batch" else 0),
                        "layer": index[1],
                        "k": index[2],
                        "expert": route.reshape(-1),
                        "pad": is_padding[index[0]],
                    }
                )
            )
    rows = pl.concat(parts)
    kept = ["token", "layer", "k", "expert"] + (["request"] if tokens == "request" else ["step"])
    rows.select(kept).write_parquet(folder / "a.parquet")
    table = pl.DataFrame(lengths, schema=["batch", "length", "request"], orient="row")
    if tokens == "batch":
        table = table.drop("request")
    table.write_csv(folder / "lengths.csv")
    return folder / "a.parquet", folder / "lengths.csv", rows


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens", ["request", "batch"])
def test_padding_is_marked_by_lengths(tmp_path: Path, side: str, tokens: str) -> None:
    log, lengths, rows = padded(tmp_path, side, tokens)
    output = tmp_path / "o.parquet"
    found = run("routing", "load", log, "--lengths", lengths, "--padding-side", side, "-o", output)
    assert found.exit_code == 0, found.output
    marked = pl.read_parquet(output)
    assert marked["padding"].to_list() == rows["pad"].to_list()
    assert marked["step"].to_list() == rows["step"].to_list()
    # A column of the log is as good as a file beside it.
    rows.rename({"pad": "padding"}).write_csv(tmp_path / "p.csv")
    by_column = answer("padding", tmp_path / "p.csv", "--batches", "2x3")
    by_file = answer("padding", log, "--lengths", lengths, "--padding-side", side,
                     "--batches", "2x3")  # fmt: skip
    assert by_file["marked"] == by_column["marked"]


def test_rerouting_of_what_a_log_marks_is_that_of_tokens(tmp_path: Path) -> None:
    log, lengths, rows = padded(tmp_path, "left")
    found = answer("padding", log, "--lengths", lengths)
    cells: dict[str, list[float]] = {"real": [], "padded": [], "rerouted": []}
    for (_, _), part in rows.group_by("step", "layer", maintain_order=True):
        tokens = part.group_by("request", "token", maintain_order=True).agg("expert", "pad")
        chosen = np.array(tokens["expert"].to_list())
        is_padding = np.array([row[0] for row in tokens["pad"].to_list()])
        moved = reroute(chosen, is_padding, 8)
        for what, kept in (("real", chosen[~is_padding]), ("padded", chosen), ("rerouted", moved)):
            loads = np.bincount(kept.reshape(-1), minlength=8)
            cells[what].append(float(loads.std() / loads.mean()))
    by_what = {row["what"]: row["cv"] for row in found["marked"]}
    assert by_what == pytest.approx({what: np.mean(values) for what, values in cells.items()})
    assert by_what["rerouted"] < by_what["real"] < by_what["padded"]
    assert found["padding_tokens"] * 2 * 2 == rows["pad"].sum()
    # Moved padding is as much as there was, in every layer.
    padding, moved = (np.array(found["heat"][what]) for what in ("padding", "rerouted"))
    assert padding.sum(axis=1).tolist() == moved.sum(axis=1).tolist()


def test_the_slides_settings_fall_with_the_batch(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sizes = np.clip(random.lognormal(3, 0.7, 400).astype(int), 3, 200)
    bias = random.normal(0, 0.5, (3, 16))
    routes: dict[str, Any] = {
        f"r{n}": np.argsort(-(bias + random.gumbel(size=(size, 3, 16))), axis=2)[:, :, :4]
        for n, size in enumerate(sizes)
    }
    np.savez(tmp_path / "a.npz", **routes)
    found = answer("padding", tmp_path / "a.npz")
    rows = [row for row in found["settings"] if row["order"] == "unsorted"]
    assert [(row["batch_size"], row["batches"]) for row in rows] == [
        (8, 50), (16, 20), (32, 10), (64, 5),
    ]  # fmt: skip
    assert [row["code"] for row in found["findings"]] == ["assumed_padding"]
    rerouted = [row["rerouted_cv"] for row in rows]
    assert rerouted == sorted(rerouted, reverse=True)
    for row in rows:
        assert row["rerouted_cv"] < row["real_cv"] < row["padded_cv"]
    even = [row for row in found["settings"] if row["order"] == "sorted"]
    for one, other in zip(rows, even, strict=True):
        assert other["padding_share"] < 0.8 * one["padding_share"]
        assert other["real_tokens"] == one["real_tokens"]
    # All 400 requests once: the padding is what their lengths say.
    assert rows[0]["real_tokens"] == sizes.sum()


def test_equal_prompts_need_no_padding() -> None:
    found = answer("padding", LOG, "--run", RECORD)
    assert {row["padding_tokens"] for row in found["settings"]} == {0}
    assert "equal_lengths" in [row["code"] for row in found["findings"]]
    assert all(row["real_cv"] == row["rerouted_cv"] for row in found["settings"])


def test_marked_padding_is_no_dummy_run(tmp_path: Path) -> None:
    lines = [
        {"req_id": "r0", "token_idx": token, "layer": 0, "topk_ids": [0, 1], "padding": token < 40}
        for token in range(44)
    ]
    log = tmp_path / "a.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    output = tmp_path / "o.parquet"
    assert run("routing", "load", log, "-o", output).exit_code == 0
    rows = pl.read_parquet(output)
    # Four real tokens of the first experts alone look like a dummy run's, padding does not.
    assert rows["padding"].to_list() == [True] * 80
    whole = {"iteration": 3, "topk_ids": [[0, 1], [2, 3]], "is_padding": [True, False]}
    log.write_text(json.dumps(whole) + "\n", encoding="utf-8")
    assert run("routing", "load", log, "-o", output).exit_code == 0
    assert pl.read_parquet(output)["padding"].to_list() == [True, True, False, False]


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format(format_: str, tmp_path: Path) -> None:
    log, lengths, _ = padded(tmp_path, "left")
    for command in (
        ("patterns", LOG, "--run", RECORD),
        ("patterns", skewed(tmp_path / "a.npz"), "--domains", domains(tmp_path / "d.json", 24)),
        ("padding", log, "--lengths", lengths),
    ):
        found = run("routing", *command, "--format", format_)
        assert found.exit_code == 0, found.output
        assert found.stdout


def test_pages_have_their_pictures(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    found = run("routing", "patterns", LOG, "--run", RECORD, "-o", page)
    assert found.exit_code == 0, found.output
    text = page.read_text(encoding="utf-8")
    for caption in (
        "Popularity of experts by layer: prefill",
        "Experts that tokens choose together",
        "Experts that follow in the next layer",
        "Prefill against decode by layer",
    ):
        assert caption in text
    log, lengths, _ = padded(tmp_path, "left")
    assert run("routing", "padding", log, "--lengths", lengths, "-o", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    for caption in ("CV by batch size", "Real tokens by layer", "Padding, rerouted by layer"):
        assert caption in text


def test_what_cannot_be_answered_is_said_in_one_line(tmp_path: Path) -> None:
    counts = tmp_path / "c.csv"
    counts.write_text("layer,expert,tokens\n0,1,5\n", encoding="utf-8")
    assert "holds counts" in refusal("patterns", counts)
    assert "holds counts" in refusal("load", counts, "--run", RECORD, "-o", tmp_path / "o.parquet")
    assert "tells no domains" in refusal("patterns", LOG, "--by", "domain")
    assert "tells no phases" in refusal("patterns", LOG, "--by", "phase")
    nameless = tmp_path / "n.csv"
    nameless.write_text("layer,token,expert\n0,0,1\n", encoding="utf-8")
    assert "marks no padding" in refusal("padding", nameless)
    assert "names no requests" in refusal("patterns", nameless, "--run", RECORD)
    assert "--experts says 2" in refusal("padding", LOG, "--experts", "2")
    assert run("routing", "padding", LOG, "--batches", "8by50").exit_code == 2
    assert run("routing", "padding", LOG, "--batches", "0x5").exit_code == 2


@pytest.mark.parametrize(
    ("option", "name", "text", "says"),
    [
        ("--domains", "d.json", '{"r0": 1}', "object of request to domain"),
        ("--domains", "d.json", '{"r0": "a"}', "no domain for request 'r"),
        ("--domains", "d.csv", "request,domain\nr0,a\n", "no domain for request 'r"),
        ("--domains", "d.csv", "a,b\n1,2\n", "request and domain"),
        ("--domains", "d.csv", "request,domain\nr0,\n", "line 2"),
        ("--domains", "d.jsonl", '{"domain": "a"}\n{"prompt": "x"}\n', "line 2"),
        ("--domains", "d.jsonl", '{"domain": \n', "line 1 is not JSON"),
        ("--run", "r.json", "{}", "args"),
        ("--run", "r.json", '{"args": {}, "runs": [{"requests": [{"prompt_tokens": 3, '
         '"output_tokens": 1}]}]}', "no request 'r"),
        ("--lengths", "l.csv", "batch,length\n0,x\n", "above 0"),
        ("--lengths", "l.csv", "batch,length\n0,4\n", "no length for token"),
        ("--lengths", "l.csv", "batch,length,request\n0,4,r0\n0,4,r0\n", "twice"),
        ("--lengths", "l.csv", "batch,length,request\n0,4,r0\n0,4,\n", "some lines"),
        ("--lengths", "l.csv", "batch,length,request\n0,4,r0\n", "no length for request"),
        ("--lengths", "l.csv", "\udcff", "not UTF-8"),
    ],
)  # fmt: skip
def test_bad_files_beside_a_log_are_named(
    tmp_path: Path, option: str, name: str, text: str, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    output = tmp_path / "out" / "o.parquet"
    output.parent.mkdir()
    assert says in refusal("load", LOG, option, path, "-o", output)
    assert list(output.parent.iterdir()) == []


def test_inputs_are_never_written_over(tmp_path: Path) -> None:
    names = domains(tmp_path / "d.json", 32)
    for path in (LOG, names):
        before = path.read_bytes()
        found = run("routing", "patterns", LOG, "--domains", names, "--format", "json", "-o", path)
        assert found.exit_code == 1
        assert path.read_bytes() == before
    # What load writes must be none of what it reads, beside the log or not.
    found = run("routing", "load", LOG, "--domains", names, "-o", names)
    assert found.exit_code == 1
    assert names.read_text(encoding="utf-8").startswith("{")


def test_python_has_both() -> None:
    beside = nsysmoe.Beside(run=RECORD)
    assert nsysmoe.routing_patterns([LOG], beside=beside).by == "phase"
    assert nsysmoe.routing_padding([LOG], beside=beside).settings[0]["batch_size"] == 8
