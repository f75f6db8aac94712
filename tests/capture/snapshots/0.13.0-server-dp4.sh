#!/bin/sh
# nsysmoe capture of mistralai/Mixtral-8x7B-v0.1, vLLM 0.13.0
set -eu

# EPLB off, run 1 of 1
mkdir -p runs/.work/off-run-1
NCCL_NVLS_ENABLE=0 NVSHMEM_DISABLE_NVLS=1 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALLREDUCE_USE_FLASHINFER=0 VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_NO_USAGE_STATS=1 VLLM_NVTX_SCOPES_FOR_PROFILING=1 VLLM_SERVER_DEV_MODE=1 VLLM_USE_NCCL_SYMM_MEM=0 VLLM_WORKER_MULTIPROC_METHOD=spawn nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --trace-fork-before-exec=true --cuda-graph-trace=node --capture-range=cudaProfilerApi --capture-range-end=stop --force-overwrite=true --output=runs/.work/off-run-1/trace python3 NODE/serve.py serve mistralai/Mixtral-8x7B-v0.1 --host=127.0.0.1 --port=8000 --tensor-parallel-size=1 --enable-expert-parallel --max-num-seqs=32 --max-num-batched-tokens=8192 --no-enable-prefix-caching --seed=0 --dtype=auto --gpu-memory-utilization=0.9 --all2all-backend=allgather_reducescatter '--profiler-config={"profiler":"cuda"}' --worker-extension-cls=nsysmoe_extension.NsysmoeExtension --data-parallel-size=4 >runs/.work/off-run-1/engine.log 2>&1 &
server=$!
python3 NODE/load.py --output=runs/.work/off-run-1 --url=http://127.0.0.1:8000 --model=mistralai/Mixtral-8x7B-v0.1 --start-timeout=900 --max-step-tokens=8192 --max-sequences=32 --num-prompts=32 --input-len=256 --vocabulary=32000 --output-len=64 --seed=0 --sweep=1,2,3,4,6,8,12,16,24,32 --unprofiled-rounds=12 '--record={"mode":"server","model":"mistralai/Mixtral-8x7B-v0.1","tp":1,"dp":4,"ep":"on","eplb":"off","max_num_seqs":32,"max_num_batched_tokens":8192,"eager":false,"seed":0}'
kill -INT $server; wait $server || true
nsys export --type=sqlite --force-overwrite=true --include-json=true --output=runs/.work/off-run-1/trace.sqlite runs/.work/off-run-1/trace.nsys-rep
mkdir -p runs/off && mv runs/.work/off-run-1 runs/off/run-1

# EPLB on, run 1 of 1
mkdir -p runs/.work/on-run-1
NCCL_NVLS_ENABLE=0 NVSHMEM_DISABLE_NVLS=1 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALLREDUCE_USE_FLASHINFER=0 VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_NO_USAGE_STATS=1 VLLM_NVTX_SCOPES_FOR_PROFILING=1 VLLM_SERVER_DEV_MODE=1 VLLM_USE_NCCL_SYMM_MEM=0 VLLM_WORKER_MULTIPROC_METHOD=spawn nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --trace-fork-before-exec=true --cuda-graph-trace=node --capture-range=cudaProfilerApi --capture-range-end=stop --force-overwrite=true --output=runs/.work/on-run-1/trace python3 NODE/serve.py serve mistralai/Mixtral-8x7B-v0.1 --host=127.0.0.1 --port=8000 --tensor-parallel-size=1 --enable-expert-parallel --max-num-seqs=32 --max-num-batched-tokens=8192 --no-enable-prefix-caching --seed=0 --dtype=auto --gpu-memory-utilization=0.9 --all2all-backend=allgather_reducescatter '--profiler-config={"profiler":"cuda"}' --worker-extension-cls=nsysmoe_extension.NsysmoeExtension --data-parallel-size=4 --enable-eplb '--eplb-config={"window_size":1000,"step_interval":3000,"num_redundant_experts":4}' >runs/.work/on-run-1/engine.log 2>&1 &
server=$!
python3 NODE/load.py --output=runs/.work/on-run-1 --url=http://127.0.0.1:8000 --model=mistralai/Mixtral-8x7B-v0.1 --start-timeout=900 --max-step-tokens=8192 --max-sequences=32 --balanced --rearrange=before --num-prompts=32 --input-len=256 --vocabulary=32000 --output-len=64 --seed=0 --sweep=1,2,3,4,6,8,12,16,24,32 --unprofiled-rounds=12 '--record={"mode":"server","model":"mistralai/Mixtral-8x7B-v0.1","tp":1,"dp":4,"ep":"on","eplb":"on","max_num_seqs":32,"max_num_batched_tokens":8192,"eager":false,"seed":0,"eplb_redundant":4,"eplb_interval":3000}'
kill -INT $server; wait $server || true
nsys export --type=sqlite --force-overwrite=true --include-json=true --output=runs/.work/on-run-1/trace.sqlite runs/.work/on-run-1/trace.nsys-rep
mkdir -p runs/on && mv runs/.work/on-run-1 runs/on/run-1
