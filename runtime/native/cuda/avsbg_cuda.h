/* The C interface of libavsbg_cuda: the correlation kernels for PyTorch, ONNX Runtime, the TensorRT plugin, tests and
 * programs in any language. correlation.h says what they compute, on which shapes and types, and which bits two runs share; it holds
 * here too. Plain C, without CUDA's headers.
 *
 * Memory.  Nothing is allocated or freed: outputs and workspace are the caller's, on the device, as the inputs are. The
 *          library holds no state but the text of each thread's last error.
 * Streams. A call enqueues one or two kernels on `stream` (a cudaStream_t; NULL is the default stream) of the calling
 *          thread's current device and returns. It neither waits nor makes a handle, so it may be captured in a CUDA
 *          graph. The workspace may be used again by what follows on the same stream.
 * Threads. Every function may be called from any thread.
 * Errors.  A function returns a status; avsbg_cuda_last_error says in words what was wrong, naming the value. Where a
 *          call did not succeed, nothing was enqueued, or a launch failed.
 */
#ifndef AVSBG_CUDA_H_
#define AVSBG_CUDA_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AVSBG_CUDA_API __attribute__((visibility("default")))

/* Raised when a function or a struct below changes; avsbg_cuda_abi_version returns that of the library. */
#define AVSBG_CUDA_ABI_VERSION 1

typedef enum avsbg_dtype {
  AVSBG_FLOAT32 = 0,  /* fp32 values, fp32 multiply-add */
  AVSBG_TF32 = 1,     /* fp32 values, rounded to tf32 for the tensor cores */
  AVSBG_FLOAT16 = 2,
  AVSBG_BFLOAT16 = 3
} avsbg_dtype;

typedef enum avsbg_status {
  AVSBG_SUCCESS = 0,
  AVSBG_DECLINED = 1, /* the kernels do not take this problem or group, or not on this device: compute it in another way */
  AVSBG_FAILED = 2    /* an argument cannot be used, or a function of CUDA failed */
} avsbg_status;

/* a is [n, p, c] and b is [n, q, c], dense and row-major; dtype is an avsbg_dtype. */
typedef struct avsbg_problem {
  int64_t n, p, q, c;
  int32_t dtype;
} avsbg_problem;

/* A problem of a group with its tensors. A group has 1 to AVSBG_CUDA_MOST_TASKS of them, of one dtype. */
typedef struct avsbg_task {
  avsbg_problem problem;
  /* 0: each pair has maps of its own. T - 1: the pairs are neighbouring frames of clips of T, without copies of them: a is
   * [B, T, p, c], b points into it at the second frame, and n = B * (T - 1). */
  int64_t pairs_per_clip;
  const void* a;
  const void* b;
  float* mean_a; /* [n, p] */
  float* mean_b; /* [n, q]; NULL if it is not wanted, and then in all tasks with n > 0 */
} avsbg_task;

#define AVSBG_CUDA_MOST_TASKS 4

typedef struct avsbg_device {
  int32_t compute_capability; /* 10 * major + minor: 87 for Jetson Orin */
  int32_t sm_count;
} avsbg_device;

AVSBG_CUDA_API int32_t avsbg_cuda_abi_version(void);

/* The error of this thread's last call that did not succeed; valid until its next call. */
AVSBG_CUDA_API const char* avsbg_cuda_last_error(void);

/* Fills `device` for the calling thread's current CUDA device. */
AVSBG_CUDA_API avsbg_status avsbg_cuda_query_device(avsbg_device* device);

/* AVSBG_DECLINED unless the kernels take `problem` on `device`; NULL: on some device. */
AVSBG_CUDA_API avsbg_status avsbg_cuda_check_problem(const avsbg_problem* problem, const avsbg_device* device);

/* Sets `bytes` to the workspace that avsbg_cuda_mean_correlations needs on any device: it never decreases as n, p and q
 * grow. Pointers of the tasks are not looked at. `with_mean_b`: 0 if mean_b will be NULL. */
AVSBG_CUDA_API avsbg_status avsbg_cuda_group_workspace_size(const avsbg_task* tasks, int32_t count, int32_t with_mean_b,
                                                            size_t* bytes);

/* mean_a and, unless NULL, mean_b of each of `count` tasks, all in one launch: the means of relu(<a, b>) over either
 * side, in fp32. `device` is the one that the stream belongs to; NULL: the current one is asked for. `workspace`: 16-byte
 * aligned, of `workspace_size` bytes, with any content; NULL if none is needed. */
AVSBG_CUDA_API avsbg_status avsbg_cuda_mean_correlations(const avsbg_task* tasks, int32_t count,
                                                         const avsbg_device* device, void* workspace,
                                                         size_t workspace_size, void* stream);

/* The two above for a group of one problem whose pairs have maps of their own. */
AVSBG_CUDA_API avsbg_status avsbg_cuda_workspace_size(const avsbg_problem* problem, int32_t with_mean_b, size_t* bytes);
AVSBG_CUDA_API avsbg_status avsbg_cuda_mean_correlation(const avsbg_problem* problem, const avsbg_device* device,
                                                        const void* a, const void* b, float* mean_a, float* mean_b,
                                                        void* workspace, size_t workspace_size, void* stream);

/* volume [n, p, q] fp32: <a, b>, after ReLU unless `relu` is 0. */
AVSBG_CUDA_API avsbg_status avsbg_cuda_correlation_volume(const avsbg_problem* problem, const avsbg_device* device,
                                                          const void* a, const void* b, float* volume, int32_t relu,
                                                          void* stream);

#ifdef __cplusplus
}
#endif

#endif /* AVSBG_CUDA_H_ */
