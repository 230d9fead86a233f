"""Lecture 11's runs: what a code says when the decoder can say it too.

    python notebooks/results/strong_decoders.py               # about an hour of one core
    python notebooks/results/strong_decoders.py --only "deep map" "deep bias" --seeds 10
    python notebooks/results/strong_decoders.py --seeds 1 --steps 50 --out try.npz

Writes ``dgm_course/results/strong_decoders.npz`` after every run, and keeps what the file has. All
runs are on the digits, 17 levels, with 8 latents. Their names R:

- ``window 0``, ``window 1``, ``window 2``, ``window 7``: z as a map, and a decoder that sees so far
  round a pixel (7 is all that came before), by one masked convolution and 1×1 layers;
- ``deep map``, ``deep bias``: five masked 3×3 layers, z as a map, or as a bias, a label's way;
- ``window 0 bias``: the first of these with z as a bias;
- ``alone 1``, ``alone 2``, ``alone 7``, ``deep alone``: the same decoders without a code;
- ``annealed K``, K = 250, 500, 1000: ``window 7`` with a KL term whose weight rises from 0 to 1
  over the first K steps; ``deep bias annealed 500``: ``deep bias`` with the same;
- ``free L``, L = 0.25, 0.5, 1: ``window 7`` with L free nats for each latent; ``total L``, L = 2,
  4, 8: with L for all latents together; ``deep bias free 0.5``: ``deep bias`` with the first.

Of every run R, for S seeds (0, 1, …), means over the 355 test images, in nats:

- ``R/log_p`` (S,): log p(x) by importance samples; ``R/log_p_error`` (S,): the standard error that
  is due to these samples (0 where a decoder has no code: exact);
- ``R/elbo``, ``R/rate``, ``R/distortion`` (S,): elbo = −distortion − rate, rate the KL term;
- ``R/train_elbo`` (S,): the ELBO of the training images;
- ``R/digit`` (S,): how often a linear read-out of E z names the test digit;
- ``R/rmse`` (S,): root mean squared error, in levels, of E[x|z] at z = E z, an average of draws;
- ``R/active`` (S,): latents whose mean varies by more than 0.01;
- ``R/curve/rate``, ``R/curve/elbo`` (S, T): of the test images, while the run goes on, at
  ``R/curve/step`` (T,).

Of a decoder without a code there are ``log_p``, ``log_p_error`` and ``train_elbo`` alone, the last
being log p(x) of the training images. For the pictures, of seed 0: ``images`` (10, 8, 8) uint8, a
test image of each digit 0 … 9; and of the runs ``window …``, ``deep map``, ``deep bias``:
``R/draws`` (10, 8, 8, 8) uint8, eight draws of each image from its one z = E z, and ``R/expected``
(10, 8, 8) float16, the average of many such draws, in levels. ``steps`` () is the runs' length.
"""
