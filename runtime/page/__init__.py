"""A web page to try a bundle on: a video or the camera in, the overlay out; for one's own machine."""
