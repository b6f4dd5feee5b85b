"""Are the digits that are drawn in parallel as good as those of the loop? A classifier judges both.

    python -m benchmarks.digits_quality

Every process draws 20 of each digit from the model that ships with the package, with the same noise in parallel and
by the loop. A classifier that was trained on the real images says whether they are what they were asked to be, and a
Frechet distance in the features of its last layer how far their law is from that of real images left out of training.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import parsample as ps
from benchmarks.device import write_table
from parsample.samplers import diffusion

EACH, RESAMPLES, TOLERANCE = 20, 200, 1e-3
CASES: list[tuple[str, int]] = [("ddim", 25), ("dpm_solver_pp", 25), ("ddpm", 50)]


class Judge:
    """A classifier with one hidden layer, trained on the images that the model was trained on."""

    def __init__(self) -> None:
        data = load_digits()
        images, labels = (data.data / 8 - 1).astype(np.float32), data.target
        left_out = np.arange(len(images)) % 5 == 0
        self.real, self.real_labels = images[left_out], labels[left_out]
        self.learned = images[~left_out]
        self.network = MLPClassifier((32,), max_iter=400, alpha=1e-2, random_state=0).fit(
            self.learned, labels[~left_out]
        )

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the hidden layer."""
        return np.maximum(images @ self.network.coefs_[0] + self.network.intercepts_[0], 0)

    def frechet(self, images: np.ndarray) -> float:
        """Return the distance of two normal distributions, fitted to the features of images and of real ones."""
        (m1, c1), (m2, c2) = ((f.mean(0), np.cov(f.T)) for f in (self.features(images), self.features(self.real)))
        # The trace of the square root of c1 c2, whose eigenvalues are at least 0; features that never vary give zeros.
        shared = np.sqrt(np.maximum(np.linalg.eigvals(c1 @ c2).real, 0)).sum()
        return float(np.sum((m1 - m2) ** 2) + np.trace(c1 + c2) - 2 * shared)

    def nearest(self, images: np.ndarray) -> float:
        """Return the median distance to the nearest image of the training, root mean square over pixels."""
        squares = ((images[:, None] - self.learned[None]) ** 2).mean(-1)
        return float(np.median(np.sqrt(squares.min(1))))


def draw(name: str, steps: int, method: str) -> tuple[np.ndarray, float]:
    """Return `EACH` images of every digit, as rows of pixels, and the mean number of rounds."""
    schedule = diffusion.LinearBetas()
    model = diffusion.DigitsModel(schedule, "x0")
    images, rounds = [], []
    for label in range(10):
        process = diffusion.PROCESSES[name](
            model, schedule, steps, "x0", condition=jnp.asarray(label), sigma_data=diffusion.DigitsModel.sigma_data
        )
        out = ps.diffuse(process, (8, 8), EACH, seed=label, method=method, tolerance=TOLERANCE)
        images.append(np.asarray(out.samples).reshape(EACH, -1))
        rounds.append(float(out.rounds.mean()))
    return np.concatenate(images), float(np.mean(rounds))


def compare(judge: Judge, parallel: np.ndarray, loop: np.ndarray) -> list[Any]:
    """Return the cells about accuracy and Frechet distance: both, and their difference with its standard error."""
    labels, rng = np.repeat(np.arange(10), EACH), np.random.default_rng(0)
    right = np.stack([judge.network.predict(images) == labels for images in (parallel, loop)])
    shift = right[0].astype(float) - right[1]
    distances = [judge.frechet(images) for images in (parallel, loop)]
    # Both are resampled together, so that this is the error of their difference.
    rows = rng.integers(0, len(labels), (RESAMPLES, len(labels)))
    again = np.array([[judge.frechet(images[row]) for images in (parallel, loop)] for row in rows])
    one = np.sqrt(right[1].mean() * (1 - right[1].mean()) / len(labels))
    return [
        f"{right[0].mean():.3f}",
        f"{right[1].mean():.3f} ± {one:.3f}",
        f"{shift.mean():.4f} ± {shift.std() / np.sqrt(len(shift)):.4f}",
        f"{distances[0]:.3f}",
        f"{distances[1]:.3f} ± {again[:, 1].std():.3f}",
        f"{distances[0] - distances[1]:.1g} ± {(again[:, 0] - again[:, 1]).std():.1g}",
    ]


def main() -> None:
    judge = Judge()
    rows: list[list[Any]] = []
    for name, steps in CASES:
        (parallel, rounds), (loop, _) = draw(name, steps, "scaled_identity"), draw(name, steps, "sequential")
        largest = np.sqrt(((parallel - loop) ** 2).mean(1)).max()
        rows.append([name, steps, f"{rounds:.1f}", *compare(judge, parallel, loop), f"{largest:.1g}"])
        rows[-1].append(f"{judge.nearest(parallel):.2f}")
        print(*rows[-1], sep=" | ", flush=True)
    accuracy = judge.network.score(judge.real, judge.real_labels)
    write_table(
        "digits_quality",
        "Digits drawn in parallel and by the loop",
        f"{EACH} of each digit, from the model that ships with the package, without guidance; the same noise in both. "
        f"Method scaled_identity, tolerance {TOLERANCE:g}. Accuracy: of scikit-learn's classifier with 32 hidden "
        "units, trained on the same four fifths of the real images as the model; on the fifth that both have not "
        f"seen it is {accuracy:.3f}. Frechet distance: between normal distributions fitted to those 32 features, of "
        f"the images and of the fifth; of the four fifths it is {judge.frechet(judge.learned):.3f}. Differences are "
        "parallel minus loop, with the standard errors of the paired difference (for the distance from "
        f"{RESAMPLES} resamplings). Largest difference: of an image from the loop's, root mean square, images going "
        "from -1 to 1. Nearest: the median distance of an image from the nearest one in the training, root mean "
        f"square; of the real images left out of it the same is {judge.nearest(judge.real):.2f}, so that a number far "
        "below would mean that the model repeats what it has learned by heart.",
        (
            "process",
            "steps",
            "rounds",
            "accuracy, parallel",
            "accuracy, loop",
            "difference",
            "Frechet, parallel",
            "Frechet, loop",
            "difference",
            "largest difference",
            "nearest",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
