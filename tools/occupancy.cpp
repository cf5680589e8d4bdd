// Occupancy: the blocks that fit on a multiprocessor, by NVIDIA's calculator (cuda_occupancy.h), without a device.
// Reads lines "major minor threads_per_sm shared_per_sm registers shared_per_block threads", prints one number each.
#include <cstdio>

#include <cuda_occupancy.h>

int main() {
  int major, minor, threads_per_sm, registers, threads;
  std::size_t shared_per_sm, shared_per_block;
  while (std::scanf("%d %d %d %zu %d %zu %d", &major, &minor, &threads_per_sm, &shared_per_sm, &registers,
                    &shared_per_block, &threads) == 7) {
    cudaOccDeviceProp device;
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = threads_per_sm;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = shared_per_sm;
    device.sharedMemPerBlockOptin = 48 * 1024;
    device.reservedSharedMemPerBlock = major >= 8 ? 1024 : 0;
    device.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = threads;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = shared_per_block;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_DEFAULT;
    kernel.maxDynamicSharedSizeBytes = 0;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state;
    state.cacheConfig = CACHE_PREFER_NONE;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_DEFAULT;
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0) != CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "cuda_occupancy.h refuses compute capability %d.%d\n", major, minor);
      return 1;
    }
    std::printf("%d\n", result.activeBlocksPerMultiprocessor);
  }
  return 0;
}
