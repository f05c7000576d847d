"""A tower of `ranking.model` for serving: the same numbers from fewer and smaller steps, without torch's bookkeeping.

All that is linear in a candidate is one product: its columns, what was learned of the item and a constant 1 side by
side, times the first MLP layer and the first cross layer side by side. Between the products one compiled pass each
cuts, bends and adds. On one core a position of 200 candidates takes half of what the module takes.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ranking.features import CONTEXTS
from ranking.jit import kernel
from ranking.weights import NUMERIC, Floats, part_of

CUT = np.float32(6)
CHUNK = 8
"""Positions per product: their intermediate results stay in a core's second-level cache."""


class FrozenTower:
    """Log-odds of one tower's heads; immutable. F columns, W hidden width, I item width, O heads, R = P x K rows."""

    def __init__(self, model: Mapping[str, Floats], tower: str) -> None:
        """Take the weights of a tower, `next` or `outcome`, out of a model's (`ranking.weights.shapes`)."""
        weights = part_of(model, f"{tower}.")
        width, self._centre_F, self._scale_F = len(weights["wide.bias"]), model["centre_F"], model["scale_F"]
        self._item_NI, self._bias_NO = weights["item.weight"], weights["item_bias.weight"]
        self._apart_FW = weights["apart.weight"].T.copy() if "apart.weight" in weights else None
        self._context_CW = weights["context.weight"]
        crosses = [
            (weights[f"crosses.{n}.weight"].T.copy(), weights[f"crosses.{n}.bias"])
            for n in range(sum(name.startswith("crosses.") for name in weights) // 2)
        ]
        inputs = NUMERIC + self._item_NI.shape[1] + 1
        self._first_AH = np.zeros((inputs, width + (NUMERIC if crosses else 0)), np.float32)
        self._first_AH[:NUMERIC, :width] = weights["wide.weight"].T
        if self._apart_FW is not None:
            self._first_AH[:NUMERIC, :width] += self._apart_FW
        self._first_AH[NUMERIC:-1, :width] = weights["item_in.weight"].T
        self._first_AH[-1, :width] = weights["wide.bias"]
        if crosses:
            self._first_AH[:NUMERIC, width:], self._first_AH[-1, width:] = crosses[0]
        self._width, self._crosses = width, crosses[1:]
        self._deep_WV, self._deep_V = weights["deep.weight"].T.copy(), weights["deep.bias"]
        self._from_deep_VO, self._from_deep_O = weights["from_deep.weight"].T.copy(), weights["from_deep.bias"]
        self._from_cross_FO = weights["from_cross.weight"].T.copy()

    def logits(self, x_PKX: Floats, item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_]) -> Floats:
        """Log-odds, shape (P, K, O); deviations are from the mean of the set. Absent candidates' mean nothing."""
        if len(x_PKX) <= CHUNK:
            return self._logits(x_PKX, item_PK, mask_PK)
        parts = range(0, len(x_PKX), CHUNK)
        return np.concatenate(
            [self._logits(x_PKX[p : p + CHUNK], item_PK[p : p + CHUNK], mask_PK[p : p + CHUNK]) for p in parts]
        )

    def _logits(self, x_PKX: Floats, item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_]) -> Floats:
        bucket_PK = item_PK & (len(self._item_NI) - 1)
        a_RA, middle_PF, context_P = _inputs(x_PKX, bucket_PK, mask_PK, self._centre_F, self._scale_F, self._item_NI)
        shared_PW = self._shared(middle_PF, context_P)
        h_RH = a_RA @ self._first_AH
        cross_RF = _bend(h_RH, a_RA, shared_PW)
        for weight_FF, bias_F in self._crosses:
            _cross(cross_RF, a_RA, cross_RF @ weight_FF, bias_F)
        deep_RV = h_RH[:, : self._width] @ self._deep_WV
        _relu(deep_RV, self._deep_V)
        logit_RO = deep_RV @ self._from_deep_VO + cross_RF @ self._from_cross_FO
        bias_PKO = self._bias_NO[bucket_PK] + self._from_deep_O
        logit_PKO: Floats = logit_RO.reshape(bias_PKO.shape) + bias_PKO
        return logit_PKO

    def _shared(self, middle_PF: Floats, context_P: NDArray[np.int64]) -> Floats:
        """What all candidates of a position add to the wide layer: its context, less what the mean of the set does."""
        shared_PW: Floats = self._context_CW[context_P]
        return shared_PW if self._apart_FW is None else shared_PW - middle_PF @ self._apart_FW

    def shares(
        self, x_PKX: Floats, item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_], index_PN: NDArray[np.int32]
    ) -> Floats:
        """By how much each column of some candidates lifts the first head over the mean candidate. Shape (P, N, F).

        To first order: the slope of the log-odds in the column at the candidate, times how far it is from the mean of
        the set. Costs what scoring the N candidates twice costs.

        Args:
            x_PKX: columns of all candidates.
            item_PK: their ids.
            mask_PK: where there is one.
            index_PN: which of them, -1 for none.
        """
        bucket_PK = item_PK & (len(self._item_NI) - 1)
        chosen = x_PKX, bucket_PK, mask_PK, index_PN
        a_RA, middle_PF, context_P = _chosen(*chosen, self._centre_F, self._scale_F, self._item_NI)
        shared_PW = self._shared(middle_PF, context_P)
        places, W, z_RF = index_PN.shape[1], self._width, a_RA[:, :NUMERIC]
        h_RH = a_RA @ self._first_AH
        wide_RW = h_RH[:, :W].reshape(-1, places, W) + shared_PW[:, None]
        wide_RW = np.maximum(wide_RW, 0, out=wide_RW).reshape(-1, W)
        deep_RV = wide_RW @ self._deep_WV
        deep_RV += self._deep_V
        slope_RW = ((deep_RV > 0) * self._from_deep_VO[:, 0]) @ self._deep_WV.T
        slope_RW *= wide_RW > 0
        slope_RF = slope_RW @ self._first_AH[:NUMERIC, :W].T
        slope_RF += self._cross_slopes(z_RF, h_RH[:, W:])
        share_RF = slope_RF.reshape(-1, places, NUMERIC)
        share_RF *= z_RF.reshape(-1, places, NUMERIC) - middle_PF[:, None]
        share_PNF: Floats = share_RF.reshape(*index_PN.shape, NUMERIC)
        return share_PNF

    def _cross_slopes(self, z_RF: Floats, first_RF: Floats) -> Floats:
        """Slopes of the cross layers' part; `first_RF` is what the first of them multiplies z with."""
        slope_RF: Floats = np.broadcast_to(self._from_cross_FO[:, 0], z_RF.shape)
        if not first_RF.shape[1]:
            return slope_RF
        one = np.float32(1)
        factors: list[Floats] = [first_RF]
        x_RF: Floats = z_RF * (one + first_RF)
        for weight_FF, bias_F in self._crosses:
            factor_RF: Floats = x_RF @ weight_FF + bias_F
            factors.append(factor_RF)
            x_RF = x_RF + z_RF * factor_RF
        through_RF = np.zeros_like(z_RF)
        for (weight_FF, _), factor_RF in zip(self._crosses[::-1], factors[:0:-1], strict=True):
            through_RF += slope_RF * factor_RF
            slope_RF = np.add(slope_RF, (slope_RF * z_RF) @ weight_FF.T, dtype=np.float32)
        first_FF = self._first_AH[:NUMERIC, self._width :]
        out_RF: Floats = through_RF + slope_RF * (one + first_RF) + (slope_RF * z_RF) @ first_FF.T
        return out_RF


@kernel
def _chosen(
    x_PKX: Floats,
    bucket_PK: NDArray[np.int64],
    mask_PK: NDArray[np.bool_],
    index_PN: NDArray[np.int32],
    centre_F: Floats,
    scale_F: Floats,
    item_NI: Floats,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """What `_inputs` makes, of some candidates; the mean is still that of all."""
    (P, N), K = index_PN.shape, mask_PK.shape[1]
    F, items = len(centre_F), item_NI.shape[1]
    a_RA = np.zeros((P * N, F + items + 1), np.float32)
    middle_PF = np.zeros((P, F), np.float32)
    context_P = np.zeros(P, np.int64)
    for p in range(P):
        held = 0
        for k in range(K):
            if mask_PK[p, k]:
                for f in range(F):
                    middle_PF[p, f] += min(max((x_PKX[p, k, f] - centre_F[f]) * scale_F[f], -CUT), CUT)
                context_P[p] = max(context_P[p], min(int(x_PKX[p, k, F]), CONTEXTS - 1))
                held += 1
        for f in range(F):
            middle_PF[p, f] /= np.float32(max(held, 1))
        for n in range(N):
            k = index_PN[p, n]
            if k < 0:
                break
            a_A = a_RA[p * N + n]
            for f in range(F):
                a_A[f] = min(max((x_PKX[p, k, f] - centre_F[f]) * scale_F[f], -CUT), CUT)
            for i in range(items):
                a_A[F + i] = item_NI[bucket_PK[p, k], i]
            a_A[F + items] = 1
    return a_RA, middle_PF, context_P


@kernel
def _inputs(
    x_PKX: Floats,
    bucket_PK: NDArray[np.int64],
    mask_PK: NDArray[np.bool_],
    centre_F: Floats,
    scale_F: Floats,
    item_NI: Floats,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Per row the normalised columns, the item's vector and a 1; per position their mean and the context code."""
    P, K = mask_PK.shape
    F, items = len(centre_F), item_NI.shape[1]
    a_RA = np.zeros((P * K, F + items + 1), np.float32)
    middle_PF = np.zeros((P, F), np.float32)
    context_P = np.zeros(P, np.int64)
    for p in range(P):
        held = 0
        for k in range(K):
            if not mask_PK[p, k]:
                continue
            a_A = a_RA[p * K + k]
            for f in range(F):
                a_A[f] = min(max((x_PKX[p, k, f] - centre_F[f]) * scale_F[f], -CUT), CUT)
                middle_PF[p, f] += a_A[f]
            for i in range(items):
                a_A[F + i] = item_NI[bucket_PK[p, k], i]
            a_A[F + items] = 1
            context_P[p] = max(context_P[p], min(int(x_PKX[p, k, F]), CONTEXTS - 1))
            held += 1
        for f in range(F):
            middle_PF[p, f] /= np.float32(max(held, 1))
    return a_RA, middle_PF, context_P


@kernel
def _bend(h_RH: Floats, a_RA: Floats, shared_PW: Floats) -> Floats:
    """Finish both first layers: the MLP's in place, the cross layer's as the result; that is z where there is none."""
    P, W = shared_PW.shape
    cross_RF = np.empty((len(h_RH), NUMERIC), np.float32)
    for r in range(len(h_RH)):
        p = r // (len(h_RH) // P)
        for w in range(W):
            h_RH[r, w] = max(h_RH[r, w] + shared_PW[p, w], np.float32(0))
        crossed = h_RH.shape[1] > W
        for f in range(NUMERIC):
            cross_RF[r, f] = a_RA[r, f] * (np.float32(1) + h_RH[r, W + f]) if crossed else a_RA[r, f]
    return cross_RF


@kernel
def _cross(cross_RF: Floats, a_RA: Floats, y_RF: Floats, bias_F: Floats) -> None:
    """Add a further cross layer in place: x + z * (W x + b)."""
    for r in range(len(cross_RF)):
        for f in range(NUMERIC):
            cross_RF[r, f] += a_RA[r, f] * (y_RF[r, f] + bias_F[f])


@kernel
def _relu(deep_RV: Floats, bias_V: Floats) -> None:
    for r in range(len(deep_RV)):
        for v in range(len(bias_V)):
            deep_RV[r, v] = max(deep_RV[r, v] + bias_V[v], np.float32(0))
