#!/bin/sh
# nsysmoe capture of mistralai/Mixtral-8x7B-v0.1, vLLM 0.11.0
set -eu

# EPLB off, run 1 of 1
mkdir -p runs/.work/off-run-1
NCCL_NVLS_ENABLE=0 NVSHMEM_DISABLE_NVLS=1 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALL2ALL_BACKEND=allgather_reducescatter VLLM_ALLREDUCE_USE_FLASHINFER=0 VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_NO_USAGE_STATS=1 VLLM_NVTX_SCOPES_FOR_PROFILING=1 VLLM_USE_NCCL_SYMM_MEM=0 VLLM_WORKER_MULTIPROC_METHOD=spawn nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --trace-fork-before-exec=true --cuda-graph-trace=node --capture-range=cudaProfilerApi --capture-range-end=stop --force-overwrite=true --output=runs/.work/off-run-1/trace python3 NODE/worker.py --output=runs/.work/off-run-1 '--engine={"model":"mistralai/Mixtral-8x7B-v0.1","tensor_parallel_size":1,"enable_expert_parallel":true,"max_num_seqs":32,"max_num_batched_tokens":8192,"enable_prefix_caching":false,"seed":0,"dtype":"auto","gpu_memory_utilization":0.9,"worker_extension_cls":"nsysmoe_extension.NsysmoeExtension","disable_log_stats":false}' --num-prompts=32 --input-len=256 --vocabulary=32000 --output-len=64 --seed=0 --sweep=1,2,3,4,6,8 --unprofiled-rounds=12 '--record={"mode":"offline","model":"mistralai/Mixtral-8x7B-v0.1","tp":1,"dp":4,"ep":"on","eplb":"off","max_num_seqs":32,"max_num_batched_tokens":8192,"eager":false,"seed":0}' --profile=extension --data-parallel=4 --port=8000 >runs/.work/off-run-1/engine.log 2>&1
# starts VLLM_DP_RANK=0 VLLM_DP_RANK_LOCAL=0 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=0
# starts VLLM_DP_RANK=1 VLLM_DP_RANK_LOCAL=1 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=1
# starts VLLM_DP_RANK=2 VLLM_DP_RANK_LOCAL=2 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=2
# starts VLLM_DP_RANK=3 VLLM_DP_RANK_LOCAL=3 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=3
nsys export --type=sqlite --force-overwrite=true --include-json=true --output=runs/.work/off-run-1/trace.sqlite runs/.work/off-run-1/trace.nsys-rep
mkdir -p runs/off && mv runs/.work/off-run-1 runs/off/run-1

# EPLB on, run 1 of 1
mkdir -p runs/.work/on-run-1
NCCL_NVLS_ENABLE=0 NVSHMEM_DISABLE_NVLS=1 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALL2ALL_BACKEND=allgather_reducescatter VLLM_ALLREDUCE_USE_FLASHINFER=0 VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_NO_USAGE_STATS=1 VLLM_NVTX_SCOPES_FOR_PROFILING=1 VLLM_USE_NCCL_SYMM_MEM=0 VLLM_WORKER_MULTIPROC_METHOD=spawn nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --trace-fork-before-exec=true --cuda-graph-trace=node --capture-range=cudaProfilerApi --capture-range-end=stop --force-overwrite=true --output=runs/.work/on-run-1/trace python3 NODE/worker.py --output=runs/.work/on-run-1 '--engine={"model":"mistralai/Mixtral-8x7B-v0.1","tensor_parallel_size":1,"enable_expert_parallel":true,"max_num_seqs":32,"max_num_batched_tokens":8192,"enable_prefix_caching":false,"seed":0,"dtype":"auto","gpu_memory_utilization":0.9,"worker_extension_cls":"nsysmoe_extension.NsysmoeExtension","disable_log_stats":false,"enable_eplb":true,"eplb_config":{"window_size":1000,"step_interval":3000,"num_redundant_experts":4}}' --num-prompts=32 --input-len=256 --vocabulary=32000 --output-len=64 --seed=0 --sweep=1,2,3,4,6,8 --unprofiled-rounds=12 '--record={"mode":"offline","model":"mistralai/Mixtral-8x7B-v0.1","tp":1,"dp":4,"ep":"on","eplb":"on","max_num_seqs":32,"max_num_batched_tokens":8192,"eager":false,"seed":0,"eplb_redundant":4,"eplb_interval":3000}' --rearrange=before --profile=extension --data-parallel=4 --port=8000 >runs/.work/on-run-1/engine.log 2>&1
# starts VLLM_DP_RANK=0 VLLM_DP_RANK_LOCAL=0 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=0
# starts VLLM_DP_RANK=1 VLLM_DP_RANK_LOCAL=1 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=1
# starts VLLM_DP_RANK=2 VLLM_DP_RANK_LOCAL=2 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=2
# starts VLLM_DP_RANK=3 VLLM_DP_RANK_LOCAL=3 VLLM_DP_SIZE=4 VLLM_DP_MASTER_IP=127.0.0.1 VLLM_DP_MASTER_PORT=8000 … --rank=3
nsys export --type=sqlite --force-overwrite=true --include-json=true --output=runs/.work/on-run-1/trace.sqlite runs/.work/on-run-1/trace.nsys-rep
mkdir -p runs/on && mv runs/.work/on-run-1 runs/on/run-1
