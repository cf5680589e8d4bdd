/* libavsbg: audio-visual segmentation from a bundle, in C99.
 *
 * A *model* is an open bundle on a backend. It never changes, and threads share it. It segments clips of T frames
 * (avsbg_clip_run), or frames as they come through a *stream* (avsbg_stream_open), each of which belongs to one thread
 * at a time. What comes back are *masks*: counted, immutable snapshots.
 *
 * Every function that can fail returns a status; avsbg_last_error() then says what is wrong, avsbg_last_hint() what to
 * do about it. Both texts belong to the calling thread and stay until its next call that fails. Nothing else is global.
 * Structures of options and results begin with `size`, which the caller sets to the structure's size: AVSBG_INIT does,
 * and puts every field at 0, which stands for the default unless its comment says otherwise. Later versions add fields
 * at the end, and take programs that were compiled before.
 *
 * Times are seconds on any clock that frames and sound share. Strings are UTF-8.
 */
#ifndef AVSBG_H
#define AVSBG_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define AVSBG_API __attribute__((visibility("default")))
#else
#define AVSBG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define AVSBG_ABI_VERSION 1

/* Sets `size` and puts all else at its default: avsbg_model_options options; AVSBG_INIT(options); */
#define AVSBG_INIT(structure)                                         \
  do {                                                                \
    unsigned char *avsbg_init_ = (unsigned char *)&(structure);       \
    size_t avsbg_left_ = sizeof(structure);                           \
    while (avsbg_left_ > 0) avsbg_init_[--avsbg_left_] = 0;           \
    (structure).size = sizeof(structure);                             \
  } while (0)

typedef enum avsbg_status {
  AVSBG_OK = 0,
  AVSBG_ERROR_ARGUMENT = 1, /* a null pointer, an option that does not exist, a structure of an unknown size */
  AVSBG_ERROR_BUNDLE = 2,   /* the bundle is missing, incomplete, altered, or its manifest is not valid */
  AVSBG_ERROR_BACKEND = 3,  /* the backend is not there, refuses what was asked for, or failed */
  AVSBG_ERROR_MEDIA = 4,    /* a frame or sound that cannot be taken; the stream goes on without it */
  AVSBG_ERROR_MEMORY = 5,
  AVSBG_ERROR_INTERNAL = 6
} avsbg_status;

/* The ABI's version (the library's SONAME), and the version of avsbg as text, e.g. "0.1.0". */
AVSBG_API uint32_t avsbg_abi_version(void);
AVSBG_API const char *avsbg_version(void);

/* The name of a status, e.g. "bundle". */
AVSBG_API const char *avsbg_status_name(avsbg_status status);

/* The error of the calling thread's last failed call, and what to do about it; "" if there was none. */
AVSBG_API const char *avsbg_last_error(void);
AVSBG_API const char *avsbg_last_hint(void);

/* ---- Model ---- */

typedef struct avsbg_model avsbg_model;
typedef struct avsbg_stream avsbg_stream;
typedef struct avsbg_mask avsbg_mask;

/* The graphs of a bundle that a model opens. */
enum { AVSBG_CLIPS = 1, AVSBG_STREAMS = 2 };

typedef struct avsbg_model_options {
  size_t size;
  const char *backend;         /* BACKEND[:IMPLEMENTATION][:PRECISION]; NULL: "onnxruntime" */
  int32_t uses;                /* AVSBG_CLIPS, AVSBG_STREAMS or both; 0: AVSBG_CLIPS */
  int32_t threads;             /* within an operator; 0: the backend's choice */
  int32_t device;              /* number of the GPU */
  int32_t ignore_accuracy;     /* run a graph whose precision misses its accuracy threshold */
  int32_t trust;               /* execute engines of the bundle, which contain native code, whatever their origin */
  const char *engine;          /* name of the engine; NULL: the one that fits */
  const char *backend_folder;  /* of libavsbg_backend_*.so; NULL: beside libavsbg.so.1 */
  const char *runtime_library; /* the inference engine's library, e.g. libonnxruntime.so.1; NULL: as the loader finds it */
} avsbg_model_options;

typedef struct avsbg_model_info {
  size_t size;
  int32_t frames;          /* of a clip, T, one for each second */
  int32_t height, width;   /* of the network's frames and masks, pixels */
  int32_t sample_rate;     /* of the sound, Hz, mono */
  int32_t uses_audio;      /* whether masks depend on sound */
  int32_t takes_waveform;  /* whether sound is a waveform, and not features that come with each frame */
  int32_t feature_count;   /* of those features, floats per frame; 0 for a waveform */
  int32_t clips, streams;  /* whether the model was opened for them */
  int32_t labels;          /* number of classes, the background first; 0 for binary masks */
  double frame_offset;     /* second l is shown by its frame at l + frame_offset */
} avsbg_model_info;

/* Opens the bundle in a directory: its manifest is validated, and the hash of every file that is loaded.
 * `options` may be NULL. */
AVSBG_API avsbg_status avsbg_model_open(const char *bundle, const avsbg_model_options *options, avsbg_model **model);
/* Gives a model back; streams that are open on it, and masks with device_probability, keep it alive. NULL is fine. */
AVSBG_API void avsbg_model_close(avsbg_model *model);
AVSBG_API avsbg_status avsbg_model_get_info(const avsbg_model *model, avsbg_model_info *info);
/* The bundle's name and the SHA-256 of its manifest. */
AVSBG_API const char *avsbg_model_name(const avsbg_model *model);
AVSBG_API const char *avsbg_model_manifest_sha256(const avsbg_model *model);
/* A description of what runs, one JSON object: versions, graphs, implementation of the operator, threads. */
AVSBG_API const char *avsbg_model_describe(const avsbg_model *model);
/* The name of a class; NULL beyond the last. */
AVSBG_API const char *avsbg_model_label(const avsbg_model *model, int32_t number);

/* ---- Masks ---- */

typedef enum avsbg_partner {
  AVSBG_PARTNER_NONE = 0,     /* a mask of a clip, or of a network without motion */
  AVSBG_PARTNER_NEXT = 1,     /* the frame was correlated with the one after it */
  AVSBG_PARTNER_PREVIOUS = 2, /* with the one before it */
  AVSBG_PARTNER_ITSELF = 3    /* with itself, in a segment of one frame */
} avsbg_partner;

typedef struct avsbg_mask_view {
  size_t size;
  int64_t index;              /* of the frame: within its clip, or over the whole stream */
  int64_t segment;            /* of unbroken frames that it belongs to, from 0 on */
  double time;                /* of the frame, seconds; of a clip its index */
  avsbg_partner partner;
  int32_t height, width;
  const float *probability;   /* that a pixel sounds, [height][width] */
  const float *logits;        /* of the same size; NULL if they were not asked for */
  const int32_t *classes;     /* numbers of classes; NULL for a network of binary masks */
  const void *device_probability; /* `probability` in the memory of the GPU that computed it, complete, of its primary
                                     context; NULL from backends that compute in the host's memory. The mask keeps its
                                     model open; finish work on it before the mask is released. */
} avsbg_mask_view;

AVSBG_API avsbg_mask *avsbg_mask_retain(avsbg_mask *mask);
AVSBG_API void avsbg_mask_release(avsbg_mask *mask);
/* The content of a mask; the pointers stay valid until it is released. */
AVSBG_API avsbg_status avsbg_mask_get(const avsbg_mask *mask, avsbg_mask_view *view);
/* Writes 255 where the probability exceeds the threshold, else 0, or the numbers of classes, in any size, `out` being
 * [height][width]: each pixel has the decision of the nearest one of the mask. */
AVSBG_API avsbg_status avsbg_mask_decide(
    const avsbg_mask *mask, double threshold, int32_t width, int32_t height, uint8_t *out);

/* Makes the mask between two binary ones: probabilities `share`, 0 to 1, of the way from the earlier to the later one's.
 * It has no logits and no device pointer, and else what the earlier one has. */
AVSBG_API avsbg_status avsbg_mask_interpolate(
    const avsbg_mask *earlier, const avsbg_mask *later, float share, avsbg_mask **mask);

/* ---- Clips ---- */

typedef struct avsbg_frame {
  size_t size;
  const uint8_t *pixels;  /* RGB, [height][width][3]; of any size: it is resized as the networks were trained */
  int32_t width, height;
  size_t stride;          /* bytes from row to row; 0: 3 * width */
  const float *features;  /* the frame's own audio features, for bundles that take them; else NULL */
} avsbg_frame;

/* Segments a clip of `count` frames, 1 to T, one for each second, and their sound: `samples` values, mono, at the
 * model's rate, NULL for a network that uses none. What is missing of T is repeated as in the published preparation.
 * `masks` takes `count` pointers, to be released one by one. */
AVSBG_API avsbg_status avsbg_clip_run(const avsbg_model *model, const avsbg_frame *frames, size_t count,
                                      const float *sound, size_t samples, avsbg_mask **masks);

/* Resizes a frame to the network's size as the networks were trained, for those who keep frames until their clip is
 * complete: `out` is [height][width][3] of the model. A frame of that size is copied. */
AVSBG_API avsbg_status avsbg_frame_resize(const avsbg_model *model, const avsbg_frame *frame, uint8_t *out);

/* ---- Streams ---- */

typedef struct avsbg_stream_options {
  size_t size;
  int32_t zero_latency;       /* a frame's mask comes at once, with the frame before as its partner */
  int32_t published_spacing;  /* windows of sound every 0.96 s within T seconds, as the clips' are */
  int32_t logits;             /* masks hold logits too */
  const double *max_gap;      /* frames further apart, in seconds, are no partners; NULL: 2.0 */
  const double *patience;     /* seconds that a frame waits for its sound; NULL: 2.0 */
  const double *frame_offset; /* NULL: the bundle's */
} avsbg_stream_options;

typedef struct avsbg_stream_counters {
  size_t size;
  int64_t frames, masks, segments; /* taken, returned, begun */
  int64_t incomplete;              /* frames part of whose sound never came, so that silence stands for it */
  int64_t sound_received, sound_late, sound_overdue, sound_missing; /* samples */
} avsbg_stream_counters;

/* Opens a stream; the model was opened for AVSBG_STREAMS. `options` may be NULL. */
AVSBG_API avsbg_status avsbg_stream_open(
    const avsbg_model *model, const avsbg_stream_options *options, avsbg_stream **stream);
/* Takes a frame. `time` is later than that of the frame before; NULL: one second after it. AVSBG_ERROR_MEDIA: it was not
 * taken, and the stream goes on. AVSBG_ERROR_BACKEND: frames that wait are lost, and the stream can go on. */
AVSBG_API avsbg_status avsbg_stream_push(avsbg_stream *stream, const avsbg_frame *frame, const double *time);
/* Takes sound, mono, float in [-1, 1], in chunks of any size; `time` is that of its first sample, NULL: the end of the
 * chunk before, and 0 for the first. `rate` must be the model's. */
AVSBG_API avsbg_status avsbg_stream_push_sound(
    avsbg_stream *stream, const float *sound, size_t samples, int32_t rate, const double *time);
/* The next mask that is final, oldest first; *mask is NULL where there is none. */
AVSBG_API avsbg_status avsbg_stream_poll(avsbg_stream *stream, avsbg_mask **mask);
/* Ends the segment, as where a source is replaced: the next frame begins a new one, on a new clock. */
AVSBG_API avsbg_status avsbg_stream_cut(avsbg_stream *stream);
/* Ends the stream: poll returns the masks that are left. */
AVSBG_API avsbg_status avsbg_stream_finish(avsbg_stream *stream);
AVSBG_API avsbg_status avsbg_stream_get_counters(const avsbg_stream *stream, avsbg_stream_counters *counters);
/* Gives a stream back, finished or not. NULL is fine. */
AVSBG_API void avsbg_stream_close(avsbg_stream *stream);

/* ---- Verification ---- */

typedef struct avsbg_comparison {
  size_t size;
  const char *vectors;     /* file of the bundle */
  const char *output;
  int64_t clips, elements;
  double largest_absolute; /* largest |difference| from PyTorch's output; NaN where either has one */
  double largest_relative; /* that, divided by the largest magnitude of the reference */
  int64_t flips;           /* elements of `probability` on the other side of 0.5; -1 for other outputs */
  double miou;             /* of `probability` or `classes`: mean over clips of the masks' IoU; else NaN */
  int32_t passed;          /* whether largest_absolute is within the tolerance */
} avsbg_comparison;

typedef void (*avsbg_comparison_callback)(const avsbg_comparison *comparison, void *user);

/* Runs the model's clip graph on the bundle's test vectors and hands each output's comparison to `callback` (may be
 * NULL). *passed is 1 where all are within the tolerance, or, in lower precisions, where the mean IoU reaches the
 * accuracy threshold. */
AVSBG_API avsbg_status avsbg_verify(const avsbg_model *model, double tolerance, avsbg_comparison_callback callback,
                                    void *user, int32_t *passed);

#ifdef __cplusplus
}
#endif

#endif
