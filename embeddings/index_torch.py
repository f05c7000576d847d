"""Exact inner-product search by torch: where torch sees a GPU and FAISS does not; the same code runs on a CPU."""

import numpy as np
import torch
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class TorchEngine:
    """Every product, in half precision on a GPU; what is found there is scored again in single precision."""

    def __init__(self, vectors_ND: Vectors, device: str | None, memory_mb: int, threads: int = 1) -> None:
        """Copy the vectors to a device: `cpu`, `gpu`, or None for a GPU if there is one.

        `threads` are from now on those of every call of torch's on the CPU, in the whole process.
        """
        torch.set_num_threads(threads)
        gpu = torch.cuda.is_available() if device is None else device == "gpu"
        self.device, self.gpu, self.recall = "cuda" if gpu else "cpu", gpu, 1.0
        self.count = len(vectors_ND)
        self._exact_ND = torch.tensor(vectors_ND, device=self.device)
        self._half_DN = self._exact_ND.half().T.contiguous() if gpu else self._exact_ND.T
        self._chunk = max(1, (memory_mb << 18) // max(1, 4 * self.count))

    def search(self, query_QD: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """See `embeddings.index.Engine.search`. The products of a chunk of queries take a quarter of the memory."""
        place_Qk = np.empty((len(query_QD), k), np.int64)
        score_Qk = np.empty((len(query_QD), k), np.float32)
        with torch.inference_mode():
            for begin in range(0, len(query_QD), self._chunk):
                part = slice(begin, begin + self._chunk)
                query = torch.from_numpy(query_QD[part]).to(self.device)
                place, score = self._best(query, k)
                place_Qk[part], score_Qk[part] = place.cpu().numpy(), score.cpu().numpy()
        return place_Qk, score_Qk

    def restricted(self, allowed_N: NDArray[np.bool_]) -> None:
        """Cannot select: more is fetched, and what is not allowed is left out."""

    def follow(self, place_R: NDArray[np.intp], allowed_R: NDArray[np.bool_]) -> bool:
        """Is not restricted."""
        return False

    def _best(self, query_QD: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and scores of the best k, best first."""
        if self.device == "cpu":
            best = torch.topk(query_QD @ self._half_DN, k)
            return best.indices, best.values
        scale_Q1 = query_QD.abs().amax(1, keepdim=True).clamp_min(1e-30)
        place_Qk = torch.topk((query_QD / scale_Q1).half() @ self._half_DN, k).indices
        score_Qk = torch.einsum("qd,qkd->qk", query_QD, self._exact_ND[place_Qk])
        ordered = torch.sort(score_Qk, dim=1, descending=True, stable=True)
        return place_Qk.gather(1, ordered.indices), ordered.values
