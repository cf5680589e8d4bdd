/* Masks of a clip in C: raw frames and sound in, a portable grey map per frame out.
 *
 *     cc -std=c99 segment_raw.c $(pkg-config --cflags --libs avsbg) -o segment_raw
 *     ffmpeg -i VIDEO -r 1 -pix_fmt rgb24 -f rawvideo frames.rgb     (a frame for each second)
 *     ffmpeg -i VIDEO -ac 1 -ar 16000 -f f32le sound.f32
 *     segment_raw BUNDLE WIDTH HEIGHT frames.rgb sound.f32
 */
#include <stdio.h>
#include <stdlib.h>

#include "avsbg.h"

static int fail(const char *what) {
  fprintf(stderr, "%s: %s %s\n", what, avsbg_last_error(), avsbg_last_hint());
  return 1;
}

/* A whole file; its size in bytes goes to `size`. */
static void *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  void *content = NULL;
  long end = -1;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0) end = ftell(file);
  if (end >= 0) content = malloc((size_t)end + 1);
  if (content != NULL) {
    rewind(file);
    *size = fread(content, 1, (size_t)end, file);
  }
  if (file != NULL) fclose(file);
  return content;
}

static void write_grey_map(size_t number, const unsigned char *pixels, int width, int height) {
  char name[32];
  FILE *file;
  sprintf(name, "%05lu.pgm", (unsigned long)(number % 100000));
  file = fopen(name, "wb");
  if (file == NULL) return;
  fprintf(file, "P5\n%d %d\n255\n", width, height);
  fwrite(pixels, 1, (size_t)width * (size_t)height, file);
  fclose(file);
  printf("%s\n", name);
}

int main(int count, char **arguments) {
  avsbg_model_options options;
  avsbg_model_info info;
  avsbg_model *model = NULL;
  avsbg_frame frames[4096];
  avsbg_mask *masks[4096];
  size_t frame_bytes, sound_bytes, size, first, taken, i, samples, begin;
  unsigned char *pixels, *grey;
  float *sound;
  int width, height, status = 0;
  if (count != 6) {
    fprintf(stderr, "usage: segment_raw BUNDLE WIDTH HEIGHT FRAMES SOUND\n");
    return 2;
  }
  width = atoi(arguments[2]);
  height = atoi(arguments[3]);
  pixels = read_file(arguments[4], &frame_bytes);
  sound = read_file(arguments[5], &sound_bytes);
  if (width < 1 || height < 1 || pixels == NULL || sound == NULL) {
    fprintf(stderr, "segment_raw: no frames of %d x %d in %s, or no sound in %s\n", width, height, arguments[4], arguments[5]);
    return 2;
  }

  AVSBG_INIT(options);
  options.runtime_library = getenv("ONNXRUNTIME"); /* where the loader does not find it by itself */
  if (avsbg_model_open(arguments[1], &options, &model) != AVSBG_OK) return fail("open");
  AVSBG_INIT(info);
  if (avsbg_model_get_info(model, &info) != AVSBG_OK) return fail("info");
  fprintf(stderr, "avsbg %s: %s, clips of %d frames\n", avsbg_version(), avsbg_model_name(model), info.frames);

  size = 3 * (size_t)width * (size_t)height;
  grey = malloc((size_t)width * (size_t)height);
  for (first = 0; (first + 1) * size <= frame_bytes && status == 0; first += taken) {
    for (taken = 0; taken < (size_t)info.frames && (first + taken + 1) * size <= frame_bytes; ++taken) {
      AVSBG_INIT(frames[taken]);
      frames[taken].pixels = pixels + (first + taken) * size;
      frames[taken].width = width;
      frames[taken].height = height;
    }
    begin = first * (size_t)info.sample_rate;
    samples = sound_bytes / sizeof(float) > begin ? sound_bytes / sizeof(float) - begin : 0;
    if (samples > taken * (size_t)info.sample_rate) samples = taken * (size_t)info.sample_rate;
    if (avsbg_clip_run(model, frames, taken, sound + begin, samples, masks) != AVSBG_OK) {
      status = fail("segment");
      break;
    }
    for (i = 0; i < taken; ++i) {
      if (avsbg_mask_decide(masks[i], 0.5, width, height, grey) != AVSBG_OK) status = fail("decide");
      else write_grey_map(first + i, grey, width, height);
      avsbg_mask_release(masks[i]);
    }
  }
  avsbg_model_close(model);
  free(grey);
  free(pixels);
  free(sound);
  return status;
}
