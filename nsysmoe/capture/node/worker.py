"""vLLM as a library: warm up, run unprofiled, run in the capture range, write down what it took.

Run by path with the interpreter that has vLLM; it imports vLLM and the standard library. With
``--data-parallel`` it starts itself once a rank, and joins what they write.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = str(Path(__file__).resolve().parent)

if TYPE_CHECKING:
    from types import FrameType

    from nsysmoe.capture.node import nsysmoe_rounds as rounds
    from nsysmoe.capture.node import nsysmoe_workers as workers
    from nsysmoe.capture.node import nsysmoe_workload as workload
else:
    # Run by path, this folder comes first; with -m, or imported by a child, it does not.
    sys.path.insert(0, HERE)
    import nsysmoe_rounds as rounds
    import nsysmoe_workers as workers
    import nsysmoe_workload as workload

_BARRIER_TIMEOUT_S = 600.0
_POLL_S = 0.02
_PORT_OF_RANKS = "VLLM_DP_MASTER_PORT"


def main() -> int:
    """Run as one rank, or start one process a rank."""
    options = _options()
    # vLLM's own processes import the extension.
    paths = [HERE, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.data_parallel > 1 and options.rank is None:
        return _launch(options)
    Rank(options).run()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    workload.add_options(parser)
    workers.add_options(parser)
    parser.add_argument("--engine", type=json.loads, required=True, help="options of vllm.LLM")
    parser.add_argument("--profile", choices=["engine", "extension"], default="engine")
    parser.add_argument("--data-parallel", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="where the ranks meet")
    parser.add_argument("--rank", type=int)
    return parser.parse_args()


class Rank(rounds.Rounds):
    """One data-parallel rank, or the whole of a run without any."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rank = options.rank or 0
        self.folder = options.output
        if options.rank is not None:
            self.folder = options.output / f"rank{options.rank}"
            self.folder.mkdir(exist_ok=True)
        self.stages = workload.Stages(self.folder if self.rank else options.output)
        everything = workload.requests_of(options)
        self.digest = workload.digest_of(everything)
        self.requests = everything[self.rank :: options.data_parallel]
        self.workers = workers.Workers(
            self._call, options, is_balanced=bool(options.engine.get("enable_eplb"))
        )

    def run(self) -> None:
        """Run every round and write the record."""
        started = workload.now()
        self.stages.enter("loading")
        before = time.perf_counter()
        self.llm = self._load()
        load_s = time.perf_counter() - before
        self._warm_steps()
        measured = self.run_all()
        self.stages.enter("writing")
        self._write(started, load_s, measured)

    def _load(self) -> Any:
        from vllm import LLM

        return LLM(**self.options.engine)

    def _call(self, method: str, arguments: tuple[str, ...]) -> list[Any]:
        found: list[Any] = self.llm.collective_rpc(method, args=arguments)
        return found

    def _warm_steps(self) -> None:
        """Have every size of step run once, before data-parallel engines begin to wait for us."""
        self.stages.enter("warming steps")
        self.workers.draw()
        self.meet("loaded")
        engine = self.options.engine
        self.workers.warm_steps(
            self.requests, engine["max_num_batched_tokens"], engine["max_num_seqs"]
        )

    def some(self, count: int, most_tokens: int) -> None:
        """Have the first requests answered at once, with so many tokens at most."""
        self._generate(self.requests[:count], most_tokens)

    def again(self) -> None:
        """Run a round that nobody looks at."""
        self._generate(self.requests)

    def profiled(self) -> dict[str, Any]:
        """Run a round inside the capture range."""
        self._profile(is_on=True)
        # Every rank records before any of them works.
        self.meet("started")
        found = self.timed("profiled")
        self.meet("stop")
        self._profile(is_on=False)
        return found

    def _profile(self, *, is_on: bool) -> None:
        if self.options.profile == "extension":
            self.llm.collective_rpc("nsysmoe_profile", args=(is_on,))
        elif is_on:
            self.llm.start_profile()
        else:
            self.llm.stop_profile()

    def timed(self, name: str) -> dict[str, Any]:
        """Run a round, and return what it took."""
        before = time.perf_counter()
        outputs = self._generate(self.requests)
        wall_s = time.perf_counter() - before
        self.outputs = outputs
        rows = [_request(output, self.rank, wall_s) for output in outputs]
        return workload.round_of(name, wall_s, rows)

    def _generate(self, requests: list[dict[str, Any]], most_tokens: int | None = None) -> Any:
        from vllm import SamplingParams

        keys = [_key(request) for request in requests]
        prompts = [{key: request[key]} for key, request in zip(keys, requests, strict=True)]
        parameters = [
            SamplingParams(
                temperature=0.0,
                max_tokens=min(request["max_tokens"], most_tokens or request["max_tokens"]),
                ignore_eos=True,
                detokenize=False,
            )
            for request in requests
        ]
        return self.llm.generate(prompts, parameters, use_tqdm=False)

    def meet(self, name: str) -> None:
        """Wait until every rank has come here."""
        if self.options.rank is None:
            return
        (self.options.output / f"{name}.{self.rank}").touch()
        for other in range(self.options.data_parallel):
            _wait_for(self.options.output / f"{name}.{other}")

    def agree(self, name: str, is_so: bool) -> bool:
        """Return what the first rank thinks: all must do the same."""
        if self.options.rank is None:
            return is_so
        path = self.options.output / name
        if self.rank == 0:
            workload.write_json(path, is_so)
        _wait_for(path)
        return bool(json.loads(path.read_text(encoding="utf-8")))

    def _write(self, started: str, load_s: float, rounds: list[dict[str, Any]]) -> None:
        import vllm

        kept = _save_routing(self.folder / "routing.npz", self.outputs)
        record = {
            "schema_version": workload.SCHEMA_VERSION,
            "vllm": vllm.__version__,
            "args": self.options.record,
            "prompts": {"digest": self.digest, "count": len(self.requests)},
            "started": started,
            "ended": workload.now(),
            "load_s": load_s,
            "unprofiled_rounds": self.options.unprofiled_rounds,
            "runs": rounds,
            **self.workers.record(self.options.measured_rounds or 1),
            "returned_experts": kept,
        }
        for one in record["workers"]:
            # The number by which requests name the rank, whatever vLLM calls it.
            one["data_parallel_rank"] = self.rank
        workload.write_json(self.folder / "run.json", record)


def _key(request: dict[str, Any]) -> str:
    """Return what vLLM is given of a row that may hold a text and its tokens."""
    return "prompt_token_ids" if request.get("prompt_token_ids") else "prompt"


def _request(output: Any, rank: int, wall_s: float) -> dict[str, Any]:
    """Return what one request took; times that this version does not tell are None."""
    tokens = len(output.outputs[0].token_ids)
    metrics = getattr(output, "metrics", None)
    first = getattr(metrics, "first_token_ts", None)
    last = getattr(metrics, "last_token_ts", None)
    queued = getattr(metrics, "queued_ts", None)
    ttft = getattr(metrics, "first_token_latency", None)
    if ttft is None and first and queued:
        ttft = first - queued
    decode = last - first if first and last else None
    return {
        "id": output.request_id,
        "rank": rank,
        "prompt_tokens": len(output.prompt_token_ids),
        "output_tokens": tokens,
        "ttft_s": ttft,
        "tpot_s": decode / (tokens - 1) if decode is not None and tokens > 1 else None,
        # All requests are there at once: none takes longer than the round.
        "e2e_s": None if ttft is None or decode is None else min(ttft + decode, wall_s),
    }


def _wait_for(path: Path) -> None:
    """Wait for a file of another rank's."""
    limit = time.monotonic() + _BARRIER_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > limit:
            raise TimeoutError(f"another rank did not come to {path.name!r}")
        time.sleep(_POLL_S)


def _save_routing(path: Path, outputs: Any) -> bool:
    """Save the experts that tokens chose, an array rN a request; return whether there are any."""
    routes = [getattr(output.outputs[0], "routed_experts", None) for output in outputs]
    if not routes or any(route is None for route in routes):
        return False
    import numpy as np

    with path.open("wb") as file:
        named: dict[str, Any] = {f"r{n}": np.asarray(route) for n, route in enumerate(routes)}
        np.savez_compressed(file, **named)
    return True


def _launch(options: argparse.Namespace) -> int:
    """Start one process a rank, wait for all, and join their records."""
    size = options.data_parallel
    started: list[subprocess.Popen[bytes]] = []

    def end(number: int, _frame: FrameType | None) -> None:
        for process in started:
            process.terminate()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    for rank in range(size):
        ranked = {
            "VLLM_DP_RANK": str(rank),
            "VLLM_DP_RANK_LOCAL": str(rank),
            "VLLM_DP_SIZE": str(size),
            "VLLM_DP_MASTER_IP": "127.0.0.1",
            _PORT_OF_RANKS: str(options.port),
        }
        argv = [sys.executable, __file__, *sys.argv[1:], f"--rank={rank}"]
        started.append(subprocess.Popen(argv, env={**os.environ, **ranked}))  # noqa: S603 - itself
    status = _wait(started)
    if status == 0:
        _join(options.output, size)
    return status


def _wait(started: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; where one fails, end the others, which would wait for it."""
    while True:
        codes = [process.poll() for process in started]
        failed = [code for code in codes if code]
        if failed:
            for process in started:
                process.terminate()
            return 1
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.1)


def _join(folder: Path, size: int) -> None:
    """Join the ranks' records: requests of all, in order of ranks."""
    parts = [folder / f"rank{rank}" for rank in range(size)]
    records = [json.loads((part / "run.json").read_text(encoding="utf-8")) for part in parts]
    joined = dict(records[0])
    joined["load_s"] = max(record["load_s"] for record in records)
    joined["ended"] = max(record["ended"] for record in records)
    joined["prompts"]["count"] = sum(record["prompts"]["count"] for record in records)
    joined["runs"] = [
        _joined_round(rounds) for rounds in zip(*(r["runs"] for r in records), strict=True)
    ]
    for key in ("eplb_before", "eplb_after", "workers"):
        joined[key] = [state for record in records for state in record[key]]
    joined["returned_experts"] = all(record["returned_experts"] for record in records)
    if joined["returned_experts"]:
        _join_routing(folder / "routing.npz", [part / "routing.npz" for part in parts])
    workload.write_json(folder / "run.json", joined)


def _joined_round(rounds: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    requests = [request for one in rounds for request in one["requests"]]
    wall_s = max(one["summary"]["wall_s"] for one in rounds)
    return {
        "round": rounds[0]["round"],
        "summary": workload.summary_of(wall_s, requests),
        "requests": requests,
    }


def _join_routing(path: Path, parts: list[Path]) -> None:
    import numpy as np

    routes: list[Any] = []
    for part in parts:
        with np.load(part, allow_pickle=False) as archive:
            routes += [archive[f"r{number}"] for number in range(len(archive.files))]
    with path.open("wb") as file:
        named: dict[str, Any] = {f"r{n}": route for n, route in enumerate(routes)}
        np.savez_compressed(file, **named)


if __name__ == "__main__":
    sys.exit(main())
