/* The interface between libavsbg and a backend, a library that it opens at run time: one function, avsbg_backend(),
 * returns this table. In C, so that the two may be compiled apart. A function that can fail returns 0 for success and
 * else has written its reason into `error`. */
#ifndef AVSBG_BACKEND_API_H
#define AVSBG_BACKEND_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AVSBG_BACKEND_ABI 3
#define AVSBG_MAX_RANK 16

/* A text that the callee writes. */
typedef struct avsbg_text {
  char data[4096];
} avsbg_text;

/* A tensor of a call. Its memory is `data`, of the host, or `handle`, which the session keeps where it was computed. */
typedef struct avsbg_tensor {
  const char *name;
  int32_t dtype; /* of avsbg::DType */
  int32_t rank;
  int64_t shape[AVSBG_MAX_RANK]; /* of a contract, -1 for the number of clips or streams */
  void *data;    /* of an output: where to write it, or NULL */
  size_t bytes;
  void *handle;
  int32_t keep;  /* of an output: keep it where it is computed, and set `handle`; with `data` too, where the table has
                    device_memory */
} avsbg_tensor;

/* A file of the bundle, read into memory before its hash was checked. */
typedef struct avsbg_file {
  const char *name; /* as the graph that refers to it has it */
  const void *data;
  size_t bytes;
} avsbg_file;

typedef struct avsbg_session_request {
  const char *file;             /* the graph's or the engine's path, for messages */
  avsbg_file content;           /* of it; valid during the call, as is all of the request */
  const avsbg_file *external_data; /* of a graph */
  size_t external_count;
  const char *engine_record;    /* the manifest's record of an engine, in JSON; NULL for a graph */
  const char *rebuild;          /* of an engine: the sentence with the command that builds it again */
  const char *backend;          /* as the user named it: onnxruntime, onnxruntime-cuda, tensorrt, tensorrt-rtx */
  const char *implementation;   /* of the operator: function, native, plain or plugin */
  const char *precision;
  int32_t has_rest;             /* a quantised graph whose other operations are not float32 */
  int32_t threads;              /* 0: the backend's choice */
  int32_t device;
  const char *runtime_library;  /* the engine's library; NULL: as the loader finds it */
  const char *library_folder;   /* of the operator libraries and of the plugin */
  const avsbg_tensor *inputs, *outputs; /* the contract */
  size_t input_count, output_count;
} avsbg_session_request;

typedef struct avsbg_backend_table {
  uint32_t abi;
  /* Opens a session, which runs on any number of threads at once; `description` is a JSON object of what runs. */
  int32_t (*open)(const avsbg_session_request *request, void **session, avsbg_text *description, avsbg_text *error);
  /* Runs it; shapes have been checked, and are given for outputs too. */
  int32_t (*run)(void *session, const avsbg_tensor *inputs, size_t input_count, avsbg_tensor *outputs,
                 size_t output_count, avsbg_text *error);
  /* Gives back what an output keeps. */
  void (*release)(void *session, void *handle);
  void (*close)(void *session);
  /* The address in the GPU's memory of what an output keeps. NULL in a backend that keeps outputs in the host's. */
  void *(*device_memory)(void *session, void *handle);
  /* The compute capability of a GPU in tenths, 0 where there is none of that number. NULL in a backend without engines. */
  int32_t (*compute_capability)(int32_t device);
} avsbg_backend_table;

typedef const avsbg_backend_table *(*avsbg_backend_function)(void);

#ifdef __cplusplus
}
#endif

#endif
